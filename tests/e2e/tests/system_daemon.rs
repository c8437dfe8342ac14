//! The owner's daemon in system mode on a real systemd: a whole run without a prompt, a VM that
//! outlives its daemon and the helper, and nothing left of either.

#![allow(clippy::print_stdout, reason = "what a reader of the log wants to see")]

use std::time::{Duration, Instant};

use banger_e2e::{ALICE, Machine, Out, finished};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(240);
const BANGER: &str = "/usr/local/bin/banger";
/// Within which a daemon that was killed has found its VMs again.
const FOUND_AGAIN: Duration = Duration::from_secs(2);

async fn installed() -> Option<Machine> {
    let machine = Machine::boot_for_system_mode().await?;
    let banger = machine.build().join("banger");
    let mut install = machine.root(banger);
    finished(install.args(["system", "install"]), LIMIT).await.ok();
    Some(machine)
}

async fn alice(machine: &Machine, words: &[&str]) -> Out {
    let words: Vec<&str> = std::iter::once(BANGER).chain(words.iter().copied()).collect();
    let out = machine.run_in_session(ALICE, &words).await;
    println!("{out}");
    out
}

async fn show(machine: &Machine, vm: &str) -> Value {
    let out = alice(machine, &["vm", "show", "--json", vm]).await.ok();
    let shown: Value = serde_json::from_slice(&out.stdout).expect("it is JSON");
    shown[0].clone()
}

async fn sh(machine: &Machine, script: &str) -> String {
    machine.sh(script).await.ok().text().trim().to_owned()
}

/// Of no VM there is a scope, a tap, a slot or a process.
async fn nothing_is_left(machine: &Machine) {
    let units = sh(machine, "systemctl list-units --no-legend --all 'banger-vm-*'").await;
    assert_eq!(units, "");
    let links = sh(machine, "nsenter --net=/run/netns/banger ip -brief link").await;
    assert!(!links.contains("bt0"), "{links}");
    let slots = sh(
        machine,
        "busctl --system call org.banger.Helper /org/banger/Helper org.banger.Helper ListAll",
    );
    assert_eq!(slots.await, "a(qub) 0");
}

#[tokio::test]
async fn a_command_in_a_vm_of_system_mode_needs_no_prompt() {
    let Some(machine) = installed().await else {
        return;
    };
    let run = alice(
        &machine,
        &["vm", "run", "--image", "bare", "--rm", "--", "uname", "-a"],
    )
    .await
    .ok();
    assert!(run.text().contains("Linux"), "{run}");
    nothing_is_left(&machine).await;
    let run = alice(
        &machine,
        &[
            "vm",
            "run",
            "--image",
            "bare",
            "--rm",
            "--no-network",
            "--",
            "sh",
            "-c",
            "exit 7",
        ],
    );
    assert_eq!(run.await.status, 7);
    nothing_is_left(&machine).await;
    let status = alice(&machine, &["daemon", "status"]).await.ok().text();
    assert!(status.contains("system"), "{status}");
}

#[tokio::test]
async fn a_vm_outlives_its_daemon_and_the_helper() {
    let Some(machine) = installed().await else {
        return;
    };
    // Not everybody's to read: a slot's user needs a right of his own.
    sh(
        &machine,
        "chmod 600 /home/alice/.local/share/banger/kernels/*/vmlinux",
    )
    .await;
    alice(&machine, &["vm", "create", "--image", "bare", "web"])
        .await
        .ok();
    let before = show(&machine, "web").await;
    assert_eq!(before["ssh_port"], 1022);
    assert_eq!(before["address"], "10.119.0.16");
    assert_eq!(before["unit"], "banger-vm-0.scope");

    // Both die at once.
    sh(
        &machine,
        "pkill -KILL -x bangerd; systemctl kill --signal=KILL banger-helper || true",
    )
    .await;
    let began = Instant::now();
    let after = show(&machine, "web").await;
    let found = began.elapsed();
    println!("found again after {found:?}");
    assert_eq!(
        (&after["pid"], &after["state"]),
        (&before["pid"], &before["state"])
    );
    assert!(found < FOUND_AGAIN, "after {found:?}");
    let said = alice(&machine, &["vm", "exec", "web", "--", "echo", "still", "here"])
        .await
        .ok();
    assert_eq!(said.text(), "still here");

    // Its slot's user may read the kernel as long as it runs.
    let rights = slots_rights(&machine).await;
    assert!(rights.contains("user:1879015424:r"), "{rights}");

    // Its console is kept when its slot is given back.
    alice(&machine, &["vm", "stop", "web"]).await.ok();
    let log = alice(&machine, &["vm", "logs", "web"]).await.ok().text();
    assert!(
        log.contains("banger-guest on Linux") && log.contains("Power down"),
        "{log}"
    );
    nothing_is_left(&machine).await;

    alice(&machine, &["vm", "start", "web"]).await.ok();
    alice(&machine, &["vm", "kill", "web"]).await.ok();
    nothing_is_left(&machine).await;

    // A stop by systemd asks the guest, and is over when its VMM has ended. What follows is done
    // by its daemon, for which the deletion waits.
    alice(&machine, &["vm", "start", "web"]).await.ok();
    sh(&machine, "systemctl stop banger-vm-0.scope").await;
    let journal = sh(
        &machine,
        "journalctl --no-pager -o cat _UID=1879015424 | tail -n 1",
    )
    .await;
    assert!(journal.contains("Power down"), "{journal}");
    alice(&machine, &["vm", "delete", "--force", "web"]).await.ok();
    nothing_is_left(&machine).await;
    let rights = slots_rights(&machine).await;
    assert_eq!(rights, "", "a right of a slot stays");
}

/// The entries of access lists below alice's home that name a slot's user.
async fn slots_rights(machine: &Machine) -> String {
    let script = r#"lists=$(getfacl --recursive --numeric --absolute-names --physical /home/alice)
        grep '^user:18790' <<<"$lists" || true"#;
    sh(machine, script).await
}

#[tokio::test]
async fn without_the_helper_there_is_user_mode() {
    let Some(machine) = installed().await else {
        return;
    };
    let doctor = machine.run_in_session(ALICE, &[BANGER, "doctor"]).await;
    println!("{doctor}");
    let mut uninstall = machine.root(machine.build().join("banger"));
    finished(uninstall.args(["system", "uninstall"]), LIMIT)
        .await
        .ok();
    let run = [
        machine.build().join("banger").display().to_string(),
        "vm".into(),
        "run".into(),
        "--image".into(),
        "bare".into(),
        "--rm".into(),
        "--".into(),
        "true".into(),
    ];
    let words: Vec<&str> = run.iter().map(String::as_str).collect();
    let run = machine.run_in_session(ALICE, &words).await;
    println!("{run}");
    run.ok();
}
