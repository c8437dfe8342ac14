//! A command "in a guest": streams, statuses, signals, terminals.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::process::Signal;
use rustix::termios::{LocalModes, tcgetattr, tcsetwinsize};

use crate::host::{Host, input, signal};
use crate::screen::{pty, window};

#[test]
fn the_status_is_the_command_s() {
    let host = Host::new();
    for (script, status) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ] {
        assert_eq!(
            host.run(&["vm", "exec", "a", "--", "sh", "-c", script]).status,
            Some(status),
            "{script}"
        );
    }
    assert_eq!(
        host.run(&["vm", "exec", "a", "--", "/nonexistent"]).status,
        Some(127)
    );
    let ran = host.run(&["vm", "exec", "a", "--", "/etc/passwd"]);
    assert_eq!(ran.status, Some(126), "{ran:?}");
    assert_eq!(
        host.run(&["vm", "exec", "nobody", "--", "true"]).status,
        Some(125)
    );
}

#[test]
fn streams_are_apart_and_binary_clean() {
    let host = Host::new();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let output = host
        .command(&[
            "vm",
            "exec",
            "a",
            "-e",
            "W=err",
            "--",
            "sh",
            "-c",
            "cat; echo $W >&2",
        ])
        .stdin(input(&host, &bytes))
        .output()
        .unwrap();
    assert!(output.stdout == bytes);
    assert_eq!(output.stderr, b"err\n");
}

#[test]
fn signals_go_to_the_command() {
    let host = Host::new();
    let mut child = host
        .command(&[
            "vm",
            "exec",
            "a",
            "--",
            "sh",
            "-c",
            "trap 'exit 9' INT; echo on; while :; do read x <&3; done 3<&0",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "on\n");
    signal(&child, Signal::INT);
    host.fake.wait_for("signal INT");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn signals_count_also_when_the_guest_takes_none() {
    let host = Host::new();
    let mut child = host.command(&["vm", "exec", "a", "--", "hang"]).spawn().unwrap();
    host.fake.wait_for("hang");
    signal(&child, Signal::INT);
    host.fake.wait_for("signal INT");
    // Nothing answers that one. The third leaves.
    signal(&child, Signal::TERM);
    signal(&child, Signal::QUIT);
    let status = child.wait().unwrap().code();
    assert!(matches!(status, Some(131 | 143)), "{status:?}");
}

#[test]
fn a_terminal_is_raw_meanwhile_has_its_size_and_is_put_back() {
    let host = Host::new();
    let (master, slave) = pty();
    tcsetwinsize(&master, window(97, 31)).unwrap();
    let before = tcgetattr(&slave).unwrap();
    let mut child = host
        .command(&["vm", "exec", "a", "--", "sh", "-c", "stty -a; echo ready; read x"])
        .env("TERM", "xterm")
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut screen = BufReader::new(File::from(master));
    let mut text = String::new();
    while !text.contains("ready") {
        assert!(screen.read_line(&mut text).unwrap() > 0, "{text}");
    }
    assert!(text.contains("-icanon") && text.contains("-echo"), "{text}");
    host.fake.wait_for("process Some((97, 31))");
    tcsetwinsize(screen.get_ref(), window(50, 20)).unwrap();
    // The program has no controlling terminal here, so the kernel does not tell it.
    signal(&child, Signal::WINCH);
    host.fake.wait_for("resize 50 20");
    screen.get_mut().write_all(b"\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let after = tcgetattr(&slave).unwrap();
    assert!(after.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    assert_eq!(after.local_modes, before.local_modes);
    assert_eq!(after.input_modes, before.input_modes);
}
