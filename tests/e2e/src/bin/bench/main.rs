//! `make bench`: every figure of docs/performance.md with its other side, in one run.
#![allow(clippy::print_stdout, reason = "the table is the program's output")]
#![allow(clippy::print_stderr, reason = "each round is told while the next one runs")]

mod pull;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use banger_e2e::{Content, DEBIAN, Rig, finished};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(300);
const ROUNDS: usize = 5;

struct Row {
    what: String,
    ours: String,
    other: String,
    ratio: String,
    target: &'static str,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Some(rig) = Rig::new(Content::Debian).await else {
        return;
    };
    machine();
    // The first run makes what every later one shares: archives in the cache, files in memory.
    let only_pull = std::env::args().nth(1).is_some_and(|word| word == "pull");
    let mut rows = Vec::new();
    if !only_pull {
        run_once(&rig).await;
        rows.extend([
            run(&rig).await,
            ready(&rig).await,
            exec(&rig).await,
            host_work(&rig).await,
            memory(&rig).await,
        ]);
    }
    drop(rig);
    rows.extend(pull::rows(std::env::args().nth(2).as_deref()).await);
    println!("| what | banger | the other side | ratio | target |\n|---|---|---|---|---|");
    for row in rows {
        println!(
            "| {} | {} | {} | {} | {} |",
            row.what, row.ours, row.other, row.ratio, row.target
        );
    }
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
        "{cpus} × {}, Linux {}, image {DEBIAN}, median of {ROUNDS}\n",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim()
    );
}

async fn run_once(rig: &Rig) -> Duration {
    let start = Instant::now();
    finished(&mut rig.new_vm("run", DEBIAN, &["--rm", "--", "true"]), LIMIT)
        .await
        .ok();
    start.elapsed()
}

