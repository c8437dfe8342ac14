//! Pulling from a registry on the loopback, against skopeo, umoci and mke2fs one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use banger_e2e::registry::Registry;
use banger_e2e::{Content, Rig, finished, samples};
use tokio::process::Command;

use super::{LIMIT, Row, median, rounds};

/// How often the daemon and its workers are looked at. What is read is a high-water mark.
const LOOK: Duration = Duration::from_millis(5);

/// The rows of both images, or of the one that is asked for; none where the registry cannot be
/// had, which was said.
pub(super) async fn rows(only: Option<&str>) -> Vec<Row> {
    let Some(registry) = Registry::start() else {
        return Vec::new();
    };
    let layout = match samples::bench().await {
        Ok(layout) => layout,
        Err(why) => {
            println!("skipped: {why}");
            return Vec::new();
        }
    };
    let mut rows = Vec::new();
    for tag in ["small", "large"] {
        if only.is_some_and(|only| only != tag) {
            continue;
        }
        registry.push(&layout, tag, &format!("bench/{tag}:1")).await;
        let image = sizes(&layout, tag);
        let times = measure(&registry.reference(&format!("bench/{tag}:1"))).await;
        let what =
            format!("pull of {image} to a bootable ext4, against `skopeo copy`, `umoci unpack`, `mke2fs -d`");
        rows.push(Row::of(&what, &times.first, &times.chain, "≤ 0.33×"));
        let what = format!("the same {image} from cached layers, against the same");
        rows.push(Row::of(&what, &times.cached, &times.chain, "≤ 0.15×"));
        rows.push(Row {
            what: format!("peak memory of the daemon and its workers, {image}"),
            ours: format!("{:.0} MiB", times.memory as f64 / 1024.0),
            other: String::new(),
            ratio: String::new(),
            target: "≤ 256 MiB",
        });
    }
    rows
}

/// `105 MB in 1 layer`: compressed, as the registry has it.
fn sizes(layout: &Path, tag: &str) -> String {
    let json = |path: PathBuf| -> serde_json::Value {
        let text = fs::read(&path).expect("the layout was written");
        serde_json::from_slice(&text).expect("it is JSON")
    };
    let index = json(layout.join("index.json"));
    let of = |value: &&serde_json::Value| value["annotations"]["org.opencontainers.image.ref.name"] == tag;
    let found = index["manifests"].as_array().and_then(|all| all.iter().find(of));
    let digest = found
        .and_then(|found| found["digest"].as_str())
        .expect("the tag is there");
    let manifest = json(layout.join("blobs").join(digest.replace(':', "/")));
    let layers = manifest["layers"].as_array().expect("it has layers");
    let bytes: u64 = layers.iter().filter_map(|layer| layer["size"].as_u64()).sum();
    let plural = if layers.len() == 1 { "" } else { "s" };
    format!(
        "{} MB in {} layer{plural}",
        (bytes + 500_000) / 1_000_000,
        layers.len()
    )
}

struct Times {
    first: Vec<Duration>,
    cached: Vec<Duration>,
    chain: Vec<Duration>,
    /// In KiB, the largest of all rounds.
    memory: u64,
}

async fn measure(reference: &str) -> Times {
    let mut times = Times {
        first: Vec::new(),
        cached: Vec::new(),
        chain: Vec::new(),
        memory: 0,
    };
    for round in 0..rounds() {
        let rig = Rig::for_rung("registry", Content::Bare)
            .await
            .expect("it was there before");
        // The daemon is up on neither side's time.
        rig.banger(["image", "list"]).await.ok();
        let watch = Watch::start(&rig);
        times.first.push(pull(&rig, reference).await);
        times.memory = times.memory.max(watch.end());
        rig.banger(["image", "delete", reference]).await.ok();
        times.cached.push(pull(&rig, reference).await);
        drop(rig);
        times.chain.push(chain(reference).await);
        let last = |times: &[Duration]| times.last().map_or(0.0, Duration::as_secs_f64);
        eprintln!(
            "{reference} round {round}: {:.2} s, cached {:.2} s, chain {:.2} s, {} KiB",
            last(&times.first),
            last(&times.cached),
            last(&times.chain),
            times.memory
        );
    }
    eprintln!(
        "{reference}: medians {:?} {:?} {:?}",
        median(&times.first),
        median(&times.cached),
        median(&times.chain)
    );
    times
}

async fn pull(rig: &Rig, reference: &str) -> Duration {
    let mut command = rig.command(["image", "pull", "--quiet", "--insecure", reference]);
    let start = Instant::now();
    finished(&mut command, LIMIT).await.ok();
    start.elapsed()
}

/// The usual tools, from the same registry to an ext4 file.
async fn chain(reference: &str) -> Duration {
    let dir = tempfile::Builder::new()
        .prefix("bng-chain-")
        .tempdir_in(
            std::env::var_os("BANGER_TEST_TMP").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from),
        )
        .expect("a temporary directory can be made");
    // As large as what is in it needs, and a fifth.
    let script = r#"
        skopeo --insecure-policy copy --quiet --src-tls-verify=false "docker://$1" oci:layout:image
        umoci unpack --image layout:image bundle >/dev/null 2>&1
        size=$(du -sk bundle/rootfs | cut -f 1)
        PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -d bundle/rootfs ext4 $((size * 6 / 5 + 65536))k"#;
    let mut shell = Command::new("sh");
    shell
        .args(["-euc", script, "sh", reference])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = Instant::now();
    finished(&mut shell, LIMIT).await.ok();
    start.elapsed()
}

/// Looks at the memory of a rig's daemon and of all that it starts.
struct Watch {
    ended: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Watch {
    fn start(rig: &Rig) -> Self {
        let daemon = rig.daemon_pid().expect("the daemon runs");
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut peaks = BTreeMap::new();
            while !end.load(Ordering::Acquire) {
                for pid in family(daemon) {
                    let peak = peaks.entry(pid).or_insert(0);
                    *peak = high_water(pid).max(*peak);
                }
                std::thread::sleep(LOOK);
            }
            peaks.values().sum()
        });
        Self { ended, thread }
    }

    /// The sum of the peaks of all of them, in KiB.
    fn end(self) -> u64 {
        self.ended.store(true, Ordering::Release);
        self.thread.join().expect("the thread runs")
    }
}

/// A process and its descendants.
fn family(pid: i32) -> Vec<i32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                text.split_whitespace()
                    .filter_map(|word| word.parse::<i32>().ok()),
            );
        }
        at += 1;
    }
    found
}

fn high_water(pid: i32) -> u64 {
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0)
}
