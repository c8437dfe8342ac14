//! Whole runs, and what decides who launches.

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;

use banger_bus::helper::{FileRole, HelperError};
use banger_bus::{ErrorKind, LogOptions};
use banger_model::{GuestBridge, Slot};

use crate::fake::CONSOLE;
use crate::rig::{LIMIT, Rig, can_run};

fn mode(rig: &Rig) -> u32 {
    rig.kernel().metadata().unwrap().mode() & 0o777
}

#[tokio::test]
async fn a_run_takes_a_slot_and_gives_it_back() {
    if !can_run() {
        return;
    }
    let rig = Rig::new().await;
    let mut daemon = rig.start("").await;
    assert_eq!(daemon.manager().await.mode().await.unwrap(), "system");
    daemon.create("public").await;
    rig.helper.asked("List").await;
    assert_eq!(rig.helper.take_calls(), ["List"]);

    let outcome = daemon.start_vm().await.unwrap();
    assert_eq!(outcome.error, None, "{}", rig.log());
    assert_eq!(rig.helper.take_calls(), ["AcquireSlot", "Launch"]);
    let slot = Slot::new(0).unwrap();
    let vm = daemon.vm().await;
    assert_eq!(
        vm.address().await.unwrap().parse(),
        Ok(slot.address(GuestBridge::Public))
    );
    assert_eq!(vm.ssh_port().await.unwrap(), 1022);
    assert_eq!(vm.unit().await.unwrap(), slot.unit());
    assert_eq!(vm.state().await.unwrap(), "running");
    let vmm = rig.helper.vmm().unwrap();
    assert_eq!(vm.pid().await.unwrap(), vmm.process.pid());
    assert_eq!(
        vmm.roles,
        [
            FileRole::Initrd,
            FileRole::RootDisk,
            FileRole::Console,
            FileRole::Log
        ],
        "besides those that are acted on"
    );
    assert_eq!(
        (vmm.options.memory_mib, vmm.options.name.as_deref()),
        (Some(128), Some("a"))
    );
    // The VMM opens the kernel anew.
    assert_eq!(mode(&rig), 0o640, "the mask of its list");

    let outcome = daemon.stop_vm().await.unwrap();
    assert_eq!(outcome.error, None);
    assert_eq!(
        (daemon.state().await.as_str(), rig.helper.slots()),
        ("stopped", 0)
    );
    assert_eq!(vm.address().await.unwrap(), "");
    assert_eq!(mode(&rig), 0o600);
}

#[tokio::test]
async fn a_closed_vm_is_on_the_closed_bridge() {
    if !can_run() {
        return;
    }
    let rig = Rig::new().await;
    let mut daemon = rig.start("").await;
    daemon.create("none").await;
    daemon.start_vm().await.unwrap();
    let address: Ipv4Addr = daemon.vm().await.address().await.unwrap().parse().unwrap();
    assert_eq!(address, Slot::new(0).unwrap().address(GuestBridge::Closed));
}

#[tokio::test]
async fn who_may_choose_does_without_the_helper() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new().await;
    rig.forbid();
    let mut daemon = rig.start("").await;
    assert_eq!(daemon.manager().await.mode().await.unwrap(), "user");
    daemon.create("public").await;
    // The stand-in for QEMU runs no guest.
    assert!(daemon.start_vm().await.unwrap().error.is_some());
    assert_eq!(daemon.vm().await.engine().await.unwrap(), "qemu");
    assert_eq!(
        rig.helper.take_calls(),
        ["AcquireSlot"],
        "nobody was asked for a password"
    );
    let told = rig.log().matches("(user mode)").count();
    assert_eq!(told, 1, "{}", rig.log());

    rig.configure("mode = \"system\"");
    rig.helper
        .refuse("AcquireSlot asking", HelperError::AccessDenied("No".into()));
    let error = daemon.start_vm().await.unwrap().error.unwrap();
    assert_eq!(error.kind, ErrorKind::NotAuthorized, "{error}");
    assert!(error.message.contains("group banger"), "{error}");
    assert_eq!(rig.helper.take_calls(), ["AcquireSlot asking"]);
    rig.remove_helper().await;
    let error = daemon.start_vm().await.unwrap().error.unwrap();
    assert_eq!(error.kind, ErrorKind::HelperUnavailable, "{error}");
    assert!(error.message.contains("banger system install"), "{error}");
    rig.configure("mode = \"user\"");
    assert!(daemon.start_vm().await.unwrap().error.is_some());
    assert_eq!(daemon.manager().await.mode().await.unwrap(), "user");
}

#[tokio::test]
async fn what_the_helper_refuses_is_no_reason_for_user_mode() {
    if !can_run() {
        return;
    }
    let rig = Rig::new().await;
    let limit = HelperError::new(ErrorKind::LimitExceeded, "64 slots are enough");
    rig.helper.refuse("AcquireSlot", limit);
    let mut daemon = rig.start("").await;
    daemon.create("public").await;
    let error = daemon.start_vm().await.unwrap().error.unwrap();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::LimitExceeded, "64 slots are enough")
    );
    let broken = HelperError::new(ErrorKind::EngineFailed, "qemu: no such machine");
    rig.helper.refuse("Launch", broken);
    let error = daemon.start_vm().await.unwrap().error.unwrap();
    assert!(error.message.contains("no such machine"), "{error}");
    assert_eq!(
        (rig.helper.slots(), daemon.state().await.as_str()),
        (0, "stopped")
    );
    assert_eq!(mode(&rig), 0o600);
    rig.helper.allow();
    assert_eq!(daemon.start_vm().await.unwrap().error, None);
}

