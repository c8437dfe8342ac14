//! Commands in a running guest: streams, terminals, signals.

use std::time::Duration;

use banger_e2e::{BARE, Content, Pty, Rig, finished};
use rustix::process::{Pid, Signal, kill_process};

/// busybox's shell ends its prompt by asking the terminal where the cursor is.
const PROMPT: &str = "# \x1b[6n";

#[tokio::test]
async fn streams_are_binary_clean_and_apart() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;

    // 200 MB that no compression helps with, and the sum that they must have.
    let mut data = vec![0_u8; 200_000_000];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in data.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    let file = rig.dir().join("data");
    std::fs::write(&file, &data).unwrap();
    let expected = finished(rig.program("sha256sum").arg(&file), Duration::from_secs(60))
        .await
        .ok()
        .text();
    let out = rig
        .banger_fed(["vm", "exec", "a", "--", "sha256sum"], &data)
        .await
        .ok();
    assert_eq!(out.text().split(' ').next(), expected.split(' ').next());
    drop(data);

    // Both ways at once, and each stream its own.
    let script = "cat; echo to-err >&2; exit 3";
    let every_byte: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let out = rig
        .banger_fed(["vm", "exec", "a", "--", "sh", "-c", script], &every_byte)
        .await
        .exits(3);
    assert!(out.stdout == every_byte, "{} bytes came back", out.stdout.len());
    assert_eq!(out.stderr, "to-err\n");

    // A command that does not read its input ends all the same.
    let out = rig
        .banger_fed(["vm", "exec", "a", "--", "true"], &every_byte)
        .await;
    out.ok();
    // A reader that leaves early ends the command.
    let mut early = rig.program("sh");
    early.args([
        "-c",
        "banger vm exec a -- sh -c 'while echo y; do :; done' | head -n 1",
    ]);
    assert_eq!(
        finished(&mut early, Duration::from_secs(60)).await.ok().text(),
        "y"
    );
    rig.banger(["vm", "exec", "a", "--", "sh", "-c", "kill -TERM $$"])
        .await
        .exits(143);
}

#[tokio::test]
async fn a_terminal_has_its_size_and_its_keys() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;

    let script = "stty size; tty >/dev/null && echo is-a-t''ty
        trap 'echo now $(stty size)' WINCH; echo rea''dy; while :; do sleep 1; done";
    let mut pty = Pty::spawn(
        &rig.command(["vm", "exec", "a", "-t", "--", "sh", "-c", script]),
        91,
        33,
    );
    pty.expect("33 91").await;
    pty.expect("is-a-tty").await;
    pty.expect("ready").await;
    pty.resize(120, 40);
    pty.expect("now 40 120").await;
    // Ctrl-C reaches the guest's process and not banger.
    pty.send(b"\x03");
    let (status, rest) = pty.finish().await;
    assert_eq!(status, 130, "{rest}");

    // A shell, and a command of it that is interrupted.
    let mut pty = Pty::spawn(&rig.command(["vm", "exec", "a", "-t", "--", "sh"]), 80, 24);
    pty.expect(PROMPT).await;
    // The one who says so is the one who is interrupted: the shell is not in between any more.
    pty.send(b"sh -c 'echo wait\"\"ing; exec sleep 1000'\n");
    pty.expect("waiting").await;
    pty.send(b"\x03");
    pty.expect(PROMPT).await;
    pty.send(b"echo status $?; exit 5\n");
    pty.expect("status 130").await;
    let (status, rest) = pty.finish().await;
    assert_eq!(status, 5, "{rest}");
}

#[tokio::test]
async fn signals_reach_the_guests_process() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    rig.create_bare("a").await;
    for (signal, status) in [(Signal::INT, 42), (Signal::TERM, 43)] {
        let script = "trap 'exit 42' INT; trap 'exit 43' TERM; echo up; while :; do sleep 1; done";
        let mut command = rig.command(["vm", "exec", "a", "--", "sh", "-c", script]);
        let mut child = command.spawn().unwrap();
        let mut first = [0; 3];
        let stdout = child.stdout.as_mut().unwrap();
        tokio::io::AsyncReadExt::read_exact(stdout, &mut first)
            .await
            .unwrap();
        assert_eq!(&first, b"up\n");
        kill_process(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
        rig.wait("banger vm exec", child).await.exits(status);
    }
    // Nothing of it goes on in the guest.
    let out = rig
        .banger(["vm", "exec", "a", "--", "sh", "-c", "ps | grep -c '[w]hile :'"])
        .await;
    assert_eq!(out.text(), "0", "{out}");
}

#[tokio::test]
async fn an_interactive_run_leaves_the_vm_and_says_so() {
    let Some(rig) = Rig::new(Content::Bare).await else {
        return;
    };
    let mut command = rig.command(["vm", "run", "--name", "shell", "--image", BARE]);
    command.args(["--memory", "256M", "--vcpu", "1"]);
    let mut pty = Pty::spawn(&command, 80, 24);
    pty.expect("spec: 1 vcpu").await;
    pty.expect(PROMPT).await;
    pty.send(b"echo I am $(hostname); exit\n");
    pty.expect("I am shell").await;
    pty.expect("The VM shell still runs").await;
    pty.expect("banger vm stop shell").await;
    let (status, rest) = pty.finish().await;
    assert_eq!(status, 0, "{rest}");
    assert_eq!(rig.property("shell", "state").await, "running");
    rig.banger(["vm", "delete", "-f", "shell"]).await.ok();
}
