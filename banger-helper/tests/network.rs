//! `banger-helper network` as systemd runs it: what it tells, mends, gives up, leaves and takes
//! back. Rung `netns`.

#[path = "../../crates/banger-net/tests/lab/mod.rs"]
mod lab;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use lab::{differences, in_lab, run, say, snapshot};

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-helper");
/// PID 1's end of the notifications.
const NOTIFY: &str = "/etc/notify";
/// Within which it has to say something.
const LIMIT: Duration = Duration::from_secs(20);

/// The service, and what it tells.
struct Service {
    process: Child,
    notifications: UnixDatagram,
}

impl Service {
    fn start() -> Self {
        let _ = fs::remove_file(NOTIFY);
        let notifications = UnixDatagram::bind(NOTIFY).unwrap();
        notifications.set_read_timeout(Some(LIMIT)).unwrap();
        let process = Command::new(PROGRAM)
            .args(["network", "serve"])
            .env("NOTIFY_SOCKET", NOTIFY)
            .spawn()
            .unwrap();
        Self {
            process,
            notifications,
        }
    }

    fn ready() -> Self {
        let service = Self::start();
        service.wait_for("READY=1");
        service
    }

    /// Waits until it tells something with this text, and returns all until then.
    fn wait_for(&self, text: &str) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let mut buffer = [0; 1024];
            let length = self.notifications.recv(&mut buffer).unwrap();
            told.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            if told.last().unwrap().contains(text) {
                return told;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.process.wait().unwrap()
    }
}

fn down(result: Option<(&str, &str)>) {
    let mut command = Command::new(PROGRAM);
    command.args(["network", "down"]);
    if let Some((result, status)) = result {
        command.env("SERVICE_RESULT", result).env("EXIT_STATUS", status);
    }
    assert!(command.status().unwrap().success());
}

#[test]
fn it_keeps_the_network_until_it_is_stopped() {
    in_lab("it_keeps_the_network_until_it_is_stopped", || {
        let before = snapshot();
        let service = Service::ready();
        let began = Instant::now();
        run("nft flush ruleset");
        service.wait_for("the host's table");
        say(&format!("flushed and mended: {} ms", began.elapsed().as_millis()));
        assert!(began.elapsed() < Duration::from_secs(1));
        service.signal(Signal::HUP);
        let told = service.wait_for("READY=1");
        assert!(
            told.iter()
                .any(|text| text.starts_with("RELOADING=1\nMONOTONIC_USEC=")),
            "{told:?}"
        );
        let status = service.end(Signal::TERM);
        assert!(status.success(), "{status}");
        assert!(run("ip link").contains("banger0"));
        down(Some(("success", "0")));
        assert_eq!(differences(&before, &snapshot()), Vec::<String>::new());
    });
}

#[test]
fn it_gives_up_what_it_needs_no_more() {
    in_lab("it_gives_up_what_it_needs_no_more", || {
        let service = Service::ready();
        let tasks = fs::read_dir(format!("/proc/{}/task", service.process.id())).unwrap();
        let mut threads = 0;
        for task in tasks.flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            let value = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim().to_owned()
            };
            // CAP_NET_ADMIN.
            for set in ["CapPrm:", "CapEff:"] {
                assert_eq!(value(set), "0000000000001000");
            }
            assert_eq!(value("NoNewPrivs:"), "1");
            threads += 1;
        }
        assert_eq!(threads, 2, "the host's and the guests'");
        service.end(Signal::TERM);
    });
}

#[test]
fn a_crash_leaves_everything_to_the_next_start() {
    in_lab("a_crash_leaves_everything_to_the_next_start", || {
        let before = snapshot();
        let status = Service::ready().end(Signal::KILL);
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
        let crashed = snapshot();
        down(Some(("signal", "KILL")));
        assert_eq!(differences(&crashed, &snapshot()), Vec::<String>::new());
        let service = Service::start();
        let told = service.wait_for("READY=1");
        assert_eq!(told, ["READY=1"], "nothing had to be changed");
        service.end(Signal::TERM);
        down(None);
        assert_eq!(differences(&before, &snapshot()), Vec::<String>::new());
    });
}

#[test]
fn a_failed_start_is_taken_back() {
    in_lab("a_failed_start_is_taken_back", || {
        let before = snapshot();
        run("mount --bind /bin/false /usr/sbin/nft");
        let status = Service::start().process.wait().unwrap();
        assert_eq!(status.code(), Some(3));
        run("umount /usr/sbin/nft");
        assert_ne!(differences(&before, &snapshot()), Vec::<String>::new());
        down(Some(("exit-code", "3")));
        assert_eq!(differences(&before, &snapshot()), Vec::<String>::new());
    });
}

#[test]
fn a_death_at_any_moment_is_gone_on_from_and_taken_back() {
    in_lab("a_death_at_any_moment_is_gone_on_from_and_taken_back", || {
        let before = snapshot();
        for moment in 0..16 {
            let patience = Duration::from_millis(1 + moment * 25);
            // Twice, so that the second goes on from anywhere.
            for _ in 0..2 {
                let service = Service::start();
                service.notifications.set_read_timeout(Some(patience)).unwrap();
                let _ = service.notifications.recv(&mut [0; 1024]);
                service.end(Signal::KILL);
            }
            if moment % 2 == 0 {
                Service::ready().end(Signal::TERM);
            }
            // The one that takes it back dies too, unless it is faster.
            let mut dying = Command::new(PROGRAM).args(["network", "down"]).spawn().unwrap();
            let pid = Pid::from_raw(dying.id().cast_signed()).unwrap();
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            let _ = receiver.recv_timeout(patience / 2);
            drop(sender);
            let _ = kill_process(pid, Signal::KILL);
            dying.wait().unwrap();
            down(None);
            assert_eq!(
                differences(&before, &snapshot()),
                Vec::<String>::new(),
                "{patience:?}"
            );
        }
    });
}
