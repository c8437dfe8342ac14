//! Slots over the bus: whose they are, that they come back, and what is repaired.

use banger_bus::helper::{HELPER_SERVICE, WireHandle};
use banger_model::GuestBridge;
use banger_model::slot::SLOTS_PER_OWNER;

use crate::support::{ALICE, BOB, NetCall, Rig, can_run, error_name};

#[tokio::test]
async fn a_slot_is_its_owners_until_he_gives_it_back() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::start().await;
    let (alice, bob) = (rig.proxy(ALICE).await, rig.proxy(BOB).await);
    let first = alice.acquire_slot(0).await.unwrap();
    let second = bob.acquire_slot(1).await.unwrap();
    assert_eq!((first.slot, second.slot), (0, 1));
    assert_eq!(
        rig.net.changes(),
        [
            NetCall::Ensure(0, GuestBridge::Public),
            NetCall::Ensure(1, GuestBridge::Closed)
        ]
    );

    // Each sees his own, and a handle is of use to its owner alone.
    let own = alice.list().await.unwrap();
    assert_eq!(
        (own.len(), own[0].slot, own[0].network, own[0].running),
        (1, 0, 0, false)
    );
    assert_eq!(own[0].handle, first.handle);
    let refused = error_name(bob.release_slot(first.handle).await);
    assert_eq!(refused, "org.banger.Error.NoSuchSlot");

    // A restart changes nothing.
    rig.stop_helper().await;
    rig.start_helper().await;
    assert_eq!(alice.list().await.unwrap(), own);
    assert_eq!(rig.net.changes().len(), 2, "nothing was to be done");

    alice.release_slot(first.handle).await.unwrap();
    assert_eq!(rig.net.slots(), [1]);
    assert_eq!(alice.list().await.unwrap(), []);
    let again = error_name(alice.release_slot(first.handle).await);
    assert_eq!(again, "org.banger.Error.NoSuchSlot");
    // The next owner of the slot has another handle.
    let next = bob.acquire_slot(0).await.unwrap();
    assert_eq!(next.slot, 0);
    assert_ne!(next.handle, first.handle);
}

#[tokio::test]
async fn a_quota_is_one_owners() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let (alice, bob) = (rig.proxy(ALICE).await, rig.proxy(BOB).await);
    let all = futures_util::future::join_all((0..SLOTS_PER_OWNER).map(|_| alice.acquire_slot(0))).await;
    let mut slots: Vec<u16> = all.into_iter().map(|grant| grant.unwrap().slot).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), SLOTS_PER_OWNER, "each once");
    let more = error_name(alice.acquire_slot(0).await);
    assert_eq!(more, "org.banger.Error.LimitExceeded");
    assert!(bob.acquire_slot(0).await.is_ok());
}

#[tokio::test]
async fn a_slot_without_its_tap_is_nobodys() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let alice = rig.proxy(ALICE).await;
    rig.net.set_broken(true);
    let error = alice.acquire_slot(0).await.unwrap_err().to_string();
    assert!(error.contains("banger-network.service"), "{error}");
    assert_eq!(alice.list().await.unwrap(), []);
    assert_eq!(std::fs::read_dir(&rig.slots).unwrap().count(), 0);
    let status = alice.status().await.unwrap();
    assert!(
        status
            .iter()
            .any(|(name, well, _)| name == "bridge public" && !well)
    );
    rig.net.set_broken(false);
    assert_eq!(alice.acquire_slot(0).await.unwrap().slot, 0);
}

