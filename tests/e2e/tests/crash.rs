//! Deaths: of the daemon at every named point, of QEMU, and of the guest by its own hand.

use std::time::Duration;

use banger_e2e::{Audit, BARE, Content, Out, Rig, finished};

const LIMIT: Duration = Duration::from_secs(180);

/// The points of an operation, as the debug build of the daemon lists them.
async fn points(rig: &Rig, operations: &[&str]) -> Option<Vec<String>> {
    let out = finished(rig.program(Rig::daemon_program()).arg("fail-points"), LIMIT).await;
    if out.status != 0 {
        banger_e2e::skipped("guest", "this build of bangerd has no fail points");
        return None;
    }
    let all = out.text();
    let wanted = |point: &&str| operations.iter().any(|operation| point.starts_with(operation));
    Some(
        all.lines()
            .map(str::trim)
            .filter(wanted)
            .map(str::to_owned)
            .collect(),
    )
}

/// Ends the rig's daemon and nothing else.
async fn end_daemon(rig: &Rig) {
    for pid in rig.pids("bangerd") {
        rig.kill(pid).await;
    }
}

/// Runs `banger` against a daemon that dies at a point.
async fn with_death_at(rig: &mut Rig, point: &str, args: &[&str]) -> Out {
    end_daemon(rig).await;
    rig.set("BANGER_FAIL_POINT", format!("{point}=kill"));
    let mut command = if args[1] == "create" {
        rig.new_vm("create", BARE, &args[2..])
    } else {
        rig.command(args)
    };
    let out = finished(&mut command, LIMIT).await;
    rig.unset("BANGER_FAIL_POINT");
    out
}

/// What a repaired VM may be: there and settled, or gone.
async fn assert_settled(rig: &Rig, point: &str, out: &Out) {
    for name in rig.names().await {
        let info = rig
            .wait_for(&name, "settled", |vm| {
                matches!(vm.state.as_str(), "stopped" | "running")
            })
            .await;
        if info.state == "running" {
            rig.banger(["vm", "exec", &name, "--", "true"]).await.ok();
        } else {
            assert!(
                rig.pids("qemu-system-x86_64").is_empty(),
                "{point}: stopped, and QEMU runs\n{out}"
            );
        }
    }
}

