//! `banger vm run`: exit statuses, streams, what stays and what does not.

use banger_e2e::{Audit, Content, Rig};

#[tokio::test]
async fn run_gives_the_commands_own_status_and_leaves_nothing() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    // The daemon and its files are there before and after.
    rig.warm_up().await;
    let before = Audit::take(&rig);

    let out = rig
        .run_bare(&["--rm", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])
        .await;
    let out = out.exits(7);
    assert_eq!(out.stdout, b"out\n");
    assert_eq!(out.stderr, "err\n", "--quiet leaves the guest's words alone");
    before.assert_same(&rig);
}

#[tokio::test]
async fn run_tells_what_cannot_be_executed_from_what_is_not_there() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let out = rig
        .run_bare(&[
            "--name",
            "a",
            "--env",
            "COLOUR=red",
            "--",
            "sh",
            "-c",
            "echo $COLOUR; hostname; uname -r",
        ])
        .await
        .ok();
    let text = out.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["red", "a"], "{out}");
    assert!(lines[2].starts_with("6.1."), "{out}");
    assert_eq!(rig.names().await, ["a"], "without --rm it stays");
    assert_eq!(rig.property("a", "state").await, "running");

    rig.banger(["vm", "exec", "a", "--", "/no/such/program"])
        .await
        .exits(127);
    rig.banger(["vm", "exec", "a", "--", "no-such-program"])
        .await
        .exits(127);
    rig.banger(["vm", "exec", "a", "--", "/etc/passwd"])
        .await
        .exits(126);
    rig.banger(["vm", "exec", "a", "--", "sh", "-c", "kill -9 $$"])
        .await
        .exits(137);
    rig.banger(["vm", "exec", "nobody", "--", "true"])
        .await
        .exits(125)
        .says(&["nobody"]);
    // The same name again is refused before anything is made.
    rig.run_bare(&["--name", "a", "--", "true"])
        .await
        .exits(125)
        .says(&["a"]);
    assert_eq!(rig.names().await, ["a"]);

    let env = rig.banger([
        "vm",
        "exec",
        "a",
        "--workdir",
        "/tmp",
        "-e",
        "X=a b",
        "--",
        "sh",
        "-c",
        "pwd; echo $X$COLOUR",
    ]);
    assert_eq!(env.await.ok().text(), "/tmp\na bred");

    rig.banger(["vm", "stop", "a"]).await.ok();
    let shown = rig.show("a").await;
    assert_eq!(
        (shown["state"].as_str(), shown["stop_reason"].as_str()),
        (Some("stopped"), Some("requested")),
        "{shown}"
    );
    rig.banger(["vm", "exec", "a", "--", "true"])
        .await
        .exits(125)
        .says(&["a"]);
    // What the guest wrote before is there after another start.
    rig.banger(["vm", "start", "a"]).await.ok();
    rig.banger(["vm", "exec", "a", "--", "true"]).await.ok();
    rig.banger(["vm", "delete", "a"]).await.exits(1);
    rig.banger(["vm", "delete", "-f", "a"]).await.ok();
    assert_eq!(rig.names().await, [""; 0]);
}

#[tokio::test]
async fn the_disk_has_the_size_that_was_asked_for_and_keeps_its_content() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let script = "echo kept > /root/file; sync; df -k / | tail -n 1 | awk '{print $2}'";
    let out = rig
        .run_bare(&["--name", "big", "--disk-size", "2G", "--", "sh", "-c", script])
        .await
        .ok();
    let kib: u64 = out.text().trim().parse().unwrap_or_else(|_| panic!("{out}"));
    assert!((1_900_000..=2_097_152).contains(&kib), "{kib} KiB of 2 GiB");
    rig.banger(["vm", "restart", "big"]).await.ok();
    let out = rig
        .banger(["vm", "exec", "big", "--", "cat", "/root/file"])
        .await
        .ok();
    assert_eq!(out.text(), "kept");
    // A second start does not shrink or lose anything, and a kill is told from a stop.
    rig.banger(["vm", "kill", "big"]).await.ok();
    assert_eq!(rig.property("big", "stop_reason").await, "killed");
    let dry = rig.banger(["vm", "prune", "--dry-run"]).await.ok();
    assert!(dry.text().contains("big") || dry.stderr.contains("big"), "{dry}");
    assert_eq!(rig.names().await, ["big"], "a dry run prunes nothing");
    rig.banger(["vm", "prune", "-f"]).await.ok();
    assert_eq!(rig.names().await, [""; 0]);
}
