//! `make bench`: every figure of docs/performance.md with its other side, in one run.
#![allow(clippy::print_stdout, reason = "the table is the program's output")]
#![allow(clippy::print_stderr, reason = "each round is told while the next one runs")]

mod bare;
mod nested;
mod pull;
mod workspace;

use std::fs;
use std::time::{Duration, Instant};

use banger_e2e::{Content, DEBIAN, Rig, finished};

use bare::Bare;

/// Of each VM's disk: what the nested machine has room for.
pub(crate) const DISK: &str = "2G";
const LIMIT: Duration = Duration::from_secs(300);
/// Unless `BANGER_BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 5;
/// What can be measured alone, without a registry and without OpenSSH.
const ROWS: [&str; 5] = ["run", "ready", "exec", "host", "memory"];

struct Row {
    what: String,
    ours: String,
    other: String,
    ratio: String,
    target: &'static str,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| words.get(at).map(String::as_str);
    machine();
    let rows = match word(0) {
        Some("nested") => return nested::run().await,
        Some("pull") => pull::rows(word(1)).await,
        Some("workspace") => workspace::rows(word(1) == Some("small")).await,
        Some(row) if ROWS.contains(&row) => local(&[row]).await,
        Some(other) => {
            eprintln!(
                "usage: bench [{}|pull|workspace|nested], not {other}",
                ROWS.join("|")
            );
            std::process::exit(2);
        }
        None => {
            let mut rows = local(&ROWS).await;
            rows.extend(workspace::rows(false).await);
            rows.extend(pull::rows(None).await);
            rows
        }
    };
    head();
    for row in rows {
        println!("{row}");
    }
}

/// Rows of a user's own machine; none where the image cannot be had, which was said.
async fn local(names: &[&str]) -> Vec<Row> {
    let Some(rig) = Rig::new(Content::Debian).await else {
        return Vec::new();
    };
    // The first run makes what every later one shares: archives in the cache, files in memory.
    run_once(&rig).await;
    let mut rows = Vec::new();
    for name in names {
        rows.push(match *name {
            "run" => run(&rig).await,
            "ready" => ready(&rig).await,
            "exec" => exec(&rig).await,
            "host" => host_work(&rig).await,
            _ => memory(&rig).await,
        });
    }
    rows
}

fn rounds() -> usize {
    let given = std::env::var("BANGER_BENCH_ROUNDS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(ROUNDS).max(1)
}

fn head() {
    println!("| what | banger | the other side | ratio | target |\n|---|---|---|---|---|");
}

/// The machine's name for the table.
fn machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "{cpus} × {}, Linux {}, image {DEBIAN}, median of {}\n",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        rounds()
    );
}

async fn run_once(rig: &Rig) -> Duration {
    let start = Instant::now();
    finished(
        &mut rig.new_vm("run", DEBIAN, &["--disk-size", DISK, "--rm", "--", "true"]),
        LIMIT,
    )
    .await
    .ok();
    start.elapsed()
}

async fn run(rig: &Rig) -> Row {
    let bare = Bare::of(rig).await;
    let (mut ours, mut other) = (Vec::new(), Vec::new());
    // In turns, so that a slow minute of the machine meets both.
    for _ in 0..rounds() {
        ours.push(run_once(rig).await);
        other.push(bare.boot().await.0);
    }
    Row::of(
        "`vm run --rm -- true`, against bare QEMU to the same ready message",
        &ours,
        &other,
        "≤ 1.10×",
    )
}

async fn ready(rig: &Rig) -> Row {
    let bare = Bare::of(rig).await;
    let (_, uptime) = bare.boot().await;
    finished(
        &mut rig.new_vm("create", DEBIAN, &["--disk-size", DISK, "sshd"]),
        LIMIT,
    )
    .await
    .ok();
    let script = "busctl --watch-bind=true status >/dev/null; systemctl is-system-running --wait >/dev/null; systemctl show ssh.service -P ActiveEnterTimestampMonotonic";
    let out = rig.banger(["vm", "exec", "sshd", "--", "sh", "-c", script]).await;
    let sshd = Duration::from_micros(out.text().trim().parse().unwrap_or(0));
    rig.banger(["vm", "delete", "-f", "sshd"]).await.ok();
    Row::of(
        "agent ready after the kernel's start, against the image's own sshd",
        &[uptime],
        &[sshd],
        "≤ 0.6×",
    )
}