#[tokio::test]
async fn a_killed_vm_is_killed_by_the_helper() {
    if !can_run() {
        return;
    }
    let rig = Rig::new().await;
    let mut daemon = rig.start("").await;
    daemon.create("public").await;
    daemon.start_vm().await.unwrap();
    let killed = daemon.vm().await.kill().await;
    assert_eq!(daemon.end(killed).await.unwrap().error, None);
    let calls = rig.helper.take_calls();
    assert!(calls.contains(&"Kill".to_owned()), "{calls:?}");
    assert_eq!(
        (daemon.state().await.as_str(), rig.helper.slots()),
        ("stopped", 0)
    );
}

#[tokio::test]
async fn a_helper_that_refuses_leaves_a_note_and_no_vmm() {
    if !can_run() {
        return;
    }
    let rig = Rig::new().await;
    let mut daemon = rig.start("").await;
    daemon.create("public").await;
    daemon.start_vm().await.unwrap();
    // Its owner has logged out, say. The monitor is his own.
    rig.helper.refuse("Kill", HelperError::AccessDenied("No".into()));
    let killed = daemon.vm().await.kill().await;
    assert_eq!(daemon.end(killed).await.unwrap().error, None);
    assert_eq!(daemon.state().await, "stopped");

    daemon.start_vm().await.unwrap();
    rig.helper
        .refuse("ReleaseSlot", HelperError::AccessDenied("No".into()));
    assert_eq!(daemon.stop_vm().await.unwrap().error, None);
    assert_eq!(
        (daemon.state().await.as_str(), rig.helper.slots()),
        ("stopped", 1)
    );
    let error = daemon.start_vm().await.unwrap().error.unwrap();
    assert_eq!(error.kind, ErrorKind::NotAuthorized, "{error}");
    rig.helper.allow();
    assert_eq!(daemon.start_vm().await.unwrap().error, None);
    assert_eq!(rig.helper.slots(), 1);
    daemon.stop_vm().await.unwrap();
    assert_eq!(rig.helper.slots(), 0);
}

#[tokio::test]
async fn a_stop_by_systemd_asks_the_guest() {
    if !can_run() {
        return;
    }
    let rig = Rig::new().await;
    let mut daemon = rig.start("").await;
    daemon.create("public").await;
    daemon.start_vm().await.unwrap();
    rig.stop_scope().await;
    daemon.becomes("stopped").await;
    assert_eq!(daemon.vm().await.stop_reason().await.unwrap(), "requested");
    rig.helper.empty().await;
}

#[tokio::test]
async fn a_vmm_that_ends_by_itself_leaves_no_slot() {
    if !can_run() {
        return;
    }
    let rig = Rig::new().await;
    rig.helper.silence_guests();
    let mut daemon = rig.start("").await;
    daemon.create("public").await;
    let vm = daemon.vm().await;
    let started = vm.start(banger_bus::StartOptions::default()).await;
    rig.helper.asked("Launch").await;
    let vmm = tokio::time::timeout(LIMIT, async {
        daemon.becomes("starting").await;
        rig.helper.vmm()
    });
    vmm.await.unwrap().unwrap().end();
    let error = daemon.end(started).await.unwrap().error.unwrap();
    assert_eq!(error.kind, ErrorKind::EngineFailed, "{error}");
    assert_eq!(rig.helper.slots(), 0);
    // What its console said is kept for the time after the slot.
    let log = vm.open_log(LogOptions::default()).await.unwrap();
    let text = std::io::read_to_string(std::fs::File::from(std::os::fd::OwnedFd::from(log))).unwrap();
    assert!(text.is_empty() || text == CONSOLE, "{text:?}");
}

#[tokio::test]
async fn vms_run_on_without_daemon_and_helper() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new().await;
    let mut daemon = rig.start("").await;
    daemon.create("public").await;
    daemon.start_vm().await.unwrap();
    daemon.kill();
    rig.remove_helper().await;

    let mut daemon = rig.start("").await;
    daemon.becomes("running").await;
    rig.install_helper().await;
    rig.helper.take_calls();
    assert_eq!(daemon.stop_vm().await.unwrap().error, None);
    assert_eq!(rig.helper.take_calls(), ["ReleaseSlot"]);
    assert_eq!(rig.helper.slots(), 0);

    // Its VMM ends while both are away.
    daemon.start_vm().await.unwrap();
    daemon.kill();
    rig.remove_helper().await;
    rig.helper.vmm().unwrap().end();
    let mut daemon = rig.start("").await;
    let vm = daemon.vm().await;
    assert_eq!(vm.state().await.unwrap(), "stopped");
    let detail = vm.state_detail().await.unwrap();
    assert!(detail.contains("helper is gone"), "{detail}");
    // It can be started without the helper, and deleted.
    assert!(daemon.start_vm().await.unwrap().error.is_some());
    assert_eq!(vm.engine().await.unwrap(), "qemu");
    let deleted = vm.delete(banger_bus::DeleteOptions::default()).await;
    assert_eq!(daemon.end(deleted).await.unwrap().error, None);
    // A helper that comes back has a slot of no VM, until a daemon looks.
    rig.install_helper().await;
    daemon.kill();
    let _daemon = rig.start("").await;
    rig.helper.empty().await;
}

#[tokio::test]
async fn a_slot_of_no_vm_is_given_back_once() {
    if !can_run() {
        return;
    }
    let rig = Rig::new().await;
    rig.helper.leave_slot();
    let daemon = rig.start("").await;
    rig.helper.empty().await;
    assert_eq!(rig.helper.take_calls(), ["List", "ReleaseSlot"]);
    daemon.kill();
    let _daemon = rig.start("").await;
    rig.helper.asked("List").await;
    assert_eq!(rig.helper.take_calls(), ["List"]);
}
