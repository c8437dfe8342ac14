//! A launched program that is another user: what it is, and what it cannot become again. Needs
//! root.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use banger_sys::landlock::{Confinement, FileAccess, FileRule, restrict_self};
use banger_sys::launch::{
    Identity, LAUNCH_FAILED, LaunchError, LaunchSpec, Launcher, Limits, SystemCalls, run_launcher, spawn,
};
use banger_sys::pidfd::Exit;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

const UID: u32 = 0x6fff_8000 + 300;
const GID: u32 = UID + 1;
const GROUP: u32 = 65_432;
/// What makes this test program another one.
const ROLE: &str = "BANGER_TEST_ROLE";
const SECRET: &str = "BANGER_TEST_SECRET";

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

fn is_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|rung| rung == "root"), "not root");
    println!("skipped: not root");
    false
}

fn spec(script: &str) -> LaunchSpec {
    LaunchSpec {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        limits: Limits {
            file_bytes: 4096,
            open_files: 64,
            oom_score_adj: 200,
        },
        confinement: Confinement {
            files: vec![
                FileRule::path("/usr", FileAccess::ReadExecute),
                FileRule::path("/bin", FileAccess::ReadExecute),
                FileRule::path("/lib", FileAccess::ReadExecute),
                FileRule::path("/lib64", FileAccess::ReadExecute),
                FileRule::path("/etc/ld.so.cache", FileAccess::Read),
                FileRule::path("/proc", FileAccess::Read),
                FileRule::path("/dev/null", FileAccess::Write),
            ],
            tcp_bind: Some(vec![]),
            tcp_connect: Some(vec![]),
            scoped: true,
        },
        system_calls: Some(SystemCalls { unix_sockets: false }),
        identity: Some(Identity {
            uid: UID,
            gid: GID,
            groups: vec![GROUP],
        }),
    }
}

fn launcher() -> Launcher {
    Launcher {
        program: "/proc/self/exe".into(),
        arguments: ["launcher_entry", "--exact", "--nocapture"]
            .map(Into::into)
            .to_vec(),
    }
}

async fn run(spec: &LaunchSpec) -> Result<(String, Exit), LaunchError> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let mut output = File::from(read);
    let fds: Vec<(OwnedFd, RawFd)> = vec![(write.try_clone().unwrap(), 1), (write, 2)];
    let launched = spawn(&launcher(), spec, fds)?;
    let released = launched.barrier.release().await;
    let said = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let exit = launched.pidfd.exited().await.unwrap();
    released?;
    Ok((said.await.unwrap().unwrap(), exit))
}

/// `/proc/self/status` of the program, by its field names.
fn fields(text: &str) -> HashMap<&str, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            (name, words.join(" "))
        })
        .collect()
}

const REPORT: &str = "
    cat /proc/self/status
    echo oom_score_adj: $(cat /proc/self/oom_score_adj)
    echo umask: $(umask)
    echo end
    ls /proc/$$/fd";

fn check(text: &str, bounding: &str) {
    let status = fields(text);
    let zero = "0000000000000000";
    for (field, expected) in [
        ("Uid", format!("{UID} {UID} {UID} {UID}")),
        ("Gid", format!("{GID} {GID} {GID} {GID}")),
        ("Groups", GROUP.to_string()),
        ("CapInh", zero.to_owned()),
        ("CapPrm", zero.to_owned()),
        ("CapEff", zero.to_owned()),
        ("CapAmb", zero.to_owned()),
        ("CapBnd", bounding.to_owned()),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
        ("oom_score_adj", "200".to_owned()),
        ("umask", "0007".to_owned()),
    ] {
        assert_eq!(status.get(field), Some(&expected), "{field} in {text}");
    }
    let (_, files) = text.split_once("end\n").unwrap();
    assert!(files.starts_with("0\n1\n2\n") && !files.contains('3'), "{files}");
}

#[tokio::test]
async fn the_program_is_its_user_and_nobody_else() {
    if !is_root() {
        return;
    }
    let (text, exit) = run(&spec(REPORT)).await.unwrap();
    assert_eq!(exit, Exit::Code(0), "{text}");
    check(&text, "0000000000000000");
}

/// Not a test by itself: a parent as the helper is, with three capabilities and in a Landlock
/// domain.
#[test]
fn bounded_entry() {
    if std::env::var_os(ROLE).is_none_or(|role| role != "bounded") {
        return;
    }
    let kept = CapabilitySet::NET_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID;
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(one) {
            // The last ones do not exist.
            let _ = rustix::thread::remove_capability_from_bounding_set(one);
        }
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).unwrap();
    let own = std::env::current_exe().unwrap();
    let confinement = Confinement {
        files: vec![
            FileRule::path("/usr", FileAccess::ReadExecute),
            FileRule::path("/bin", FileAccess::ReadExecute),
            FileRule::path("/lib", FileAccess::ReadExecute),
            FileRule::path("/lib64", FileAccess::ReadExecute),
            FileRule::path("/etc/ld.so.cache", FileAccess::Read),
            FileRule::path(own, FileAccess::ReadExecute),
            FileRule::path("/proc", FileAccess::Write),
            FileRule::path("/dev/null", FileAccess::Write),
        ],
        tcp_bind: Some(vec![]),
        tcp_connect: Some(vec![]),
        scoped: true,
    };
    restrict_self(&confinement).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (text, exit) = runtime.block_on(run(&spec(REPORT))).unwrap();
    eprintln!("{text}");
    assert_eq!(exit, Exit::Code(0));
}

