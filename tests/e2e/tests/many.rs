//! Several VMs at once, and an audit of what is left.

use banger_e2e::{Audit, BARE, Content, Rig};
use futures_util::future::join_all;

#[tokio::test]
async fn eight_vms_come_and_go_without_a_trace() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.warm_up().await;
    let before = Audit::take(&rig);
    let names: Vec<String> = (1..=8).map(|n| format!("m{n}")).collect();

    let create = |name: &str| {
        let mut command = rig.new_vm("create", BARE, &["--label", "of=test", name]);
        async move { banger_e2e::finished(&mut command, std::time::Duration::from_secs(400)).await }
    };
    for out in join_all(names.iter().map(|name| create(name))).await {
        out.ok();
    }
    assert_eq!(rig.names().await, names);
    let list = rig
        .banger(["vm", "list", "--json", "--filter", "label=of=test"])
        .await
        .ok()
        .json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 8);
    assert!(list.iter().all(|vm| vm["state"] == "running"), "{list:?}");
    let mut ports: Vec<_> = list.iter().map(|vm| vm["ssh_port"].as_u64().unwrap()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 8, "each has its own port");
    assert_eq!(rig.pids("qemu-system-x86_64").len(), 8);
    let hosts = names
        .iter()
        .map(|name| rig.banger(["vm", "exec", name, "--", "hostname"]));
    for (out, name) in join_all(hosts).await.into_iter().zip(&names) {
        assert_eq!(out.ok().text(), *name);
    }

    // A prefix that several share is refused with the candidates; one bad name does not stop the others.
    rig.banger(["vm", "show", "m"]).await.exits(1).says(&["m1", "m8"]);
    rig.banger(["vm", "stop", "m1", "none", "m2"])
        .await
        .exits(1)
        .says(&["none"]);
    assert_eq!(rig.property("m1", "state").await, "stopped");
    assert_eq!(rig.property("m2", "state").await, "stopped");

    let mut delete = vec!["vm", "delete", "-f"];
    delete.extend(names.iter().map(String::as_str));
    rig.banger(delete).await.ok();
    assert_eq!(rig.names().await, [""; 0]);
    before.assert_same(&rig);
}

#[tokio::test]
async fn first_callers_share_one_daemon() {
    let rig = Rig::empty();
    let calls = (0..6).map(|_| rig.banger(["daemon", "status", "--json"]));
    assert!(
        join_all(calls).await.iter().all(|out| out.status == 3),
        "asking starts nothing"
    );
    assert_eq!(rig.daemon_pid(), None);
    for out in join_all((0..6).map(|_| rig.banger(["vm", "list"]))).await {
        out.ok();
    }
    assert_eq!(rig.pids("bangerd").len(), 1);
    let status = rig.banger(["daemon", "status", "--json"]).await.ok().json();
    assert_eq!(
        status["pid"].as_i64().map(|pid| i32::try_from(pid).unwrap()),
        rig.daemon_pid()
    );
    assert_eq!(status["transport"], "private-socket");
    let mode = std::fs::metadata(rig.dirs().socket()).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
}