async fn run(rig: &Rig) -> Row {
    let bare = Bare::of(rig).await;
    let (mut ours, mut other) = (Vec::new(), Vec::new());
    // In turns, so that a slow minute of the machine meets both.
    for _ in 0..ROUNDS {
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
    finished(&mut rig.new_vm("create", DEBIAN, &["sshd"]), LIMIT)
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
    finished(&mut rig.new_vm("create", DEBIAN, &["exec"]), LIMIT)
        .await
        .ok();
    // The image's services are up, and no longer in the way.
    let script = "busctl --watch-bind=true status >/dev/null; systemctl is-system-running --wait";
    rig.banger(["vm", "exec", "exec", "--", "sh", "-c", script]).await;
    let mut ours = Vec::new();
    for _ in 0..4 * ROUNDS {
        let start = Instant::now();
        rig.banger(["vm", "exec", "exec", "--", "true"]).await.ok();
        ours.push(start.elapsed());
    }
    rig.banger(["vm", "delete", "-f", "exec"]).await.ok();

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
    for _ in 0..2 * ROUNDS {
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
    for _ in 0..ROUNDS {
        let start = Instant::now();
        finished(&mut rig.new_vm("create", DEBIAN, &["--no-start", "w"]), LIMIT)
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
    let ours = median(&ours);
    Row {
        what: "host's work of create + start + delete, three calls of the CLI included".to_owned(),
        ours: milliseconds(ours),
        other: String::new(),
        ratio: String::new(),
        target: "≤ 40 ms",
    }
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
    Row {
        what: "memory of bangerd at rest (resident)".to_owned(),
        ours: format!("{:.1} MiB", kib.unwrap_or(f64::NAN) / 1024.0),
        other: String::new(),
        ratio: String::new(),
        target: "≤ 20 MiB",
    }
}

/// The command line of a VM as somebody would write it by hand: the same options, with files
/// where banger passes descriptors.
struct Bare {
    dir: PathBuf,
    arguments: Vec<String>,
    image: PathBuf,
}

impl Bare {
    async fn of(rig: &Rig) -> Self {
        finished(&mut rig.new_vm("create", DEBIAN, &["model"]), LIMIT)
            .await
            .ok();
        let vm = rig.show("model").await;
        let proc = PathBuf::from(format!("/proc/{}", vm["pid"]));
        let dir = rig.dir().join("bare");
        fs::create_dir_all(&dir).expect("the rig is writable");
        let text = fs::read_to_string(proc.join("cmdline")).expect("the VMM runs");
        let words: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
        let descriptor = |option: &str| {
            let at = words
                .iter()
                .position(|word| *word == option)
                .expect("the option is there");
            proc.join("fd")
                .join(words[at + 1].trim_start_matches("/proc/self/fd/"))
        };
        fs::copy(descriptor("-kernel"), dir.join("kernel")).expect("the kernel can be copied");
        fs::copy(descriptor("-initrd"), dir.join("initrd")).expect("the initramfs can be copied");
        let image = rig.banger(["image", "show", "--json", DEBIAN]).await.ok().json();
        let image = image.get(0).unwrap_or(&image)["rootfs"]
            .as_str()
            .expect("it has a file")
            .into();
        rig.banger(["vm", "delete", "-f", "model"]).await.ok();
        Self {
            arguments: rewritten(&words, &dir),
            dir,
            image,
        }
    }

    /// Boots to the ready message: how long that took, and the guest's own time of it.
    async fn boot(&self) -> (Duration, Duration) {
        self.make_disk().await;
        let start = Instant::now();
        let (mut child, line) = self.ready(&self.arguments).await;
        let took = start.elapsed();
        let message: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
        child.kill().await.expect("QEMU can be ended");
        let uptime = message["uptime_ms"].as_u64().unwrap_or(0);
        (took, Duration::from_millis(uptime))
    }

    /// Boots with a port for the agent and one for the image's own sshd.
    async fn with_sshd(&self) -> (Child, u16, u16) {
        self.make_disk().await;
        let free = || std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        // Both at once, so that they differ.
        let [agent, sshd] = [free(), free()].map(|free| free.local_addr().expect("it has one").port());
        let forwarded = "hostfwd=tcp:127.0.0.1:0-10.0.2.15:";
        let both =
            format!("hostfwd=tcp:127.0.0.1:{sshd}-10.0.2.15:22,hostfwd=tcp:127.0.0.1:{agent}-10.0.2.15:");
        let arguments: Vec<String> = self
            .arguments
            .iter()
            .map(|word| word.replace(forwarded, &both))
            .collect();
        assert_ne!(arguments, self.arguments, "QEMU forwards a port");
        let (child, _) = self.ready(&arguments).await;
        (child, agent, sshd)
    }

    async fn make_disk(&self) {
        let mut cp = Command::new("cp");
        cp.args(["--reflink=auto", "--sparse=always"])
            .arg(&self.image)
            .arg(self.dir.join("disk"));
        finished(&mut cp, LIMIT).await.ok();
    }

    /// Starts QEMU and waits for the guest's ready message.
    async fn ready(&self, arguments: &[String]) -> (Child, String) {
        let control = self.dir.join("control");
        _ = fs::remove_file(&control);
        let listener = UnixListener::bind(&control).expect("a socket can be made");
        let mut qemu = Command::new(&arguments[0]);
        qemu.args(&arguments[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let child = qemu.kill_on_drop(true).spawn().expect("QEMU can be started");
        let told = timeout(LIMIT, async {
            let (stream, _) = listener.accept().await?;
            let mut lines = BufReader::new(stream).lines();
            while let Some(line) = lines.next_line().await? {
                if line.contains("\"ready\"") {
                    return Ok(line);
                }
            }
            Err(std::io::ErrorKind::UnexpectedEof.into())
        });
        let line: std::io::Result<String> = told.await.expect("the guest becomes ready in time");
        (child, line.expect("the guest says ready"))
    }
}

fn rewritten(words: &[&str], dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut result = vec![words[0].to_owned()];
    let mut pairs = words[1..].iter().peekable();
    while let Some(word) = pairs.next() {
        let value = pairs.next_if(|next| !next.starts_with('-'));
        match (*word, value) {
            ("-add-fd" | "-mon", _) => continue,
            (_, Some(value)) if value.starts_with("socket,id=monitor") => continue,
            (option, Some(value)) => {
                let value = match option {
                    "-kernel" => file("kernel"),
                    "-initrd" => file("initrd"),
                    _ if value.starts_with("socket,id=control") => {
                        format!("socket,id=control,path={}", file("control"))
                    }
                    _ => value.replace("/dev/fdset/1", &file("disk")),
                };
                result.extend([option.to_owned(), value]);
            }
            (flag, None) => result.push(flag.to_owned()),
        }
    }
    result
}

impl Row {
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

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}
