//! The daemon dies, or fails, at each of its fail points, and the next one finds an order that
//! it can bring to a good end: no slot is lost, and no VMM.

use std::process::Output;

use crate::rig::{Rig, can_run};

/// Passed where this daemon launches a VMM itself.
const NOT_HERE: &str = "start.scope";
/// Passed by a stop.
const GIVEN_BACK: &str = "slot.given-back";

/// The points of an operation; none in a release build.
fn points(rig: &Rig, operation: &str) -> Vec<String> {
    let Output { status, stdout, .. } = rig.bangerd().arg("fail-points").output().unwrap();
    if !status.success() {
        println!("skipped: this build has no fail points");
        return Vec::new();
    }
    let names = String::from_utf8(stdout).unwrap();
    let of_slots = if operation == "stop." {
        GIVEN_BACK
    } else {
        "slot.acquired"
    };
    names
        .lines()
        .filter(|name| (name.starts_with(operation) || *name == of_slots) && *name != NOT_HERE)
        .map(str::to_owned)
        .collect()
}

async fn at_every_point(operation: &'static str, action: &'static str) {
    if !can_run() {
        return;
    }
    let points = points(&Rig::new().await, operation);
    for point in points {
        at(&point, action).await;
    }
}

async fn at(point: &str, action: &str) {
    println!("{point}={action}");
    let rig = Rig::new().await;
    let mut daemon = rig.start("").await;
    daemon.create("public").await;
    let stops = point.starts_with("stop.") || point == GIVEN_BACK;
    if stops {
        assert_eq!(daemon.start_vm().await.unwrap().error, None, "{point}");
    }
    daemon.kill();

    let mut daemon = rig.start(&format!("{point}={action}")).await;
    let outcome = if stops {
        daemon.stop_vm().await
    } else {
        daemon.start_vm().await
    };
    match action {
        "kill" => assert_eq!(outcome, None, "{point} was not passed: {}", rig.log()),
        _ => assert!(outcome.is_some(), "{point}: {}", rig.log()),
    }
    daemon.kill();

    rig.helper.take_calls();
    let mut daemon = rig.start("").await;
    // Its first look is over before it is killed, and not counted as the next one's.
    rig.helper.asked("List").await;
    let state = daemon.state().await;
    assert!(
        ["stopped", "starting", "running", "stopping"].contains(&state.as_str()),
        "{point}: {state}"
    );
    if state == "starting" || state == "running" {
        daemon.becomes("running").await;
        assert_eq!(rig.helper.slots(), 1, "{point}");
        assert_eq!(daemon.vm().await.ssh_port().await.unwrap(), 1022, "{point}");
        assert_eq!(
            daemon.stop_vm().await.unwrap().error,
            None,
            "{point}: {}",
            rig.log()
        );
    }
    daemon.becomes("stopped").await;
    rig.helper.empty().await;
    let rights = std::os::unix::fs::MetadataExt::mode(&rig.kernel().metadata().unwrap());
    assert_eq!(rights & 0o777, 0o600, "{point}: a right to the kernel stays");
    daemon.kill();

    // Nothing is left to be done, and the VM can be used.
    rig.helper.take_calls();
    let mut daemon = rig.start("").await;
    rig.helper.asked("List").await;
    assert_eq!(rig.helper.take_calls(), ["List"], "{point}");
    assert_eq!(daemon.start_vm().await.unwrap().error, None, "{point}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_dies_anywhere_loses_nothing() {
    at_every_point("start.", "kill").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_anywhere_loses_nothing() {
    at_every_point("start.", "error").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_dies_anywhere_loses_nothing() {
    at_every_point("stop.", "kill").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_fails_anywhere_loses_nothing() {
    at_every_point("stop.", "error").await;
}