async fn exec(rig: &Rig) -> Row {
    finished(
        &mut rig.new_vm("create", DEBIAN, &["--disk-size", DISK, "exec"]),
        LIMIT,
    )
    .await
    .ok();
    // The image's services are up, and no longer in the way.
    let script = "busctl --watch-bind=true status >/dev/null; systemctl is-system-running --wait";
    rig.banger(["vm", "exec", "exec", "--", "sh", "-c", script]).await;
    let mut ours = Vec::new();
    for _ in 0..4 * rounds() {
        let start = Instant::now();
        rig.banger(["vm", "exec", "exec", "--", "true"]).await.ok();
        ours.push(start.elapsed());
    }
    rig.banger(["vm", "delete", "-f", "exec"]).await.ok();

    if !banger_e2e::has_program("ssh") {
        return Row::alone(
            "`vm exec NAME -- true` (no OpenSSH here to compare with)",
            &ours,
            "≤ 0.2×",
        );
    }
    let bare = Bare::of(rig).await;
    let (mut guest, agent, sshd) = bare.with_sshd().await;
    let key = rig.dirs().ssh_key();
    let ssh = |port: u16, command: &str| {
        let mut ssh = rig.program("ssh");
        ssh.args(["-F", "none", "-l", "root", "-i"])
            .arg(&key)
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "LogLevel=ERROR"])
            .args(["-p", &port.to_string(), "127.0.0.1", command]);
        ssh
    };
    // The agent is up, and tells when sshd and the rest of the image are.
    finished(&mut ssh(agent, script), LIMIT).await;
    let mut other = Vec::new();
    for _ in 0..2 * rounds() {
        let start = Instant::now();
        finished(&mut ssh(sshd, "true"), LIMIT).await.ok();
        other.push(start.elapsed());
    }
    guest.kill().await.expect("QEMU can be ended");
    Row::of(
        "`vm exec NAME -- true`, against OpenSSH to the same image's sshd",
        &ours,
        &other,
        "≤ 0.2×",
    )
}

async fn host_work(rig: &Rig) -> Row {
    let mut ours = Vec::new();
    for _ in 0..rounds() {
        let start = Instant::now();
        finished(
            &mut rig.new_vm("create", DEBIAN, &["--disk-size", DISK, "--no-start", "w"]),
            LIMIT,
        )
        .await
        .ok();
        rig.banger(["vm", "start", "--quiet", "w"]).await.ok();
        let up = start.elapsed();
        let vm = rig.show("w").await;
        let guest = vm["ready_us"]
            .as_u64()
            .zip(vm["started_us"].as_u64())
            .map_or(0, |(ready, started)| ready - started);
        let start = Instant::now();
        rig.banger(["vm", "delete", "-f", "--quiet", "w"]).await.ok();
        ours.push((up + start.elapsed()).saturating_sub(Duration::from_micros(guest)));
    }
    let what = "host's work of create + start + delete, three calls of the CLI included";
    Row::alone(what, &ours, "≤ 40 ms")
}

async fn memory(rig: &Rig) -> Row {
    for pid in rig.pids("bangerd") {
        rig.kill(pid).await;
    }
    rig.banger(["vm", "list"]).await.ok();
    let pid = rig.daemon_pid().unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<f64>()
            .ok()
    });
    Row::memory(kib.unwrap_or(f64::NAN))
}

impl Row {
    /// A figure without another side.
    fn alone(what: &str, times: &[Duration], target: &'static str) -> Self {
        Self::with(what, milliseconds(median(times)), target)
    }

    fn memory(kib: f64) -> Self {
        let what = "memory of bangerd at rest (resident)";
        Self::with(what, format!("{:.1} MiB", kib / 1024.0), "≤ 20 MiB")
    }

    fn with(what: &str, ours: String, target: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            ours,
            other: String::new(),
            ratio: String::new(),
            target,
        }
    }

    fn of(what: &str, ours: &[Duration], other: &[Duration], target: &'static str) -> Self {
        let (ours, other) = (median(ours), median(other));
        Self {
            what: what.to_owned(),
            ours: milliseconds(ours),
            other: milliseconds(other),
            ratio: format!("{:.2}×", ours.as_secs_f64() / other.as_secs_f64()),
            target,
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            what,
            ours,
            other,
            ratio,
            target,
        } = self;
        write!(f, "| {what} | {ours} | {other} | {ratio} | {target} |")
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}
