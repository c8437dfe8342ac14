//! The helper fails, and is killed, at every step of giving a slot and taking it back.

use banger_bus::HelperProxy;
use banger_helper::fail_point::POINTS;

use crate::program::Running;
use crate::support::{ALICE, can_run, proxy};

#[tokio::test]
async fn whatever_happens_a_slot_is_whole_or_not_there() {
    if !can_run() {
        return;
    }
    let points = POINTS
        .iter()
        .filter(|point| point.starts_with("acquire.") || point.starts_with("release."));
    let points: Vec<_> = points.collect();
    assert!(points.len() >= 7);
    for action in ["kill", "error"] {
        for point in &points {
            let armed = format!("{point}={action}");
            one(point, &armed, action == "kill").await;
        }
    }
}

async fn one(point: &str, armed: &str, killed: bool) {
    let mut running = Running::start_failing("").await;
    let alice = proxy(&running.bus.connect(ALICE).await).await;
    let failed = if point.starts_with("acquire.") {
        running.restart(armed).await;
        alice.acquire_slot(0).await.is_err()
    } else {
        let grant = alice.acquire_slot(0).await.unwrap();
        running.restart(armed).await;
        alice.release_slot(grant.handle).await.is_err()
    };
    assert!(failed, "{armed}");
    if !killed && point.starts_with("acquire.") {
        // Undone at once. A release that has failed goes on where it was when it is tried again.
        whole(&running, &alice, armed).await;
    }
    running.restart("").await;
    whole(&running, &alice, armed).await;
    assert_eq!(alice.repair().await.unwrap(), Vec::<String>::new(), "{armed}");

    for slot in alice.list().await.unwrap() {
        alice.release_slot(slot.handle).await.unwrap();
    }
    whole(&running, &alice, armed).await;
    let grant = alice.acquire_slot(0).await.unwrap();
    assert_eq!(grant.slot, 0, "{armed}");
}

/// What the owner sees, what is on disk, and the taps of the kernel are the same slots.
async fn whole(running: &Running, alice: &HelperProxy<'_>, armed: &str) {
    let slots: Vec<u16> = alice.list().await.unwrap().iter().map(|slot| slot.slot).collect();
    let files: Vec<String> = std::fs::read_dir(running.state.join("slots"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: Vec<String> = slots.iter().map(|slot| format!("{slot}.json")).collect();
    assert_eq!(files, expected, "{armed}");
    let interfaces = running.interfaces();
    let taps = interfaces.iter().filter(|line| line.contains(": bt")).count();
    assert_eq!(taps, slots.len(), "{armed}: {interfaces:?}");
}
