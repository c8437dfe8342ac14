//! A VMM of system mode on a real systemd: whose it is, where it lives, what it can and what it
//! has open; its end, and its log after that.

#![allow(clippy::print_stdout, reason = "what a reader of the log wants to see")]

use std::path::PathBuf;
use std::time::Duration;

use banger_e2e::{ALICE, Machine, Out, finished};

const LIMIT: Duration = Duration::from_secs(240);
/// The first slot's uid: nobody else has one.
const SLOT_0: &str = "1879015424";

/// A VMM by its pid inside the machine.
struct Vmm<'a> {
    machine: &'a Machine,
    pid: String,
}

impl Vmm<'_> {
    async fn sh(&self, script: &str) -> String {
        let script = script.replace("PID", &self.pid);
        self.machine.sh(&script).await.ok().text().trim().to_owned()
    }

    async fn status(&self, field: &str) -> String {
        let text = self.sh(&format!("grep -w '^{field}:' /proc/PID/status")).await;
        let words: Vec<&str> = text.split_ascii_whitespace().skip(1).collect();
        words.join(" ")
    }
}

async fn alice(machine: &Machine, words: &[&str]) -> Out {
    let banger = "/usr/local/bin/banger";
    let words: Vec<&str> = std::iter::once(banger).chain(words.iter().copied()).collect();
    machine.run_in_session(ALICE, &words).await
}

#[tokio::test]
async fn a_vmm_is_nobody_with_nothing() {
    let Some(machine) = Machine::boot_for_system_mode().await else {
        return;
    };
    let build: PathBuf = machine.build();
    let mut install = machine.root(build.join("banger"));
    finished(install.args(["system", "install"]), LIMIT).await.ok();
    // Without a prompt: she sits at the machine.
    let made = alice(&machine, &["vm", "create", "--image", "bare", "web"]).await;
    made.ok();

    let unit = "banger-vm-0.scope";
    let look = format!("systemctl show {unit}; systemctl status --no-pager {unit} || true");
    let show = machine.sh(&look).await.ok().text();
    for expected in [
        "Description=banger VM web",
        "Slice=banger-4242.slice",
        "CollectMode=inactive-or-failed",
        "TasksMax=512",
        "CPUWeight=100",
        "DevicePolicy=closed",
        "ActiveState=active",
    ] {
        assert!(show.lines().any(|line| line == expected), "{expected}");
    }
    assert!(
        !show.contains("Controller=\n") && show.contains("Controller=:"),
        "its owner's daemon"
    );

    let look = format!("cat /sys/fs/cgroup$(systemctl show -P ControlGroup {unit})/cgroup.procs");
    let pid = machine.sh(&look).await.ok().text().trim().to_owned();
    assert!(pid.parse::<u32>().is_ok(), "one process, not {pid:?}");
    let vmm = Vmm {
        machine: &machine,
        pid,
    };
    let ids = format!("{SLOT_0} {SLOT_0} {SLOT_0} {SLOT_0}");
    let none = "0000000000000000";
    for (field, expected) in [
        ("Uid", &*ids),
        ("Gid", &*ids),
        ("CapInh", none),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapAmb", none),
        ("CapBnd", none),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = vmm.status(field).await;
        println!("{field}: {found}");
        assert_eq!(found, expected, "{field}");
    }
    // Its own filter, ours, and those of the helper's unit.
    println!("Seccomp_filters: {}", vmm.status("Seccomp_filters").await);
    println!("Groups: {:?}", vmm.status("Groups").await);
    let environment = vmm.sh("tr '\\0' ' ' < /proc/PID/environ").await;
    assert_eq!(environment, "LC_ALL=C.UTF-8 PATH=/usr/bin:/bin");
    assert_eq!(vmm.sh("cat /proc/PID/oom_score_adj").await, "200");
    let limits = vmm.sh("cat /proc/PID/limits").await;
    println!("{limits}");
    for (limit, value) in [("core file size", "0"), ("open files", "4096")] {
        let line = limits.lines().find(|line| line.contains(limit)).expect("a limit");
        assert!(line.split_ascii_whitespace().any(|word| word == value), "{line}");
    }
    // What it has open: the machine's parts, and what QEMU makes for itself.
    let open = vmm
        .sh("ls -l /proc/PID/fd | sed '1d; s/.* -> //' | sort | uniq -c")
        .await;
    println!("{open}");
    let known = [
        "/dev/null",
        "/dev/net/tun",
        "/vmlinux",
        "/root.ext4",
        "/vmm.log",
        "/memfd:banger-initramfs (deleted)",
        "anon_inode:[eventfd]",
        "anon_inode:[eventpoll]",
        "anon_inode:[signalfd]",
    ];
    for line in open.lines() {
        let is_known = line.contains("socket:[") || known.iter().any(|end| line.ends_with(end));
        assert!(is_known, "{line}");
    }
    let sockets = open.lines().filter(|line| line.contains("socket:[")).count();
    // Console, control and monitor, and a connection of each of the latter.
    assert!(sockets <= 5, "{open}");

    // Its own network, that of the helper; mounts that the helper has.
    for (namespace, of_host) in [("net", false), ("mnt", false), ("pid", true), ("user", true)] {
        let own = vmm.sh(&format!("readlink /proc/PID/ns/{namespace}")).await;
        let host = machine
            .sh(&format!("readlink /proc/1/ns/{namespace}"))
            .await
            .ok()
            .text();
        println!("{namespace}: {own}, the host's {}", host.trim());
        assert_eq!(own == host.trim(), of_host, "{namespace}");
    }
    let network =
        vmm.sh("nsenter -t PID -n ip -brief link; stat -Lc %i /run/netns/banger; readlink /proc/PID/ns/net");
    let network = network.await;
    println!("{network}");
    assert!(network.contains("bt0") && network.contains("public"), "{network}");

    let said = alice(&machine, &["vm", "exec", "web", "--", "uname", "-a"])
        .await
        .ok()
        .text();
    assert!(said.contains("Linux"), "{said}");
    let before = alice(&machine, &["vm", "logs", "web"]).await.ok().text();
    println!("the log: {before}");
    assert!(before.contains("web starts banger-guest"), "{before}");
    println!(
        "{}",
        machine
            .sh("journalctl --no-pager -u banger | tail -20")
            .await
            .ok()
            .text()
    );
    println!(
        "{}",
        machine
            .sh(&format!("journalctl --no-pager -u {unit} | tail -20"))
            .await
            .ok()
            .text()
    );

    alice(&machine, &["vm", "stop", "web"]).await.ok();
    let gone = machine
        .sh(&format!("systemctl is-active {unit} || true"))
        .await
        .ok()
        .text();
    assert_eq!(gone.trim(), "inactive");
    let after = alice(&machine, &["vm", "logs", "web"]).await.ok().text();
    println!("the log after its end: {after}");
    assert!(after.starts_with(&before), "{after}");
    alice(&machine, &["vm", "delete", "--force", "web"]).await.ok();
    let taps = machine
        .sh("nsenter --net=/run/netns/banger ip -brief link")
        .await
        .ok()
        .text();
    assert!(!taps.contains("bt0"), "{taps}");
}
