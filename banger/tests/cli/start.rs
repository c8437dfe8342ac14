//! Starting the daemon: once, whoever comes first, and with its own words when it cannot.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::fake::Fake;
use crate::host::{Host, Ran, rest};

/// Not a test: the daemon of the tests below. It runs when their script runs this program, with
/// the listening socket as standard input, and until it is ended.
#[test]
#[ignore = "the daemon of other tests"]
fn daemon() {
    if std::env::var_os("BANGER_LISTEN").is_none() {
        return;
    }
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(Fake::default().serve(listener));
}

/// A daemon program that writes its pid into a file, one line each.
fn program(host: &Host, body: &str) -> PathBuf {
    let path = host.path("bangerd");
    let pids = host.path("pids");
    let script = format!("#!/bin/sh\necho $$ >> {}\n{body}\n", pids.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

fn pids(host: &Host) -> Vec<i32> {
    let text = fs::read_to_string(host.path("pids")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn two_first_callers_start_one_daemon() {
    let host = Host::without_daemon();
    let this = std::env::current_exe().unwrap();
    let body = format!(
        "[ \"$LISTEN_FDS\" = 1 ] || exit 1\n\
         # As the real one: nobody may hold the lock while he waits for an answer.\n\
         flock \"$XDG_RUNTIME_DIR/banger/start.lock\" true\n\
         exec {} --exact start::daemon --ignored --nocapture <&3",
        this.display()
    );
    let daemon = program(&host, &body);
    let callers: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = host.command(&["ps", "-aq"]);
            command
                .env("BANGERD", &daemon)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let ran: Vec<Ran> = callers
        .into_iter()
        .map(|child| Ran::of(child.wait_with_output().unwrap()))
        .collect();
    let started = pids(&host);
    for pid in &started {
        kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL).unwrap();
    }
    for ran in &ran {
        assert_eq!(
            (ran.status, ran.out.as_str()),
            (Some(0), "a\nb\nboot-fails\n"),
            "{ran:?}"
        );
    }
    assert_eq!(started.len(), 1);
    let mode = |below: &str| fs::metadata(host.path(below)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("run/banger"), mode("run/banger/bangerd.sock")),
        (0o700, 0o600)
    );
}

#[test]
fn a_daemon_that_is_killed_is_told_and_the_next_call_starts_another() {
    let host = Host::without_daemon();
    let this = std::env::current_exe().unwrap();
    let body = format!(
        "exec {} --exact start::daemon --ignored --nocapture <&3",
        this.display()
    );
    let daemon = program(&host, &body);
    let mut child = host
        .command(&["vm", "exec", "a", "--", "sh", "-c", "echo on; read x"])
        .env("BANGERD", &daemon)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let kill = |pid| kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    kill(pids(&host)[0]);
    // The command goes on without its daemon, and holds our streams until its input ends.
    drop(child.stdin.take());
    let err = rest(child.stderr.take().unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(125), "{err}");
    assert!(
        err.contains("The daemon ended before the job did\nhint: "),
        "{err}"
    );
    let ran = Ran::of(
        host.command(&["ps", "-q"])
            .env("BANGERD", &daemon)
            .output()
            .unwrap(),
    );
    let started = pids(&host);
    kill(started[1]);
    assert_eq!((ran.out.as_str(), started.len()), ("a\n", 2), "{ran:?}");
}

#[test]
fn a_daemon_that_cannot_start_is_quoted() {
    let host = Host::without_daemon();
    let daemon = program(
        &host,
        "echo 'bangerd: the database is of a newer version' >&2; exit 3",
    );
    for _ in 0..2 {
        let output = host.command(&["ps"]).env("BANGERD", &daemon).output().unwrap();
        let ran = Ran::of(output);
        assert_eq!(ran.status, Some(1));
        assert!(
            ran.err.starts_with(
                "banger: error: The daemon could not start (exit status: 3): bangerd: the database is of a newer version\nhint: See "
            ),
            "{ran:?}"
        );
    }
    assert_eq!(pids(&host).len(), 2);
}

#[test]
fn without_a_daemon_program_the_way_out_is_named() {
    let host = Host::without_daemon();
    let ran = host.run(&["ps"]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.err
            .starts_with("banger: error: Cannot start \"/nonexistent/bangerd\": No such file"),
        "{ran:?}"
    );
}

#[test]
fn a_runtime_directory_that_others_can_write_to_is_not_used() {
    let host = Host::without_daemon();
    fs::create_dir(host.path("run/banger")).unwrap();
    fs::set_permissions(host.path("run/banger"), Permissions::from_mode(0o777)).unwrap();
    let ran = host.run(&["ps"]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.err.contains("Will not use") && ran.err.contains("others can write to it"),
        "{ran:?}"
    );
}
