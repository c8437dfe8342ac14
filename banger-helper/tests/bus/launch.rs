//! Launching VMMs: what they are, what goes wrong, and that nothing stays. The program is the
//! real one, with its capabilities and Landlock; the VMM is a script, PID 1 a stand-in that
//! knows scopes.

mod rig;

use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use banger_bus::HelperProxy;
use banger_bus::helper::{LaunchOptions, LogReadOptions};
use banger_helper::fail_point::POINTS;
use banger_model::Slot;

use crate::support::{ALICE, BOB, Starting, proxy, within};

use rig::{Rig, kind, lines_until, options, wire};

#[tokio::test]
async fn a_vmm_is_its_slots_user_in_its_scope() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let slot = Slot::new(grant.slot).unwrap();
    let mut started = rig.launch(&alice, &grant, "web").await.unwrap();
    let arguments = started.arguments().await;
    for expected in ["guest=web", "tap,id=net,fd=15", "512M", "tcg,thread=multi"] {
        assert!(
            arguments.iter().any(|word| word == expected),
            "{expected}: {arguments:?}"
        );
    }

    let uid = slot.uid();
    let none = "0000000000000000";
    for (field, expected) in [
        ("Uid", format!("{uid} {uid} {uid} {uid}")),
        ("Gid", format!("{uid} {uid} {uid} {uid}")),
        ("Groups", String::new()),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
        ("Umask", "0007".to_owned()),
    ] {
        assert_eq!(started.status(field), expected, "{field}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(started.status(set), none, "{set}");
    }
    // The shell has its script open until it becomes what it executes last.
    let script = rig.programs.path().join("engine");
    let mut open: Vec<u32> = std::fs::read_dir(started.proc("fd"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file != script))
        .map(|fd| fd.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    open.sort_unstable();
    assert_eq!(open, [0, 1, 2, 10, 11, 12, 13, 14, 15]);
    let environment = std::fs::read_to_string(started.proc("environ")).unwrap();
    // The shell's own besides.
    let mut environment: Vec<&str> = environment.split_terminator('\0').collect();
    environment.retain(|variable| !variable.starts_with("PWD="));
    environment.sort_unstable();
    assert_eq!(environment, ["LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin"]);

    let systemd = &rig.running.systemd;
    assert_eq!(systemd.scopes(), ["banger-vm-0.scope"]);
    assert_eq!(systemd.process("banger-vm-0.scope").pid(), started.process.pid());
    let name = alice.inner().connection().unique_name().unwrap().to_string();
    for (property, expected) in [
        ("Description", "banger VM web".to_owned()),
        ("Slice", format!("banger-{ALICE}.slice")),
        ("CollectMode", "inactive-or-failed".to_owned()),
        ("MemoryMax", banger_vmm::memory_max(512, true).to_string()),
        ("TasksMax", "512".to_owned()),
        ("CPUWeight", "100".to_owned()),
        ("Controller", name),
        ("DevicePolicy", "closed".to_owned()),
    ] {
        assert_eq!(systemd.asked(property), expected, "{property}");
    }
    // Emulated, and with its tap open: no device.
    assert_eq!(systemd.asked("DeviceAllow"), "@a(ss) []");

    // One slot, one VMM.
    assert!(alice.list().await.unwrap()[0].running);
    let second = rig.launch(&alice, &grant, "web").await.err().unwrap();
    assert_eq!(kind(&second), "WrongState", "{second}");
    assert!(started.process.is_alive());
    // Nobody else has anything to do with it.
    let bob = proxy(&rig.running.bus.connect(BOB).await).await;
    for result in [bob.stop(grant.handle).await, bob.kill(grant.handle).await] {
        assert_eq!(kind(&result.unwrap_err()), "NoSuchSlot");
    }

    alice.stop(grant.handle).await.unwrap();
    within(started.process.exited()).await.unwrap();
    rig.nothing_is_left("stopped").await;
    assert!(!alice.list().await.unwrap()[0].running);
    // And again in the same slot.
    let mut again = rig.launch(&alice, &grant, "web").await.unwrap();
    again.arguments().await;
    alice.kill(grant.handle).await.unwrap();
    rig.nothing_is_left("killed").await;
}

#[tokio::test]
async fn a_vmm_that_takes_no_notice_is_killed() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let mut stubborn = rig.launch(&alice, &grant, "stubborn").await.unwrap();
    stubborn.arguments().await;
    alice.stop(grant.handle).await.unwrap();
    assert!(stubborn.process.is_alive());
    alice.kill(grant.handle).await.unwrap();
    assert!(!stubborn.process.is_alive());
    let changes = rig.running.systemd.changes();
    assert_eq!(
        changes,
        [
            "StartTransientUnit banger-vm-0.scope fail",
            "KillUnit banger-vm-0.scope all 15",
            "KillUnit banger-vm-0.scope all 9"
        ]
    );
    // By an administrator, and by giving the slot back.
    let root = proxy(&rig.running.bus.connect(0).await).await;
    for by_release in [false, true] {
        let mut stubborn = rig.launch(&alice, &grant, "stubborn").await.unwrap();
        stubborn.arguments().await;
        if by_release {
            alice.release_slot(grant.handle).await.unwrap();
        } else {
            root.evict(grant.slot).await.unwrap();
        }
        assert!(!stubborn.process.is_alive());
        rig.nothing_is_left("evicted or released").await;
    }
    assert_eq!(kind(&root.evict(600).await.unwrap_err()), "InvalidArgument");
    assert_eq!(kind(&root.evict(7).await.unwrap_err()), "NoSuchSlot");
}

