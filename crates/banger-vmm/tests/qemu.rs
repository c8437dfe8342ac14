//! Real machines in a real QEMU, launched as bangerd launches them.

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use banger_sys::launch::{LAUNCH_FAILED, run_launcher};
use banger_sys::pidfd::Exit;
use banger_vmm::{ConsoleSink, Network, Qmp, QmpError, VmmEvent};
use serde_json::json;
use support::{GREETING, launch, machine, qemu};

/// Not a test by itself: the launcher's `main` when the standard input is its socket.
#[test]
fn launcher_entry() {
    if rustix::net::sockopt::socket_type(std::io::stdin())
        .is_ok_and(|kind| kind == rustix::net::SocketType::SEQPACKET)
    {
        let _ = run_launcher();
        std::process::exit(LAUNCH_FAILED.into());
    }
}

fn status_of(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_process_is_confined() {
    let Some(qemu) = qemu().await else { return };
    // Owned by us, and not close-on-exec: must not reach QEMU.
    let leaky = tempfile::NamedTempFile::new().unwrap();
    rustix::io::fcntl_setfd(leaky.as_file(), rustix::io::FdFlags::empty()).unwrap();
    let (spec, mut host) = machine("halt");
    let launched = launch(&qemu, spec);
    let pid = launched.pid;
    launched.barrier.release().await.unwrap();
    let (qmp, _events) = Qmp::connect(&host.monitor()).await.unwrap();
    assert_eq!(host.line(), format!("{GREETING}halt\n"));

    let status = status_of(pid);
    let zero = "0000000000000000";
    for expected in [
        "NoNewPrivs: 1 Seccomp: 2".to_owned(),
        format!("CapPrm: {zero} CapEff: {zero}"),
    ] {
        assert!(status.contains(&expected), "{expected} in {status}");
    }
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
    assert_eq!(rustix::process::getsid(raw).unwrap(), raw.unwrap());

    let files: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap())
        .map(|link| link.to_string_lossy().into_owned())
        .filter(|link| link.starts_with('/'))
        .collect();
    let ours = |name: &str| host.dir.path().join(name).to_string_lossy().into_owned();
    let expected = [
        "/dev/null".to_owned(),
        "/memfd:initramfs (deleted)".to_owned(),
        ours("kernel"),
        ours("disk"),
    ];
    assert_eq!(files, expected.into());

    let secret = host.dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let add = json!({"driver": "file", "node-name": "x", "filename": secret, "read-only": true});
    let refusal = qmp.command("blockdev-add", add).await.unwrap_err();
    assert!(refusal.to_string().contains("Permission denied"), "{refusal}");
    let out = json!({"id": "x", "backend": {"type": "file", "data": {"out": host.dir.path().join("new")}}});
    let refusal = qmp.command("chardev-add", out).await.unwrap_err();
    assert!(refusal.to_string().contains("Permission denied"), "{refusal}");

    qmp.quit().await.unwrap();
    assert_eq!(launched.pidfd.exited().await.unwrap(), Exit::Code(0));
    assert_eq!(host.errors(), "");
}

#[tokio::test]
async fn a_machine_is_stopped_continued_and_found_again() {
    let Some(qemu) = qemu().await else { return };
    let (spec, mut host) = machine("halt");
    let launched = launch(&qemu, spec);
    launched.barrier.release().await.unwrap();
    let (qmp, mut events) = Qmp::connect(&host.monitor()).await.unwrap();
    assert_eq!(host.line(), format!("{GREETING}halt\n"));
    assert_eq!(qmp.query_status().await.unwrap(), "running");
    qmp.stop().await.unwrap();
    assert_eq!(qmp.query_status().await.unwrap(), "paused");
    qmp.cont().await.unwrap();
    assert_eq!(events.recv().await.unwrap(), VmmEvent::Stop);
    assert_eq!(events.recv().await.unwrap(), VmmEvent::Resume);
    let port = qmp.forwarded_port(1022).await.unwrap();
    assert!(port > 0);
    // The port is open, and on the loopback only.
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert!(matches!(
        qmp.forwarded_port(22).await,
        Err(QmpError::NotForwarded(22))
    ));
    UnixStream::connect(host.control()).unwrap();

    // A daemon that starts again connects anew.
    drop(qmp);
    let (qmp, mut events) = Qmp::connect(&host.monitor()).await.unwrap();
    qmp.system_powerdown().await.unwrap();
    assert_eq!(events.recv().await.unwrap(), VmmEvent::Powerdown);
    qmp.command("system_reset", json!({})).await.unwrap();
    assert_eq!(events.recv().await.unwrap(), VmmEvent::Reset { guest: false });
    assert_eq!(host.line(), format!("{GREETING}halt\n"));
    qmp.quit().await.unwrap();
    let reason = "host-qmp-quit".to_owned();
    let shutdown = VmmEvent::Shutdown { guest: false, reason };
    // SeaBIOS resets again when it finds that it has run before.
    let mut last = events.recv().await.unwrap();
    while last == (VmmEvent::Reset { guest: true }) {
        last = events.recv().await.unwrap();
    }
    assert_eq!(last, shutdown);
    assert_eq!(events.recv().await, None);
    assert_eq!(launched.pidfd.exited().await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn a_guest_that_powers_off_ends_the_process() {
    let Some(qemu) = qemu().await else { return };
    let (mut spec, mut host) = machine("power off");
    let path = host.dir.path().join("console");
    let console = File::options().append(true).create(true).open(&path).unwrap();
    spec.console = ConsoleSink::File(console.into());
    let launched = launch(&qemu, spec);
    launched.barrier.release().await.unwrap();
    assert_eq!(launched.pidfd.exited().await.unwrap(), Exit::Code(0));
    let said = std::fs::read_to_string(path).unwrap();
    assert_eq!(said, format!("{GREETING}power off\n"));
    assert_eq!(host.errors(), "");
}

#[tokio::test]
async fn a_guest_that_resets_starts_again_in_the_same_process() {
    let Some(qemu) = qemu().await else { return };
    let (mut spec, mut host) = machine("reset");
    if let Network::User(user) = &mut spec.network {
        user.restrict = false;
    }
    let launched = launch(&qemu, spec);
    launched.barrier.release().await.unwrap();
    for _ in 0..3 {
        assert_eq!(host.line(), format!("{GREETING}reset\n"));
    }
    assert!(launched.pidfd.is_alive());
    launched.pidfd.send_signal(rustix::process::Signal::KILL).unwrap();
    assert_eq!(launched.pidfd.exited().await.unwrap(), Exit::Signal(9));
}

#[tokio::test]
async fn qemus_own_words_are_heard() {
    let Some(qemu) = qemu().await else { return };
    let (mut spec, mut host) = machine("");
    spec.kernel = tempfile::tempfile().unwrap();
    let launched = launch(&qemu, spec);
    launched.barrier.release().await.unwrap();
    assert_eq!(launched.pidfd.exited().await.unwrap(), Exit::Code(1));
    let errors = host.errors();
    assert!(errors.contains("kernel"), "{errors}");
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_stops_the_start() {
    let Some(qemu) = qemu().await else { return };
    let (mut spec, mut host) = machine("halt");
    let read_only = File::open(host.dir.path().join("disk")).unwrap();
    spec.root_disk = OwnedFd::from(read_only);
    let launched = launch(&qemu, spec);
    launched.barrier.release().await.unwrap();
    assert_eq!(launched.pidfd.exited().await.unwrap(), Exit::Code(1));
    let errors = host.errors();
    assert!(!errors.is_empty());
}
