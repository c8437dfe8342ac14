//! The same on a message bus.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use crate::host::{Host, rest, wait_for};

/// A bus of the test's own, until it is dropped.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    /// `None`, with a word about it, where there is no bus daemon.
    #[allow(clippy::print_stdout, reason = "who reads the results should know")]
    fn start() -> Option<Self> {
        let started = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut daemon) = started else {
            let required = std::env::var("BANGER_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|rung| rung == "bus"), "no dbus-daemon");
            println!("skipped: no dbus-daemon");
            return None;
        };
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let address = address.trim().to_owned();
        Some(Self { daemon, address })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

#[test]
fn a_daemon_on_the_session_bus_is_found() {
    let Some(bus) = Bus::start() else { return };
    let host = Host::without_daemon();
    host.fake.join(&bus.address);
    let run = |arguments: &[&str]| {
        let mut command = host.command(arguments);
        command
            .env("DBUS_SESSION_BUS_ADDRESS", &bus.address)
            .env_remove("BANGERD");
        command.output().unwrap()
    };
    let status = run(&["daemon", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["transport"], "session-bus");
    assert_eq!(run(&["ps", "-q"]).stdout, b"a\n");
    assert_eq!(run(&["vm", "stop", "a"]).stdout, b"a: stopped\n");
    assert_eq!(
        run(&["vm", "exec", "a", "--", "sh", "-c", "exit 7"])
            .status
            .code(),
        Some(7)
    );
    assert!(!host.path("run/banger").exists());
}

#[test]
fn a_daemon_that_dies_on_the_bus_is_not_waited_for() {
    let Some(bus) = Bus::start() else { return };
    let host = Host::without_daemon();
    host.fake.join(&bus.address);
    let mut child = host
        .command(&["vm", "create", "stuck"])
        .env("DBUS_SESSION_BUS_ADDRESS", &bus.address)
        .env_remove("BANGERD")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut err, "Working");
    host.fake.leave();
    let said = rest(err);
    assert!(said.contains("The daemon ended before the job did"), "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_bus_that_hangs_is_none() {
    let host = Host::without_daemon();
    let socket = host.path("silent");
    // Connections wait in its queue for ever.
    let _listener = UnixListener::bind(&socket).unwrap();
    let status = host
        .command(&["daemon", "status"])
        .env(
            "DBUS_SESSION_BUS_ADDRESS",
            format!("unix:path={}", socket.display()),
        )
        .env_remove("BANGERD")
        .output()
        .unwrap();
    assert_eq!(status.status.code(), Some(3));
}