#[tokio::test]
async fn twenty_at_once_are_twenty_users() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let mut grants = Vec::new();
    for _ in 0..20 {
        grants.push(alice.acquire_slot(0).await.unwrap());
    }
    let launches = grants.iter().map(|grant| rig.launch(&alice, grant, "web"));
    let started = futures_util::future::join_all(launches).await;
    let mut uids = Vec::new();
    for (grant, started) in grants.iter().zip(started) {
        let mut started = started.unwrap();
        started.arguments().await;
        let uid = Slot::new(grant.slot).unwrap().uid();
        assert!(started.status("Uid").starts_with(&uid.to_string()));
        uids.push(uid);
    }
    uids.dedup();
    assert_eq!((uids.len(), rig.running.systemd.scopes().len()), (20, 20));
    for result in futures_util::future::join_all(grants.iter().map(|grant| alice.kill(grant.handle))).await {
        result.unwrap();
    }
    rig.nothing_is_left("twenty").await;
}

#[tokio::test]
async fn an_older_systemd_gets_the_process_by_its_number() {
    let Some(rig) = Rig::start().await else { return };
    rig.running.systemd.set_starting(Starting::Old);
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let mut started = rig.launch(&alice, &grant, "web").await.unwrap();
    started.arguments().await;
    let process = rig.running.systemd.process("banger-vm-0.scope");
    assert_eq!(process.pid(), started.process.pid());
    alice.kill(grant.handle).await.unwrap();
}

