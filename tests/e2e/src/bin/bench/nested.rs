//! The same figures under a KVM that works, in a machine of its own; and those of system mode.

use std::path::PathBuf;
use std::time::Duration;

use banger_e2e::{Content, DEBIAN, Nested};
use serde_json::Value;

use super::{DISK, ROWS, Row, rounds};

/// Runs this program in the machine for each of its rows: each is one script within the rig's limit.
/// Then system mode, where there is a Firecracker: once it is on, there is no user mode. None where the machine cannot be had.
pub(super) async fn run() {
    let Some(mut machine) = Nested::boot_with(Content::Debian).await else {
        return;
    };
    let own = std::env::current_exe().expect("a program knows itself");
    machine.put(&own, "/opt/banger/bench").await;
    println!("User mode, in the nested machine:\n");
    super::head();
    for row in ROWS {
        let script = format!(
            "export BANGER_BIN_DIR=/opt/banger BANGER_TEST_STORE=/mnt/store BANGER_BENCH_ROUNDS={}
             exec /opt/banger/bench {row}",
            rounds()
        );
        let out = machine.sh(&script).await;
        let text = out.text();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("| "))
            .skip(1)
            .collect();
        if out.status == 0 {
            println!("{}", lines.join("\n"));
        } else {
            println!("no figure of {row}: {out}");
        }
    }
    match std::env::var_os("FIRECRACKER_BIN").map(PathBuf::from) {
        Some(binary) => {
            machine.install().await;
            machine.put(&binary, "/usr/local/lib/banger/firecracker").await;
            system(&mut machine).await;
        }
        None => println!("skipped: no firecracker (give its path in FIRECRACKER_BIN)"),
    }
    machine.end().await;
}

async fn system(machine: &mut Nested) {
    let options =
        format!("--quiet --disk-size {DISK} --image {DEBIAN} --vcpu 1 --memory 512M --engine firecracker");
    let run = format!("vm run {options} --rm -- true");
    // The first run makes what every later one shares.
    machine.alice(&run).await.ok();
    let (mut runs, mut execs, mut work) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds() {
        runs.push(timed(machine, &run).await);
    }
    for _ in 0..rounds() {
        let made = timed(machine, &format!("vm create {options} --no-start w")).await;
        let up = made + timed(machine, "vm start --quiet w").await;
        let shown = machine.alice("vm show --json w").await.ok().json();
        execs.push(timed(machine, "vm exec w -- true").await);
        let guest = guest_time(&shown[0]);
        let down = timed(machine, "vm delete --force --quiet w").await;
        work.push((up + down).saturating_sub(guest));
    }
    let rss = machine
        .sh("sed -n 's/^VmRSS:[ \\t]*\\([0-9]*\\) kB/\\1/p' /proc/$(pgrep -o -u alice -x bangerd)/status")
        .await
        .ok();
    let kib: f64 = rss.text().trim().parse().unwrap_or(f64::NAN);
    println!("\nSystem mode with Firecracker, in the nested machine:\n");
    super::head();
    println!("{}", Row::alone("`vm run --rm -- true`", &runs, ""));
    println!("{}", Row::alone("`vm exec NAME -- true`", &execs, ""));
    let what = "host's work of create + start + delete, three calls of the CLI included";
    println!("{}", Row::alone(what, &work, "≤ 40 ms"));
    println!("{}", Row::memory(kib));
}

/// Between the VMM's start and the guest's word that it is ready.
fn guest_time(vm: &Value) -> Duration {
    let time = |key: &str| vm[key].as_u64().unwrap_or(0);
    Duration::from_micros(time("ready_us").saturating_sub(time("started_us")))
}

/// One call of `banger`, by the machine's own clock.
async fn timed(machine: &mut Nested, words: &str) -> Duration {
    let script = format!(
        "start=$(date +%s%N); {} >&2; echo $(( $(date +%s%N) - start ))",
        Nested::as_alice(words)
    );
    let out = machine.sh(&format!("set -e; {script}")).await.ok();
    Duration::from_nanos(out.text().trim().parse().expect("a number"))
}
