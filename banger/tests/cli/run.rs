//! `vm run`: a VM, a session in it, and what stays.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::Signal;

use crate::host::{Host, rest, signal, wait_for};

#[test]
fn a_command_s_status_comes_back_and_rm_deletes_whatever_it_is() {
    let host = Host::new();
    let ran = host.run(&[
        "vm",
        "run",
        "--rm",
        "--name",
        "x",
        "--",
        "sh",
        "-c",
        "echo out; exit 7",
    ]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(7), "out\n"), "{ran:?}");
    assert!(
        ran.err.starts_with("spec: 4 vcpu · 8192 MiB · 8G disk\n"),
        "{ran:?}"
    );
    assert_eq!(
        host.fake.calls(),
        [
            "create x start=Some(true) vcpus=None",
            "process None",
            "delete force=Some(true) a"
        ]
    );
}

#[test]
fn without_rm_the_vm_stays_and_a_shell_says_so() {
    let host = Host::new();
    let ran = host.run(&["vm", "run", "--quiet", "--", "true"]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    let ran = host.run(&["vm", "run", "--memory", "1G"]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(ran.err.contains("4 vcpu · 1024 MiB"), "{ran:?}");
    let last =
        "The VM a still runs: stop it with `banger vm stop a`, delete it with `banger vm delete -f a`\n";
    assert!(ran.err.ends_with(last), "{ran:?}");
    assert!(!host.fake.calls().iter().any(|call| call.starts_with("delete")));
}

#[test]
fn a_guest_that_was_never_reached_stays_even_with_rm() {
    let host = Host::new();
    let ran = host.run(&["vm", "run", "--rm", "--name", "boot-fails", "--", "true"]);
    assert_eq!(ran.status, Some(125), "{ran:?}");
    assert!(
        ran.err
            .contains("never became ready\nhint: The VM stays for a look: `banger vm logs boot-fails`"),
        "{ran:?}"
    );
    assert!(!host.fake.calls().iter().any(|call| call.starts_with("delete")));
}

#[test]
fn what_was_never_made_is_banger_s_failure() {
    let host = Host::new();
    let ran = host.run(&["vm", "run", "--rm", "--name", "taken", "--", "true"]);
    assert_eq!(ran.status, Some(125));
    assert!(ran.err.ends_with("hint: Choose another name\n"), "{ran:?}");
}

#[test]
fn rm_deletes_after_ctrl_c_too() {
    let host = Host::new();
    let mut child = host
        .command(&[
            "vm",
            "run",
            "--rm",
            "--",
            "sh",
            "-c",
            "trap 'exit 130' INT; echo on; read x",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    signal(&child, Signal::INT);
    host.fake.wait_for("signal INT");
    drop(child.stdin.take());
    let said = rest(child.stderr.take().unwrap());
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert_eq!(host.fake.calls().last().unwrap(), "delete force=Some(true) a");
}

#[test]
fn ctrl_c_before_the_vm_is_there_leaves_nothing_to_delete() {
    let host = Host::new();
    let mut child = host
        .command(&["vm", "run", "--rm", "--name", "slow", "--", "true"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut err, "Working");
    signal(&child, Signal::INT);
    let said = rest(err);
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(host.fake.calls().ends_with(&["cancel".to_owned()]));
}

#[test]
fn the_entrypoint_is_not_a_shell_and_takes_the_words() {
    let host = Host::new();
    let run = |arguments: &[&str]| host.run(&[&["vm", "run", "--entrypoint", "-q"], arguments].concat());
    let ran = run(&[
        "--image",
        "alpine:3.20",
        "-u",
        "app:app",
        "-w",
        "/srv",
        "--",
        "--port",
        "80",
    ]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(2), ""), "{ran:?}");
    assert_eq!(run(&[]).status, Some(0));
    host.run(&["vm", "exec", "a", "--user", "1000", "--", "true"]);
    let mut calls = host.fake.calls();
    calls.retain(|call| call.starts_with("exec"));
    assert_eq!(
        calls,
        [
            "exec [\"--port\", \"80\"] Some(\"app:app\") Some(\"/srv\") entrypoint=Some(true) shell=None",
            "exec [] None None entrypoint=Some(true) shell=None",
            "exec [\"true\"] Some(\"1000\") None entrypoint=None shell=None",
        ]
    );
}
