//! What needs a whole machine: KVM that runs guests, limits that the kernel enforces, and a real
//! Firecracker, given by `FIRECRACKER_BIN`.

#![allow(clippy::print_stdout, reason = "what a reader of the log wants to see")]

use std::path::PathBuf;

use banger_e2e::Nested;

/// What a VM may leave nothing in: directories, sockets, scopes, taps, access lists, slots.
const AUDIT: &str = r#"
    find /home/alice/.local/state/banger/vms /run/user/4242/banger -mindepth 1 |
        grep -v 'bangerd.sock\|lock$' | sort
    systemctl list-units --all --no-legend 'banger-vm-*'
    ip netns exec banger ip -br link | grep -o '^bt[0-9]*' || true
    lists=$(getfacl -R -n -p -P /home/alice /run/user/4242/banger)
    grep '^user:18790' <<<"$lists" || true
    ls /var/lib/banger-helper/slots"#;

#[tokio::test]
async fn kvm_runs_guests_and_limits_hold() {
    let Some(mut machine) = Nested::boot().await else {
        return;
    };
    // Limits of scopes at all: this kernel has the controllers.
    let eaten = machine
        .sh("systemd-run --quiet --scope -p MemoryMax=32M -p MemorySwapMax=0 tail /dev/zero")
        .await;
    assert_eq!(eaten.status, 137, "{eaten}");
    let shares = machine.sh(CPU_WEIGHTS).await.ok();
    println!(
        "CPU time by weight 100 and 900, in microseconds: {}",
        shares.text()
    );
    let used: Vec<f64> = shares
        .text()
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    assert!(used[1] > 3.0 * used[0], "{used:?}");

    machine.install().await;
    // The VMM's own right to /dev/kvm counts: alice has none.
    let made = "vm create --image bare --memory 256M --vcpu 1 --disk-size 1G --engine qemu web";
    machine.alice(made).await.ok();
    let shown = machine.alice("vm show web").await.ok().text();
    println!("{shown}");
    assert!(has(&shown, "accelerator", "kvm"), "{shown}");
    let limits = machine
        .sh("cd /sys/fs/cgroup/banger.slice/banger-4242.slice/banger-vm-0.scope && cat memory.max pids.max cpu.weight")
        .await
        .ok();
    println!("memory.max, pids.max, cpu.weight: {}", limits.text());
    assert!(!limits.text().contains("max"), "{limits}");

    // A VMM that needs more than its scope may have is ended, and its owner is told.
    machine
        .sh("systemctl set-property --runtime banger-vm-0.scope MemoryMax=64M MemorySwapMax=0")
        .await
        .ok();
    machine.alice("vm exec web -- tail /dev/zero").await;
    let events = machine.sh("journalctl -b -k --no-pager | grep -c oom-kill").await;
    assert_ne!(events.text().trim(), "0", "{events}");
    let list = machine.alice("vm list -a").await.ok().text();
    println!("{list}");
    assert!(list.contains("stopped"), "{list}");
    machine.alice("vm delete web").await.ok();
    machine.end().await;
}

/// Two loops on one processor, each in a scope, for eight seconds.
const CPU_WEIGHTS: &str = r"
    for weight in 100 900; do
        systemd-run --quiet --scope --unit=weight$weight -p CPUWeight=$weight \
            taskset -c 0 sh -c 'while :; do :; done' &
    done
    sleep 8
    for weight in 100 900; do
        sed -n 's/^usage_usec //p' /sys/fs/cgroup/system.slice/weight$weight.scope/cpu.stat
    done
    systemctl kill --signal=KILL weight100.scope weight900.scope";

#[tokio::test]
async fn a_real_firecracker() {
    let Some(binary) = std::env::var_os("FIRECRACKER_BIN").map(PathBuf::from) else {
        println!("skipped: no firecracker (give its path in FIRECRACKER_BIN)");
        return;
    };
    let Some(mut machine) = Nested::boot().await else {
        return;
    };
    machine.install().await;
    let wanted = "vm create --image bare --memory 256M --vcpu 1 --disk-size 1G";
    let missing = machine
        .alice(&format!("{wanted} --engine firecracker none"))
        .await;
    assert!(
        missing.status != 0 && missing.stderr.contains("banger engine install firecracker"),
        "{missing}"
    );

    machine.put(&binary, "/usr/local/lib/banger/firecracker").await;
    let before = machine.sh(AUDIT).await.text();
    // Chosen by itself, now that it is there.
    machine.alice(&format!("{wanted} web")).await.ok();
    let shown = machine.alice("vm show web").await.ok().text();
    println!("{shown}");
    assert!(has(&shown, "engine", "firecracker"), "{shown}");
    assert!(has(&shown, "accelerator", "kvm"), "{shown}");
    let status = machine
        .sh("pid=$(pgrep -x firecracker); grep -E '^(Uid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/$pid/status; ls -l /proc/$pid/fd | grep -o '/.*' | sort -u")
        .await
        .ok()
        .text();
    println!("{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(status.contains("Uid:\t1879015424"), "{status}");

    let said = machine
        .alice("vm exec web -- sh -c 'uname -n; echo words >&2; exit 7'")
        .await
        .exits(7);
    assert_eq!((said.text().trim(), said.stderr.trim()), ("web", "words"));
    let log = machine.alice("vm logs web").await.ok().text();
    assert!(log.contains("web starts banger-guest"), "{log}");

    // Whichever daemon comes next finds the guest again, halted or not.
    for _ in 0..2 {
        machine.sh("pkill -KILL -u alice -x bangerd").await.ok();
        machine.alice("vm pause web").await.ok();
        machine.sh("pkill -KILL -u alice -x bangerd").await.ok();
        machine.alice("vm resume web").await.ok();
        machine.alice("vm exec web -- true").await.ok();
    }
    let began = std::time::Instant::now();
    machine.alice("vm stop web").await.ok();
    println!("stopped in {:?}", began.elapsed());
    let shown = machine.alice("vm show web").await.ok().text();
    assert!(has(&shown, "state", "stopped"), "{shown}");

    machine.alice("vm start web").await.ok();
    delete(&mut machine, "web").await;

    let cycles: u32 = std::env::var("BANGER_TEST_CYCLES").map_or(2, |n| n.parse().unwrap());
    let began = std::time::Instant::now();
    for index in 0..cycles {
        machine.alice(&format!("{wanted} --quiet c{index}")).await.ok();
        machine.alice(&format!("vm exec c{index} -- true")).await.ok();
        delete(&mut machine, &format!("c{index}")).await;
    }
    println!("{cycles} cycles in {:?}", began.elapsed());
    assert_eq!(machine.sh(AUDIT).await.text(), before);
    machine.end().await;
}

/// Here polkit may be slower than the two seconds that it has; what was refused for that can be
/// done again.
async fn delete(machine: &mut Nested, name: &str) {
    let command = format!("vm delete --force {name}");
    let mut out = machine.alice(&command).await;
    for _ in 0..3 {
        if !out.stderr.contains("polkit does not answer in time") {
            break;
        }
        out = machine.alice(&command).await;
    }
    out.ok();
}

/// Whether a table of names and values has this line.
fn has(table: &str, name: &str, value: &str) -> bool {
    table
        .lines()
        .any(|line| line.split_whitespace().eq([name, value]))
}
