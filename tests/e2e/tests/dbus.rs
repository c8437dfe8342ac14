//! On a session bus: what standard tools see, and what becomes of a client that leaves.

use std::time::Duration;

use banger_bus::ManagerProxy;
use banger_e2e::{Audit, BARE, Bus, Content, Out, Rig, finished, line_with};
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(180);
const NAME: &str = "org.banger.Manager";

async fn busctl(rig: &Rig, bus: &Bus, args: &[&str]) -> Out {
    let mut command = rig.program("busctl");
    command
        .arg(format!("--address={}", bus.address()))
        .arg("--no-pager")
        .args(args);
    finished(&mut command, LIMIT).await
}

#[tokio::test]
async fn standard_tools_see_vms_jobs_and_changes() {
    let Some(mut rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let Some(bus) = Bus::start(&mut rig).await else {
        return;
    };
    let mut monitor = rig.program("busctl");
    monitor
        .arg(format!("--address={}", bus.address()))
        .args(["--json=short", "monitor", NAME]);
    let mut monitor = monitor.spawn().unwrap();
    line_with(monitor.stderr.as_mut().unwrap(), "Monitoring", LIMIT).await;

    // The first call activates the daemon.
    rig.run_bare(&["--name", "a", "--", "true"]).await.ok();
    let owner = [
        "call",
        "org.freedesktop.DBus",
        "/",
        "org.freedesktop.DBus",
        "GetConnectionUnixProcessID",
        "s",
        NAME,
    ];
    let owner = busctl(&rig, &bus, &owner).await.ok();
    assert_eq!(owner.text(), format!("u {}", rig.daemon_pid().unwrap()));
    assert_eq!(rig.pids("bangerd").len(), 1);

    let id = rig.property("a", "id").await;
    let tree = busctl(&rig, &bus, &["--list", "tree", NAME]).await.ok().text();
    for path in ["/org/banger/Manager", "/org/banger/Manager/image/bare"] {
        assert!(tree.lines().any(|line| line == path), "no {path} in {tree}");
    }
    let vm = tree
        .lines()
        .find(|line| line.starts_with("/org/banger/Manager/vm/"))
        .unwrap_or_else(|| panic!("{tree}"));
    let interface = busctl(&rig, &bus, &["introspect", NAME, vm, "org.banger.VM"])
        .await
        .ok()
        .text();
    for word in [
        ".Exec",
        ".Start",
        ".State",
        ".MemoryMiB",
        "\"running\"",
        &format!("\"{id}\""),
    ] {
        assert!(interface.contains(word), "no {word} in {interface}");
    }
    let state = busctl(&rig, &bus, &["get-property", NAME, vm, "org.banger.VM", "State"])
        .await
        .ok();
    assert_eq!(state.text(), "s \"running\"");
    let missing = busctl(
        &rig,
        &bus,
        &[
            "call",
            NAME,
            "/org/banger/Manager",
            NAME,
            "LookUpVm",
            "s",
            "nobody",
        ],
    )
    .await;
    assert!(
        missing.status != 0 && missing.stderr.contains("nobody"),
        "{missing}"
    );
    let odd = [
        "call",
        NAME,
        "/org/banger/Manager",
        NAME,
        "CreateVm",
        "sa{sv}",
        "b",
        "1",
        "Memroy",
        "u",
        "7",
    ];
    let odd = busctl(&rig, &bus, &odd).await;
    assert!(
        odd.status != 0 && odd.stderr.contains("Memroy"),
        "an unknown option is refused: {odd}"
    );
    rig.banger(["vm", "delete", "-f", "a"]).await.ok();

    // Everything of that was announced, in this order.
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    let expected: [&[&str]; 6] = [
        &["InterfacesAdded", "/org/banger/Manager/job/", "org.banger.Job"],
        &["InterfacesAdded", "/org/banger/Manager/vm/", "org.banger.VM"],
        &["PropertiesChanged", "org.banger.VM", "starting"],
        &["PropertiesChanged", "org.banger.VM", "running"],
        &["\"Removed\"", "org.banger.Job", "done"],
        &["InterfacesRemoved", "/org/banger/Manager/vm/", "org.banger.VM"],
    ];
    for words in expected {
        let seen = timeout(LIMIT, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if words.iter().all(|word| line.contains(word)) {
                    return true;
                }
            }
            false
        });
        assert_eq!(seen.await, Ok(true), "the monitor did not show {words:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_create_leaves_nothing() {
    let Some(mut rig) = Rig::new(Content::Bare).await else {
        return;
    };
    // The daemon is the bus's child and has its environment.
    rig.set("BANGER_FAIL_POINT", "create.disk=delay:100000");
    let Some(bus) = Bus::start(&mut rig).await else {
        return;
    };
    rig.banger(["vm", "list"]).await.ok();
    let before = Audit::take(&rig);

    let address = zbus::Address::try_from(bus.address()).unwrap();
    let client = zbus::connection::Builder::address(address).build().await.unwrap();
    let mut removed = ManagerProxy::new(&client)
        .await
        .unwrap()
        .receive_job_removed()
        .await
        .unwrap();
    // busctl leaves as soon as it has the job's path, and the job had only him.
    let create = [
        "call",
        NAME,
        "/org/banger/Manager",
        NAME,
        "CreateVm",
        "sa{sv}",
        "lost",
        "1",
        "Image",
        "s",
        BARE,
    ];
    let job = busctl(&rig, &bus, &create).await.ok().text();
    assert!(job.contains("/org/banger/Manager/job/"), "{job}");
    let signal = timeout(LIMIT, removed.next()).await.unwrap().unwrap();
    let signal = signal.args().unwrap();
    assert_eq!(*signal.result(), "cancelled");
    drop(client);
    assert_eq!(rig.names().await, [""; 0]);
    before.assert_same(&rig);
}