#[tokio::test]
async fn what_is_becomes_what_should_be_once() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::start().await;
    let alice = rig.proxy(ALICE).await;
    for _ in 0..2 {
        alice.acquire_slot(0).await.unwrap();
    }
    rig.stop_helper().await;
    // A tap that is gone, one on another bridge, and what nobody has.
    rig.net.set_tap(0, None);
    rig.net.set_tap(1, Some(GuestBridge::Closed));
    rig.net.set_tap(40, Some(GuestBridge::Public));
    rig.systemd.add_scope("banger-vm-1.scope");
    rig.systemd.add_scope("banger-vm-41.scope");
    rig.systemd.add_scope("banger-vm-abc.scope");
    rig.start_helper().await;
    assert_eq!(rig.net.slots(), [0, 1]);
    assert_eq!(rig.systemd.scopes(), ["banger-vm-abc.scope"], "somebody else's");

    let before = rig.effects();
    assert_eq!(alice.repair().await.unwrap(), Vec::<String>::new());
    assert_eq!(rig.effects(), before);

    rig.net.set_tap(0, None);
    let status = alice.status().await.unwrap();
    assert!(
        status.iter().any(|(name, well, _)| name == "slot 0" && !well),
        "{status:?}"
    );
    assert_eq!(alice.repair().await.unwrap(), ["Made the tap of slot 0"]);
}

#[tokio::test]
async fn giving_back_ends_what_runs() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let alice = rig.proxy(ALICE).await;
    let grant = alice.acquire_slot(0).await.unwrap();
    rig.systemd.add_scope("banger-vm-0.scope");
    alice.release_slot(grant.handle).await.unwrap();
    assert_eq!(rig.systemd.changes(), ["KillUnit banger-vm-0.scope all 9"]);
    assert_eq!(rig.net.slots(), Vec::<u16>::new());
}

#[tokio::test]
async fn a_damaged_file_takes_its_slot_out_of_use() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::start().await;
    let alice = rig.proxy(ALICE).await;
    let kept = alice.acquire_slot(0).await.unwrap();
    rig.stop_helper().await;
    let entry = std::fs::read_to_string(rig.slots.join("0.json")).unwrap();
    let secret = entry.split('"').max_by_key(|part| part.len()).unwrap().to_owned();
    std::fs::write(rig.slots.join("1.json"), &entry[..entry.len() / 2]).unwrap();
    // Another slot's content is no entry either.
    std::fs::write(rig.slots.join("2.json"), &entry).unwrap();
    rig.systemd.add_scope("banger-vm-1.scope");
    rig.net.set_tap(1, Some(GuestBridge::Public));
    rig.start_helper().await;

    let status = alice.status().await.unwrap();
    for slot in ["slot 1", "slot 2"] {
        let (_, well, text) = status.iter().find(|(name, ..)| name == slot).unwrap();
        assert!(!well && !text.contains(&secret), "{text}");
    }
    // It may be somebody's: nothing of it is touched, and nobody gets it.
    assert_eq!(rig.systemd.scopes(), ["banger-vm-1.scope"]);
    assert_eq!(rig.net.slots(), [0, 1]);
    assert_eq!(alice.acquire_slot(0).await.unwrap().slot, 3);
    assert!(rig.slots.join("1.json").exists());
    alice.release_slot(kept.handle).await.unwrap();
}

#[tokio::test]
async fn a_second_helper_does_not_serve() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let second = rig.service().await;
    let error = crate::support::within(second.serve(std::future::pending()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(HELPER_SERVICE), "{error}");
    assert_eq!(rig.proxy(ALICE).await.list().await.unwrap(), []);
}

#[tokio::test]
async fn handles_are_random() {
    if !can_run() {
        return;
    }
    let rig = Rig::start().await;
    let alice = rig.proxy(ALICE).await;
    let mut handles: Vec<WireHandle> = Vec::new();
    for _ in 0..20 {
        let grant = alice.acquire_slot(0).await.unwrap();
        handles.push(grant.handle);
        alice.release_slot(grant.handle).await.unwrap();
    }
    // No bit is the same in all of them (it is by a chance of 128 in 2^19).
    let (mut ones, mut zeros) = ([0; 2], [0; 2]);
    for handle in &handles {
        for (part, value) in [handle.high, handle.low].into_iter().enumerate() {
            ones[part] |= value;
            zeros[part] |= !value;
        }
    }
    assert_eq!((ones, zeros), ([u64::MAX; 2], [u64::MAX; 2]));
}
