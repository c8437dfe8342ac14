//! The table of slots by itself: whose turn it is, and what is left when the disk refuses.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use banger_helper::slots::{SlotError, Slots};
use banger_model::slot::{SLOTS, SLOTS_PER_OWNER};
use banger_model::{GuestBridge, Slot};

use crate::support::within;

/// Whether a future has to wait now.
fn waits<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    matches!(
        future.poll(&mut Context::from_waker(Waker::noop())),
        Poll::Pending
    )
}

#[tokio::test]
async fn two_calls_on_one_slot_take_turns() {
    let place = tempfile::tempdir().unwrap();
    let slots = Slots::open(place.path().join("slots")).unwrap();
    let first = slots.acquire(7, GuestBridge::Public).await.unwrap();
    let handle = first.handle;
    let mut second = pin!(slots.find(7, handle));
    let mut any = pin!(slots.find_any(first.slot));
    let mut free = pin!(slots.hold_free(first.slot));
    assert!(waits(second.as_mut()) && waits(any.as_mut()) && waits(free.as_mut()));
    first.release().await.unwrap();
    // Who waited finds that it is gone; what is nobody's can be kept so.
    assert!(matches!(within(second).await, Err(SlotError::NoSuchSlot)));
    assert!(matches!(within(any).await, Err(SlotError::NoSuchSlot)));
    let held = within(free).await;
    assert!(held.is_some());
    let mut next = pin!(slots.acquire(8, GuestBridge::Closed));
    assert!(waits(next.as_mut()));
    drop(held);
    let next = within(next).await.unwrap();
    assert_eq!(next.slot, Slot::new(0).unwrap());
    assert_ne!(next.handle, handle);
}

#[tokio::test]
async fn a_disk_that_refuses_leaves_everything_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("slots");
    let slots = Slots::open(directory.clone()).unwrap();
    let held = slots.acquire(7, GuestBridge::Public).await.unwrap();
    let handle = held.handle;
    drop(held);
    let aside = place.path().join("aside");
    std::fs::rename(&directory, &aside).unwrap();
    let refused = slots.acquire(7, GuestBridge::Public).await;
    assert!(matches!(refused, Err(SlotError::Write { .. })));
    let held = slots.find(7, handle).await.unwrap();
    assert!(held.release().await.is_err());
    assert_eq!(slots.list(7).len(), 1, "it stays its owner's");
    std::fs::rename(&aside, &directory).unwrap();
    let next = slots.acquire(7, GuestBridge::Public).await.unwrap();
    assert_eq!(next.slot.number(), 1);
    drop(next);
    // The same after a restart; what a crash has left of a file is no entry.
    std::fs::write(directory.join("9.new"), "{").unwrap();
    let again = Slots::open(directory).unwrap();
    assert_eq!(again.list_all(), slots.list_all());
    assert_eq!(again.damaged(), []);
}

#[tokio::test]
async fn the_last_slot_is_given_out_once() {
    let place = tempfile::tempdir().unwrap();
    let slots = Slots::open(place.path().join("slots")).unwrap();
    let owners = u32::from(SLOTS) / u32::try_from(SLOTS_PER_OWNER).unwrap();
    let all = (0..owners).flat_map(|owner| (0..SLOTS_PER_OWNER).map(move |_| owner));
    let all = all.map(|owner| slots.acquire(owner, GuestBridge::Public));
    for result in futures_util::future::join_all(all).await {
        result.unwrap();
    }
    assert_eq!(slots.list_all().len(), usize::from(SLOTS));
    assert!(matches!(
        slots.acquire(owners, GuestBridge::Public).await,
        Err(SlotError::Full)
    ));
    assert!(matches!(
        slots.acquire(0, GuestBridge::Public).await,
        Err(SlotError::Quota)
    ));
}
