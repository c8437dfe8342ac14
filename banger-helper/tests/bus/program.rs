//! The program itself, as the system's bus starts it.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use banger_bus::helper::{HELPER_PATH, HELPER_SERVICE, LaunchOptions, LogReadOptions, WireHandle};
use banger_model::Slot;
use tokio::time::Instant;
use zbus::message::{Flags, Message};
use zbus::wire::Fd;

use crate::support::{
    ALICE, Answer, BOB, Bus, FakeSystemd, Polkit, can_run, error_name, proxy, wait_for_owner, within,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-helper");

/// The program, with its neighbours on a bus.
pub(crate) struct Running {
    program: Child,
    /// Keeps the network namespace, with one bridge, while programs come and go.
    holder: Child,
    pub(crate) state: PathBuf,
    pub(crate) polkit: Polkit,
    pub(crate) systemd: FakeSystemd,
    pub(crate) bus: Bus,
}

impl Running {
    async fn start(idle_seconds: u32) -> Self {
        let bus = Bus::start();
        let polkit = Polkit::start(&bus).await;
        let systemd = FakeSystemd::start(&bus).await;
        let holder = hold_network();
        let state = bus.directory.path().join("state");
        let program = start(
            &bus,
            &holder,
            &[("BANGER_IDLE_SECONDS", &idle_seconds.to_string())],
        )
        .await;
        Self {
            program,
            holder,
            state,
            polkit,
            systemd,
            bus,
        }
    }

    /// With the failures that a test wants.
    pub(crate) async fn start_failing(at: &str) -> Self {
        let mut running = Self::start(60).await;
        running.restart(at).await;
        running
    }

    /// Kills the program, unless it is dead already, and starts it again.
    pub(crate) async fn restart(&mut self, failing_at: &str) {
        self.restart_with(&[("BANGER_FAIL_POINT", failing_at)]).await;
    }

    /// As [`Self::restart`], with this environment besides.
    pub(crate) async fn restart_with(&mut self, environment: &[(&str, &str)]) {
        let _ = self.program.kill();
        self.program.wait().unwrap();
        let watcher = self.bus.connect(0).await;
        wait_for_owner(&watcher, HELPER_SERVICE, false).await;
        self.program = start(&self.bus, &self.holder, environment).await;
    }

    fn status(&self, field: &str) -> String {
        let id = self.program.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    }

    fn open_files(&self) -> usize {
        let id = self.program.id();
        std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
    }

    /// Its network namespace, as `/proc/PID/ns/net` leads to it.
    pub(crate) fn network(&self) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/ns/net", self.holder.id())).unwrap()
    }

    /// Of its network namespace, one line each.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let output = Command::new("nsenter")
            .args(["--net", "--target", &self.holder.id().to_string()])
            .args(["ip", "-details", "-oneline", "link"])
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    async fn ended(&mut self) -> ExitStatus {
        let program = &mut self.program;
        // Its end is seen by its name first; then it has nothing left to wait for.
        let watcher = self.bus.connect(0).await;
        wait_for_owner(&watcher, HELPER_SERVICE, false).await;
        program.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in [&mut self.program, &mut self.holder] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process in a network namespace of its own, in which the public bridge is.
fn hold_network() -> Child {
    let script = "ip link add public type bridge && ip link set public up && echo && exec cat";
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0];
    holder.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    holder
}

async fn start(bus: &Bus, holder: &Child, environment: &[(&str, &str)]) -> Child {
    let directory = bus.directory.path();
    // It becomes the program, so that its pid is the program's.
    let program = Command::new("nsenter")
        .args(["--net", "--target", &holder.id().to_string(), PROGRAM])
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
        .env("STATE_DIRECTORY", directory.join("state"))
        .env("RUNTIME_DIRECTORY", directory.join("run"))
        .envs(environment.iter().copied())
        .spawn()
        .unwrap();
    let watcher = bus.connect(0).await;
    wait_for_owner(&watcher, HELPER_SERVICE, true).await;
    program
}

#[tokio::test]
async fn it_has_given_up_what_it_does_not_need() {
    if !can_run() {
        return;
    }
    let running = Running::start(60).await;
    // CAP_NET_ADMIN (12), CAP_SETPCAP (8), CAP_SETUID (7), CAP_SETGID (6) of linux/capability.h.
    let kept = format!("{:016x}", (1 << 12) | (1 << 8) | (1 << 7) | (1 << 6));
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(running.status(set), kept, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(running.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(running.status("NoNewPrivs"), "1");
    assert_eq!(running.status("Umask"), "0077");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(running.state.join("slots")).unwrap());
    assert_eq!(mode & 0o777, 0o700);
    let client = proxy(&running.bus.connect(ALICE).await).await;
    let status = client.status().await.unwrap();
    let (_, _, text) = status.iter().find(|(name, ..)| name == "helper").unwrap();
    if banger_sys::landlock::version() >= Some(banger_sys::landlock::WHOLE) {
        assert!(text.contains("Landlock confines it"), "{text}");
    }
}

/// With the capabilities and the confinement that it has, and the kernel's own taps.
#[tokio::test]
async fn it_makes_taps_and_takes_them_back() {
    if !can_run() {
        return;
    }
    let running = Running::start(60).await;
    let alice = proxy(&running.bus.connect(ALICE).await).await;
    let grant = alice.acquire_slot(0).await.unwrap();
    let slot = Slot::new(grant.slot).unwrap();
    let tap = running.interfaces().into_iter().find(|line| line.contains("bt0"));
    let tap = tap.unwrap_or_default();
    for expected in [
        "master public",
        "isolated on",
        &format!("user {}", slot.uid()),
        "persist on",
    ] {
        assert!(tap.contains(expected), "{expected}: {tap}");
    }
    // A closed network there is not; nothing of the attempt is left.
    let error = alice.acquire_slot(1).await.unwrap_err().to_string();
    assert!(error.contains("banger-network.service"), "{error}");
    assert_eq!(alice.list().await.unwrap().len(), 1);
    assert!(!running.interfaces().iter().any(|line| line.contains("bt1")));

    alice.release_slot(grant.handle).await.unwrap();
    assert!(!running.interfaces().iter().any(|line| line.contains("bt0")));
    assert_eq!(std::fs::read_dir(running.state.join("slots")).unwrap().count(), 0);
}

#[tokio::test]
async fn it_leaves_when_nobody_needs_it() {
    if !can_run() {
        return;
    }
    let mut running = Running::start(1).await;
    // As long as a question is open it stays.
    running.polkit.answers(Answer::Hang);
    let caller = running.bus.connect(ALICE).await;
    caller.send(&acquire()).await.unwrap();
    running.polkit.wait_for_open(1).await;
    let begin = Instant::now();
    caller.close().await.unwrap();
    assert!(running.ended().await.success());
    assert!(begin.elapsed().as_secs() >= 1);
}

#[tokio::test]
async fn it_ends_in_order_when_it_is_told_to() {
    if !can_run() {
        return;
    }
    let mut running = Running::start(60).await;
    // Somebody is asked for a password: that is not waited for.
    running.polkit.answers(Answer::Hang);
    let caller = running.bus.connect(ALICE).await;
    caller.send(&acquire()).await.unwrap();
    running.polkit.wait_for_open(1).await;
    let begin = Instant::now();
    let id = rustix::process::Pid::from_child(&running.program);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(running.ended().await.success());
    assert!(begin.elapsed().as_secs() < 5);
    running.polkit.wait_for_open(0).await;
}

#[tokio::test]
async fn a_flood_of_calls_holds_up_nobody_and_nothing() {
    if !can_run() {
        return;
    }
    let running = Running::start(60).await;
    running.polkit.rule(|check| match check.details["user"].as_str() {
        "2" => Answer::Hang,
        _ => Answer::Yes,
    });
    let alice = proxy(&running.bus.connect(ALICE).await).await;
    alice.list().await.unwrap();
    let (files, memory) = (running.open_files(), kilobytes(&running.status("VmRSS")));
    let bob = running.bus.connect(BOB).await;
    let (_reader, writer) = std::io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    let open_log = (
        WireHandle { high: 1, low: 2 },
        LogReadOptions::default(),
        Fd::from(&writer),
    );
    for round in 0..10_000 {
        let message = if round % 10 == 0 {
            // Each holds a descriptor as long as it waits.
            Message::method_call(HELPER_PATH, "OpenLog")
                .destination(HELPER_SERVICE)
                .interface("org.banger.Helper")
                .with_flags(Flags::NO_REPLY_EXPECTED)
                .build(&open_log)
                .unwrap()
        } else {
            acquire()
        };
        within(bob.send(&message)).await.unwrap();
        if round % 1000 == 0 {
            let begin = Instant::now();
            within(alice.list()).await.unwrap();
            assert!(begin.elapsed().as_secs() < 5);
            assert!(running.open_files() <= files + 600, "{}", running.open_files());
        }
    }
    within(alice.list()).await.unwrap();
    bob.close().await.unwrap();
    running.polkit.wait_for_open(0).await;
    within(alice.list()).await.unwrap();
    let grown = kilobytes(&running.status("VmRSS")).saturating_sub(memory);
    assert!(grown < 64 << 10, "{grown} KiB");
    assert!(
        running.open_files() <= files + 2,
        "{files} {}",
        running.open_files()
    );
}

#[tokio::test]
async fn large_messages_are_not_kept() {
    if !can_run() {
        return;
    }
    let running = Running::start(60).await;
    running.polkit.answers(Answer::Hang);
    let alice = proxy(&running.bus.connect(ALICE).await).await;
    let before = kilobytes(&running.status("VmHWM"));
    let bob = running.bus.connect(BOB).await;
    let options = LaunchOptions {
        name: Some("x".repeat(4 << 20)),
        ..LaunchOptions::default()
    };
    let files = HashMap::<u8, Fd<'_>>::new();
    let message = Message::method_call(HELPER_PATH, "Launch")
        .destination(HELPER_SERVICE)
        .interface("org.banger.Helper")
        .with_flags(Flags::NO_REPLY_EXPECTED | Flags::ALLOW_INTERACTIVE_AUTH)
        .build(&(WireHandle { high: 1, low: 2 }, options, files))
        .unwrap();
    for _ in 0..32 {
        within(bob.send(&message)).await.unwrap();
    }
    // Answered after them, because nobody is asked about them.
    let refused = bob.call_method(
        Some(HELPER_SERVICE),
        HELPER_PATH,
        Some("org.banger.Helper"),
        "Status",
        &(),
    );
    assert_eq!(
        error_name(within(refused).await),
        "org.freedesktop.DBus.Error.AccessDenied"
    );
    assert_eq!(running.polkit.take_checks().len(), 1);
    running.polkit.answers(Answer::Yes);
    within(alice.list()).await.unwrap();
    let grown = kilobytes(&running.status("VmHWM")) - before;
    assert!(grown < 64 << 10, "{grown} KiB");
}

/// With the permission to ask for a password, so that polkit may take its time.
fn acquire() -> Message {
    Message::method_call(HELPER_PATH, "AcquireSlot")
        .destination(HELPER_SERVICE)
        .interface("org.banger.Helper")
        .with_flags(Flags::NO_REPLY_EXPECTED | Flags::ALLOW_INTERACTIVE_AUTH)
        .build(&(0_u8,))
        .unwrap()
}

fn kilobytes(text: &str) -> u64 {
    text.trim_end_matches(" kB").parse().unwrap()
}