#[tokio::test]
async fn without_its_scope_nothing_runs() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    for (starting, expected) in [
        (Starting::Exists, "WrongState"),
        (Starting::Fails, "EngineFailed"),
    ] {
        rig.running.systemd.set_starting(starting);
        let error = rig.launch(&alice, &grant, "web").await.err().unwrap();
        assert_eq!(kind(&error), expected, "{error}");
        assert!(error.to_string().contains("banger-vm-0.scope"), "{error}");
        rig.nothing_is_left(expected).await;
    }
    rig.running.systemd.set_starting(Starting::Works);
    // A scope of ours in which nothing of ours runs makes room.
    rig.running.systemd.add_scope("banger-vm-0.scope");
    rig.launch(&alice, &grant, "web").await.unwrap().arguments().await;
    alice.kill(grant.handle).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_cannot_be_used_is_told() {
    let Some(mut rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    // It starts, and ends at once: its own words are in the log.
    let (files, _console, log) = rig.parts();
    let launching = alice.launch(grant.handle, options("ends"), wire(&files));
    within(launching).await.unwrap();
    drop(files);
    let (words, _) = lines_until(BufReader::new(log), "").await;
    assert_eq!(words, ["no such machine"]);
    rig.nothing_is_left("ended").await;

    let script = |name: &str, text: &str| {
        let path = rig.programs.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    };
    let old = script("old", "#!/bin/sh\necho 'QEMU emulator version 6.2.0'\n");
    let silent = script("silent", "#!/bin/sh\n");
    let unusable = script("unusable", "#!/no/such/interpreter\n");
    let missing = rig.programs.path().join("missing");
    for (engine, expected) in [
        (old, "is QEMU 6.2.0, and at least 7.0.0 is needed"),
        (silent, "did not say which version"),
        (unusable, "Cannot execute"),
        (missing, "No such file"),
    ] {
        rig.restart_with(&engine, "").await;
        let error = rig.launch(&alice, &grant, "web").await.err().unwrap();
        assert_eq!(kind(&error), "EngineUnavailable", "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        rig.nothing_is_left(expected).await;
    }
    let firecracker = LaunchOptions {
        engine: Some(1),
        ..options("web")
    };
    let (files, ..) = rig.parts();
    let refusal = alice
        .launch(grant.handle, firecracker, wire(&files))
        .await
        .unwrap_err();
    assert_eq!(kind(&refusal), "InvalidArgument", "{refusal}");
}

#[tokio::test]
async fn a_caller_who_leaves_takes_his_launch_with_him() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    // After this nobody asks the engine for its version any more, as another process of the slot.
    rig.launch(&alice, &grant, "web").await.unwrap().arguments().await;
    alice.kill(grant.handle).await.unwrap();
    rig.nothing_is_left("killed").await;
    rig.running.systemd.set_starting(Starting::Hangs);
    let (files, console, _log) = rig.parts();
    let connection = alice.inner().connection().clone();
    let launching = tokio::spawn(async move {
        let files = wire(&files);
        alice.launch(grant.handle, options("web"), files).await.map(drop)
    });
    rig.running.systemd.wait_for(|scopes| scopes.len() == 1).await;
    assert_eq!(rig.vmms().len(), 1);
    connection.close().await.unwrap();
    rig.nothing_is_left("his caller has left").await;
    assert!(within(launching).await.unwrap().is_err());
    let (said, _) = lines_until(BufReader::new(console), "").await;
    assert_eq!(said, Vec::<String>::new(), "it never ran");
    // The slot is his, and of use.
    rig.running.systemd.set_starting(Starting::Works);
    let alice = rig.alice().await;
    rig.launch(&alice, &grant, "web").await.unwrap().arguments().await;
    alice.kill(grant.handle).await.unwrap();
}

#[tokio::test]
async fn whatever_happens_a_vmm_runs_noted_or_not_at_all() {
    let Some(mut rig) = Rig::start().await else { return };
    let grant = rig.alice().await.acquire_slot(0).await.unwrap();
    let points: Vec<_> = POINTS
        .iter()
        .filter(|point| point.starts_with("launch."))
        .collect();
    assert!(points.len() >= 6);
    for action in ["kill", "error"] {
        for point in &points {
            let armed = format!("{point}={action}");
            rig.restart(&armed).await;
            let alice = rig.alice().await;
            // A VMM that runs can go on writing.
            let (files, _console, _log) = rig.parts();
            let launching = alice.launch(grant.handle, options("web"), wire(&files));
            assert!(within(launching).await.is_err(), "{armed}");
            // Only a VMM that was released outlives its helper.
            let runs = action == "kill" && **point == "launch.released";
            if !runs {
                rig.nothing_is_left(&armed).await;
            }
            rig.restart("").await;
            let slots = alice.list().await.unwrap();
            assert_eq!(slots[0].running, runs, "{armed}");
            assert_eq!(rig.vmms().len(), usize::from(runs), "{armed}");
            assert_eq!(alice.repair().await.unwrap(), Vec::<String>::new(), "{armed}");
            alice.kill(grant.handle).await.unwrap();
            rig.nothing_is_left(&armed).await;
        }
    }
}

#[tokio::test]
async fn a_log_is_written_until_nobody_wants_it() {
    let Some(rig) = Rig::start().await else { return };
    let alice = rig.alice().await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let open = async |alice: &HelperProxy<'static>, follow| {
        let (reader, writer) = std::io::pipe().unwrap();
        let options = LogReadOptions {
            lines: Some(5),
            follow: Some(follow),
        };
        let writer = OwnedFd::from(writer).into();
        let opened = alice.open_log(grant.handle, options, writer).await;
        opened.map(|()| BufReader::new(reader))
    };
    let nothing = open(&alice, false).await.err().unwrap();
    assert_eq!(kind(&nothing), "WrongState", "{nothing}");
    rig.launch(&alice, &grant, "web").await.unwrap().arguments().await;
    alice.kill(grant.handle).await.unwrap();

    // Also after its end.
    let (text, _) = lines_until(open(&alice, false).await.unwrap(), "").await;
    let expected = [
        "--quiet",
        "--no-pager",
        "--output=cat",
        "--lines=5",
        "_SYSTEMD_UNIT=banger-vm-0.scope",
        "_UID=1879015424",
        "_SYSTEMD_INVOCATION_ID=abababababababababababababababab",
    ];
    assert_eq!(text, expected);

    // Followed, it ends with its reader, or when the caller leaves the bus.
    for leaves in [false, true] {
        let caller = rig.alice().await;
        let (text, log) = lines_until(open(&caller, true).await.unwrap(), expected[6]).await;
        assert!(text.contains(&"--follow".to_owned()), "{text:?}");
        let readers = rig.log_readers();
        assert_eq!(readers.len(), 1);
        if leaves {
            caller.inner().connection().clone().close().await.unwrap();
        } else {
            drop(log);
        }
        for reader in readers {
            within(reader.exited()).await.unwrap();
        }
    }
    // No more of one user at once than there may be.
    let mut logs = Vec::new();
    let refusal = loop {
        match open(&alice, true).await {
            Ok(log) => logs.push(log),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((kind(&refusal), logs.len()), ("LimitExceeded", 16));
}