async fn create_and_die(operations: &[&str]) {
    let Some(mut rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let Some(points) = points(&rig, operations).await else {
        return;
    };
    assert!(points.len() >= 5, "{points:?}");
    rig.warm_up().await;
    let before = Audit::take_without_daemon(&rig);
    for point in points {
        let out = with_death_at(&mut rig, &point, &["vm", "create", "x"]).await;
        if point != "create.stopped" {
            assert_ne!(out.status, 0, "the daemon did not die at {point}: {out}");
        }
        assert_settled(&rig, &point, &out).await;
        if !rig.names().await.is_empty() {
            // What is there can be used and deleted.
            rig.banger(["vm", "start", "x"]).await;
            rig.banger(["vm", "exec", "x", "--", "true"]).await.ok();
            rig.banger(["vm", "delete", "-f", "x"]).await.ok();
        }
        before.assert_same_at(&rig, &point);
    }
}

#[tokio::test]
async fn a_daemon_killed_at_every_point_of_create_leaves_nothing_half_made() {
    create_and_die(&["create."]).await;
}

#[tokio::test]
async fn a_daemon_killed_at_every_point_of_start_loses_nothing() {
    create_and_die(&["start."]).await;
}

#[tokio::test]
async fn a_daemon_killed_at_every_point_of_stop_and_delete_is_finished_by_the_next() {
    let Some(mut rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let Some(points) = points(&rig, &["stop.", "delete."]).await else {
        return;
    };
    assert!(points.len() >= 10, "{points:?}");
    rig.warm_up().await;
    let before = Audit::take_without_daemon(&rig);
    for point in points {
        if rig.names().await.is_empty() {
            rig.create_bare("x").await;
        } else if rig.property("x", "state").await == "stopped" {
            rig.banger(["vm", "start", "x"]).await.ok();
        }
        let stop = point.starts_with("stop.");
        let args: &[&str] = if stop {
            &["vm", "stop", "x"]
        } else {
            &["vm", "delete", "-f", "x"]
        };
        let out = with_death_at(&mut rig, &point, args).await;
        assert_settled(&rig, &point, &out).await;
        if !stop && rig.names().await.is_empty() {
            before.assert_same_at(&rig, &point);
        }
    }
    rig.banger(["vm", "prune", "-f"]).await.ok();
    if !rig.names().await.is_empty() {
        rig.banger(["vm", "delete", "-f", "x"]).await.ok();
    }
    before.assert_same_at(&rig, "the end");
}

#[tokio::test]
async fn guests_outlive_the_daemon_and_their_own_deaths_are_told() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;
    let boot_id = ["vm", "exec", "a", "--", "cat", "/proc/sys/kernel/random/boot_id"];
    let first = rig.banger(boot_id).await.ok().text();
    let qemu = rig.pids("qemu-system-x86_64");
    assert_eq!(qemu.len(), 1);

    // The daemon dies: the guest does not notice, and the next call finds it.
    end_daemon(&rig).await;
    assert_eq!(rig.pids("qemu-system-x86_64"), qemu);
    assert_eq!(rig.banger(boot_id).await.ok().text(), first);
    assert_eq!(
        rig.show("a").await["pid"].as_i64(),
        qemu.first().map(|pid| i64::from(*pid))
    );

    // It dies while a command runs: the command's caller is told, the guest goes on.
    let mut command = rig.command(["vm", "exec", "a", "--", "sh", "-c", "echo up; exec sleep 1000"]);
    let mut child = command.spawn().unwrap();
    banger_e2e::line_with(child.stdout.as_mut().unwrap(), "up", LIMIT).await;
    end_daemon(&rig).await;
    rig.wait("exec", child).await.exits(125);
    assert_eq!(rig.banger(boot_id).await.ok().text(), first);

    // Reboot: the same machine, another boot.
    let ready = rig.show("a").await["ready_us"].as_u64().unwrap();
    rig.banger(["vm", "exec", "a", "--", "reboot"]).await;
    rig.wait_for("a", "rebooted", |vm| vm.state == "running" && vm.ready_us > ready)
        .await;
    let second = rig.banger(boot_id).await.ok().text();
    assert_ne!(second, first);

    // Power off: stopped, and why.
    rig.banger(["vm", "exec", "a", "--", "poweroff"]).await;
    let info = rig.wait_for("a", "stopped", |vm| vm.state == "stopped").await;
    assert_eq!(info.stop_reason, "guest-poweroff");
    assert!(rig.pids("qemu-system-x86_64").is_empty());

    rig.banger(["vm", "start", "a"]).await.ok();

    // QEMU dies.
    rig.kill(rig.pids("qemu-system-x86_64")[0]).await;
    let info = rig.wait_for("a", "stopped", |vm| vm.state == "stopped").await;
    assert_eq!(info.stop_reason, "vmm-killed");
    let list = rig.banger(["vm", "list", "-a"]).await.ok().text();
    assert!(list.contains("vmm-killed"), "{list}");

    // QEMU and the daemon die together: the next daemon sees what is gone.
    rig.banger(["vm", "start", "a"]).await.ok();
    end_daemon(&rig).await;
    rig.kill(rig.pids("qemu-system-x86_64")[0]).await;
    let info = rig.wait_for("a", "stopped", |vm| vm.state == "stopped").await;
    assert_eq!(info.stop_reason, "vanished");
    rig.banger(["vm", "start", "a"]).await.ok();
    rig.banger(["vm", "exec", "a", "--", "true"]).await.ok();
    rig.banger(["vm", "delete", "-f", "a"]).await.ok();
    assert!(rig.pids("qemu-system-x86_64").is_empty());
}

#[tokio::test]
async fn a_panic_of_the_guests_kernel_is_told_to_whoever_waits() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;
    let ready = rig.show("a").await["ready_us"].as_u64().unwrap();
    let crash = rig
        .command([
            "vm",
            "exec",
            "a",
            "--",
            "sh",
            "-c",
            "echo c > /proc/sysrq-trigger",
        ])
        .spawn()
        .unwrap();
    // Ended, or booted again; never "running" and dead.
    let settled =
        |vm: &banger_bus::VmInfo| vm.state == "stopped" || (vm.state == "running" && vm.ready_us > ready);
    let info = rig.wait_for("a", "settled", settled).await;
    if info.state == "stopped" {
        assert_eq!(info.stop_reason, "guest-panic");
    } else {
        rig.banger(["vm", "exec", "a", "--", "true"]).await.ok();
    }
    let log = rig.banger(["vm", "logs", "a"]).await.ok().text();
    assert!(log.contains("Kernel panic"), "{log}");
    // The command went with its kernel, and its caller does not wait for ever.
    rig.wait("vm exec in a guest that panics", crash).await.exits(125);
}