#[test]
fn a_bounded_and_confined_root_can_launch() {
    if !is_root() {
        return;
    }
    let output = Command::new("/proc/self/exe")
        .args(["bounded_entry", "--exact", "--nocapture"])
        .env(ROLE, "bounded")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // Without CAP_SETPCAP the bounding set stays what the parent's is: NET_ADMIN, SETUID, SETGID.
    check(&text, "00000000000010c0");
}

/// Not a test by itself: a program that was taken over.
#[test]
fn hostile_entry() {
    if std::env::var_os(ROLE).is_none_or(|role| role != "hostile") {
        return;
    }
    let (root, root_group) = (Uid::ROOT, Gid::ROOT);
    let own = Uid::from_raw(UID);
    let kept = CapabilitySet::SETUID;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: kept,
    };
    let secret = std::env::var_os(SECRET).unwrap();
    let parent = rustix::process::getppid().unwrap();
    let tries = [
        (
            "root",
            rustix::thread::set_thread_res_uid(root, root, root).is_ok(),
        ),
        (
            "effective root",
            rustix::thread::set_thread_res_uid(None, root, None).is_ok(),
        ),
        (
            "another slot",
            rustix::thread::set_thread_uid(Uid::from_raw(UID + 7)).is_ok(),
        ),
        ("root's group", rustix::thread::set_thread_gid(root_group).is_ok()),
        ("groups", rustix::thread::set_thread_groups(&[root_group]).is_ok()),
        ("no groups", rustix::thread::set_thread_groups(&[]).is_ok()),
        ("capability", rustix::thread::set_capabilities(None, sets).is_ok()),
        ("privileges", rustix::thread::set_no_new_privs(false).is_ok()),
        ("signal", rustix::process::test_kill_process(parent).is_ok()),
        ("secret", std::fs::read(&secret).is_ok()),
        ("memory", std::fs::read(format!("/proc/{parent}/mem")).is_ok()),
        (
            "write",
            std::fs::write("/proc/self/oom_score_adj", "-1000").is_ok(),
        ),
        ("io_uring", refusal(libc::SYS_io_uring_setup, 1) != libc::EPERM),
        (
            "user namespace",
            refusal(libc::SYS_unshare, libc::CLONE_NEWUSER) != libc::EPERM,
        ),
        (
            "bus",
            answered(UnixStream::connect("/run/dbus/system_bus_socket")),
        ),
        ("network", answered(std::net::UdpSocket::bind("127.0.0.1:0"))),
        ("identity", rustix::process::geteuid() != own),
    ];
    for (what, worked) in tries {
        eprintln!("{what}: {}", if worked { "WORKED" } else { "refused" });
    }
}

/// The error of a system call with one number; 0 when it worked.
fn refusal(call: libc::c_long, argument: libc::c_int) -> libc::c_int {
    // SAFETY: of the calls used here, none works with this argument and no second one but
    // unshare(2), which touches no memory.
    let result = unsafe { libc::syscall(call, argument, 0) };
    match result {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    }
}

/// Whether anything but the filter answered.
fn answered<T>(result: std::io::Result<T>) -> bool {
    result.err().and_then(|e| e.raw_os_error()) != Some(libc::EPERM)
}

#[tokio::test]
async fn a_hostile_program_cannot_go_back() {
    if !is_root() {
        return;
    }
    let secret = tempfile::NamedTempFile::new().unwrap();
    // Even what everybody may read.
    std::fs::set_permissions(secret.path(), PermissionsExt::from_mode(0o644)).unwrap();
    let own = std::env::current_exe().unwrap();
    let mut hostile = spec("");
    // A copy that the user reaches, wherever this program was built.
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    hostile.program = place.path().join("hostile");
    std::fs::copy(own, &hostile.program).unwrap();
    hostile.arguments = ["hostile_entry", "--exact", "--nocapture"]
        .map(Into::into)
        .to_vec();
    hostile.environment.push((ROLE.into(), "hostile".into()));
    hostile
        .environment
        .push((SECRET.into(), secret.path().display().to_string()));
    let rule = FileRule::path(&hostile.program, FileAccess::ReadExecute);
    hostile.confinement.files.push(rule);
    let (text, exit) = run(&hostile).await.unwrap();
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert_eq!(text.matches(": refused").count(), 17, "{text}");
    assert!(!text.contains("WORKED"), "{text}");
}

#[tokio::test]
async fn nobody_becomes_root_by_it() {
    for (uid, gid, groups) in [
        (0, GID, vec![]),
        (UID, 0, vec![]),
        (UID, GID, vec![0]),
        (u32::MAX, GID, vec![]),
        (UID, u32::MAX, vec![]),
    ] {
        let mut wrong = spec("");
        wrong.identity = Some(Identity { uid, gid, groups });
        let refusal = run(&wrong).await.unwrap_err();
        assert!(matches!(refusal, LaunchError::Identity(_)), "{refusal}");
    }
}
