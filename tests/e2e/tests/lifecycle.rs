//! What can be changed about a VM that is there.

use banger_e2e::{Content, Out, Rig};

async fn guest(rig: &Rig, vm: &str, script: &str) -> Out {
    rig.banger(["vm", "exec", vm, "--", "sh", "-euc", script]).await
}

#[tokio::test]
async fn a_vm_is_changed_and_renamed() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let new = [
        "--label",
        "of=test",
        "--label",
        "odd=one",
        "--disk-size",
        "1G",
        "a",
    ];
    let mut create = rig.new_vm("create", banger_e2e::BARE, &new);
    banger_e2e::finished(&mut create, std::time::Duration::from_secs(180))
        .await
        .ok();
    guest(&rig, "a", "echo kept > /root/kept").await.ok();

    // Labels count at once; the rest with the next start, and that is told.
    let set = rig
        .banger([
            "vm",
            "set",
            "a",
            "--vcpu",
            "2",
            "--memory",
            "320M",
            "--disk-size",
            "2G",
        ])
        .await
        .ok();
    let told = format!("{}{}", set.text(), set.stderr);
    assert!(told.contains("restart") || told.contains("next start"), "{set}");
    let labels = ["vm", "set", "a", "--label", "of=another", "--label", "more=1"];
    let at_once = rig.banger(labels).await.ok();
    let told = format!("{}{}", at_once.text(), at_once.stderr);
    assert!(
        !told.contains("restart") && !told.contains("next start"),
        "{at_once}"
    );
    let info = rig.show("a").await;
    assert_eq!(info["labels"]["of"], "another", "{info}");
    assert_eq!(info["labels"]["odd"], "one", "{info}");
    let filtered = |label: &'static str| {
        let rig = &rig;
        async move {
            let filter = format!("label={label}");
            rig.banger(["vm", "list", "-q", "--filter", &filter])
                .await
                .ok()
                .text()
        }
    };
    assert_eq!(filtered("more=1").await, "a");
    assert_eq!(filtered("of=test").await, "");
    assert_eq!(guest(&rig, "a", "nproc").await.ok().text(), "1");

    // A disk only grows; what is wrong changes nothing.
    rig.banger(["vm", "set", "a", "--disk-size", "1G"])
        .await
        .exits(1)
        .says(&["2G"]);
    rig.banger(["vm", "set", "a", "--memory", "1M"]).await.exits(1);
    rig.banger(["vm", "set", "a"]).await.exits(2);
    rig.banger(["vm", "set", "none", "--vcpu", "1"])
        .await
        .exits(1)
        .says(&["none"]);

    // A name is free again when its VM has another, and nobody has two.
    rig.create_bare("b").await;
    rig.banger(["vm", "rename", "a", "b"]).await.exits(1).says(&["b"]);
    rig.banger(["vm", "rename", "a", "Not A Name"]).await.exits(2);
    rig.banger(["vm", "rename", "b", "a-b"]).await.ok();
    rig.banger(["vm", "rename", "a", "b"]).await.ok();
    assert_eq!(rig.names().await, ["a-b", "b"]);
    assert_eq!(guest(&rig, "b", "cat /root/kept").await.ok().text(), "kept");

    rig.banger(["vm", "restart", "b"]).await.ok();
    let facts = guest(&rig, "b", "hostname; nproc; df -k / | tail -n 1 | awk '{print $2}'; free -m | awk '/Mem/ {print $2}'; cat /root/kept").await.ok();
    let text = facts.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[0], lines[1], lines[4]), ("b", "2", "kept"), "{facts}");
    let number = |at: usize| lines[at].parse::<u64>().unwrap_or_else(|_| panic!("{facts}"));
    assert!((1_900_000..=2_097_152).contains(&number(2)), "{facts}");
    assert!((240..=320).contains(&number(3)), "{facts}");

    // A daemon that is killed has forgotten nothing of it.
    rig.kill(rig.daemon_pid().expect("a daemon runs")).await;
    let info = rig.show("b").await;
    assert_eq!(
        (info["vcpus"].as_u64(), info["memory_mib"].as_u64()),
        (Some(2), Some(320)),
        "{info}"
    );
    assert_eq!(info["disk_bytes"].as_u64(), Some(2 << 30), "{info}");
    rig.banger(["vm", "delete", "-f", "b", "a-b"]).await.ok();
    assert_eq!(rig.names().await, [""; 0]);
}
