//! What may change in a VM's life.

use super::*;

#[tokio::test]
async fn a_vm_is_changed_whole_or_not_at_all() {
    let owner = Owner::new();
    let core = owner.open().await;
    let vm = core
        .create(request("a"), false, None, &JobContext::silent())
        .await
        .unwrap();
    let disk = owner.directory(vm.id()).join("root.ext4");
    let wanted = SetOptions {
        memory_mib: Some(256),
        disk_bytes: Some(3 * IMAGE_BYTES),
        labels: Some([("k", "v"), ("x", "y")].map(pair).into()),
        ..SetOptions::default()
    };
    assert_eq!(vm.set(wanted).await.unwrap(), Vec::<String>::new());
    assert_eq!(disk.metadata().unwrap().len(), 3 * IMAGE_BYTES);
    let kept = vm.spec();
    let bad_label = [pair(("1 bad", ""))].into();
    for (change, kind) in [
        (
            SetOptions {
                disk_bytes: Some(IMAGE_BYTES),
                ..SetOptions::default()
            },
            ErrorKind::InvalidArgument,
        ),
        (
            SetOptions {
                vcpus: Some(0),
                ..SetOptions::default()
            },
            ErrorKind::InvalidArgument,
        ),
        (
            SetOptions {
                memory_mib: Some(1 << 20),
                ..SetOptions::default()
            },
            ErrorKind::LimitExceeded,
        ),
        (
            SetOptions {
                labels: Some(bad_label),
                ..SetOptions::default()
            },
            ErrorKind::InvalidArgument,
        ),
        (
            SetOptions {
                vcpus: Some(1),
                disk_bytes: Some(u64::MAX),
                labels: Some([pair(("new", ""))].into()),
                ..SetOptions::default()
            },
            ErrorKind::InvalidArgument,
        ),
    ] {
        assert_eq!(vm.set(change).await.unwrap_err().kind, kind);
        assert_eq!(vm.spec(), kept);
    }
    let fewer = SetOptions {
        remove_labels: Some(vec!["x".to_owned(), "none".to_owned()]),
        ..SetOptions::default()
    };
    vm.set(fewer).await.unwrap();
    assert_eq!(vm.info().labels, [pair(("k", "v"))].into());
    assert_eq!(owner.rows()[0].spec, vm.spec());
    assert_eq!((vm.spec().memory_mib, vm.spec().vcpus), (256, kept.vcpus));
}

#[tokio::test]
async fn what_runs_is_changed_for_its_next_start_and_labelled_at_once() {
    let owner = Owner::new();
    let (_child, vmm) = stand_in();
    let running = VmRecord {
        vmm: Some(vmm),
        ..row("a", 1, VmState::Running)
    };
    owner.leave(&running, None, WHOLE);
    let core = owner.open().await;
    let vm = core.look_up("a").unwrap();
    let disk = owner.directory(vm.id()).join("root.ext4");
    let before = disk.metadata().unwrap().len();
    let wanted = SetOptions {
        memory_mib: Some(256),
        disk_bytes: Some(4 * IMAGE_BYTES),
        labels: Some([pair(("k", "v"))].into()),
        ..SetOptions::default()
    };
    assert_eq!(vm.set(wanted).await.unwrap(), ["memory", "disk"]);
    assert_eq!(disk.metadata().unwrap().len(), before);
    // Whoever works on it, labels do not wait for him.
    let other = JobContext::silent();
    let turn = vm.turn("test", other.cancel(), false).await.unwrap();
    let busy = vm
        .set(SetOptions {
            vcpus: Some(1),
            ..SetOptions::default()
        })
        .await;
    assert_eq!(busy.unwrap_err().kind, ErrorKind::Busy);
    let label = SetOptions {
        labels: Some([pair(("k", "w"))].into()),
        ..SetOptions::default()
    };
    assert_eq!(vm.set(label).await.unwrap(), Vec::<String>::new());
    assert_eq!(vm.info().labels, [pair(("k", "w"))].into());
    drop(turn);
    vm.kill(&JobContext::silent()).await.unwrap();
    // The kernel's file is missing, but the disk is ready before that is told.
    vm.start(&JobContext::silent(), None).await.unwrap_err();
    assert_eq!(disk.metadata().unwrap().len(), 4 * IMAGE_BYTES);
}

#[tokio::test]
async fn a_name_is_one_vms_and_free_when_it_has_another() {
    let owner = Owner::new();
    let core = owner.open().await;
    let ctx = JobContext::silent();
    let a = core.create(request("a"), false, None, &ctx).await.unwrap();
    let b = core.create(request("b"), false, None, &ctx).await.unwrap();
    let taken = b.rename("a".parse().unwrap()).await.unwrap_err();
    assert_eq!(taken.kind, ErrorKind::VmExists, "{taken}");
    assert_eq!((b.name(), b.info().name), ("b".to_owned(), "b".to_owned()));
    a.rename("c".parse().unwrap()).await.unwrap();
    b.rename("a".parse().unwrap()).await.unwrap();
    assert_eq!(core.look_up("a").unwrap().id(), b.id());
    assert_eq!(core.look_up("c").unwrap().id(), a.id());
    // A change that follows keeps it, and so does the next daemon.
    let label = SetOptions {
        labels: Some([pair(("k", "v"))].into()),
        ..SetOptions::default()
    };
    a.set(label).await.unwrap();
    let names: Vec<_> = owner.rows().iter().map(|row| row.spec.name.to_string()).collect();
    assert_eq!(names, ["c", "a"]);
    a.delete(&ctx, false).await.unwrap();
    let gone = a.rename("d".parse().unwrap()).await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NoSuchVm);
}

#[tokio::test]
async fn a_guest_is_told_the_time_when_the_hosts_clock_has_jumped() {
    let owner = Owner::new();
    let (_child, vmm) = stand_in();
    let running = VmRecord {
        vmm: Some(vmm),
        ..row("a", 1, VmState::Running)
    };
    owner.leave(&running, None, WHOLE);
    std::fs::create_dir_all(owner.runtime(running.id)).unwrap();
    let socket = owner.runtime(running.id).join("control.sock");
    let control = tokio::net::UnixListener::bind(socket).unwrap();
    let core = owner.open().await;
    let (guest, _) = control.accept().await.unwrap();
    let mut lines = BufReader::new(guest).lines();
    let asked = lines.next_line().await.unwrap().unwrap();
    assert!(asked.contains("status"), "{asked}");
    let before = crate::core::vm::now_us();
    core.set_clocks();
    let told = lines.next_line().await.unwrap().unwrap();
    let HostMessage::SetTime { unix_us } = serde_json::from_str(&told).unwrap() else {
        panic!("{told}");
    };
    assert!((before..=crate::core::vm::now_us()).contains(&unix_us), "{told}");
    let vm = core.look_up("a").unwrap();
    vm.kill(&JobContext::silent()).await.unwrap();
}
