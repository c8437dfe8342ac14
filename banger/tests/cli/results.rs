//! How the end of a job, or its failure, is told.

use std::io::BufReader;
use std::process::Stdio;

use rustix::process::Signal;

use crate::host::{Host, Ran, rest, signal, wait_for};

#[test]
fn each_vm_has_a_result_of_its_own() {
    let host = Host::new();
    let ran = host.run(&["vm", "start", "a", "b", "nobody", "a"]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (Some(1), "a: running\n"),
        "{ran:?}"
    );
    assert!(
        ran.err
            .contains("banger: error: b: The VM \"b\" cannot be started\n"),
        "{ran:?}"
    );
    let unknown = "banger: error: nobody: No VM is called \"nobody\"\nhint: `banger vm list -a` shows all\n";
    assert!(ran.err.contains(unknown), "{ran:?}");
    let mut calls = host.fake.calls();
    calls.sort();
    assert_eq!(calls, ["start a", "start b"]);
}

#[test]
fn an_error_is_one_line_and_a_hint_is_another() {
    let host = Host::new();
    let ran = host.run(&["vm", "create", "taken"]);
    assert_eq!(
        ran,
        Ran {
            status: Some(1),
            out: String::new(),
            err: "banger: error: There is a VM \"taken\" already\nhint: Choose another name\n".into(),
        }
    );
    let ran = host.run(&["vm", "create", "no-space", "--quiet"]);
    assert_eq!(ran.err, "banger: error: No space\nhint: Make some\n");
}

#[test]
fn progress_is_lines_where_there_is_no_terminal() {
    let host = Host::new();
    let ran = host.run(&["vm", "create", "--no-start", "--vcpu", "2"]);
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), "a\n"), "{ran:?}");
    assert_eq!(host.fake.calls(), ["create  start=Some(false) vcpus=Some(2)"]);
    let ran = host.run(&["image", "pull", "debian-minimal", "--quiet"]);
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        ("debian-minimal: pulled\n", "")
    );
}

#[test]
fn programs_get_events() {
    let host = Host::new();
    let ran = host.run(&["vm", "create", "no-space", "--json"]);
    assert_eq!(ran.status, Some(1));
    let last: serde_json::Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["event"], &last["result"]),
        (&"result".into(), &"failed".into())
    );
    assert_eq!(last["error"], "org.banger.Error.NoSpace");
}

#[test]
fn ctrl_c_cancels_and_waits_for_the_end() {
    let host = Host::new();
    let mut child = host
        .command(&["vm", "create", "slow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut err, "slow: Working");
    signal(&child, Signal::INT);
    let said = rest(err);
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(
        said.contains("Cancelling") && said.contains("banger: error: Cancelled"),
        "{said}"
    );
    assert!(host.fake.calls().contains(&"cancel".to_owned()));
}

#[test]
fn a_polite_kill_is_no_ctrl_c() {
    let host = Host::new();
    for arguments in [&["vm", "create", "slow"][..], &["vm", "run", "--name", "slow"]] {
        let mut child = host
            .command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        wait_for(&mut err, "Working");
        signal(&child, Signal::TERM);
        let said = rest(err);
        assert_eq!(child.wait().unwrap().code(), Some(143), "{said}");
    }
}

#[test]
fn a_second_ctrl_c_leaves_at_once() {
    let host = Host::new();
    let mut child = host
        .command(&["vm", "create", "stuck"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut err, "stuck: Working");
    signal(&child, Signal::INT);
    host.fake.wait_for("cancel");
    wait_for(&mut err, "Cancelling");
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn paths_are_made_absolute() {
    let host = Host::new();
    let mut command = host.command(&["image", "register", "x", "--rootfs", "r.ext4", "--kernel", "/k"]);
    let output = command.current_dir(host.path("")).output().unwrap();
    assert!(output.status.success());
    let rootfs = host.path("r.ext4");
    assert_eq!(
        host.fake.calls(),
        [format!("register x {} Some(\"/k\")", rootfs.display())]
    );
}

#[test]
fn nothing_is_deleted_without_being_told() {
    let host = Host::new();
    let ran = host.run(&["vm", "prune"]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.err.contains("hint: Give --force"), "{ran:?}");
    assert_eq!(host.run(&["vm", "prune", "--dry-run"]).out, "b\nboot-fails\n");
    assert_eq!(host.fake.calls(), Vec::<String>::new());
    let ran = host.run(&["vm", "prune", "-f"]);
    let mut lines: Vec<&str> = ran.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["b: deleted", "boot-fails: deleted"]);
    let mut calls = host.fake.calls();
    calls.sort();
    assert_eq!(calls, ["delete force=None b", "delete force=None boot-fails"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let host = Host::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = host
        .command(&["ps"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
