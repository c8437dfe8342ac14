//! A repository and single files into a guest, against tar(1) and scp(1) over OpenSSH to the same
//! guest's agent; and the questions about a guest that runs.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_e2e::{Content, DEBIAN, Rig, finished};
use tokio::process::Command;

use super::{Row, milliseconds, rounds};

/// Half a gigabyte through an emulated guest's cipher takes minutes.
const LIMIT: Duration = Duration::from_secs(3000);
const FILES: usize = 50_000;
const FILE_BYTES: usize = 10_000;
const PER_DIRECTORY: usize = 100;
const COPY_BYTES: usize = 1 << 30;
const CHANGED: usize = 10;
/// A part of everything, to try the bench itself: `bench workspace small`.
const SMALL: usize = 50;

/// The rows; none where a program is missing, which was said.
pub(super) async fn rows(small: bool) -> Vec<Row> {
    for program in ["git", "ssh", "scp", "tar"] {
        if !banger_e2e::has_program(program) {
            println!("skipped: no {program} here");
            return Vec::new();
        }
    }
    let Some(rig) = Rig::new(Content::Debian).await else {
        return Vec::new();
    };
    let part = if small { SMALL } else { 1 };
    let create = ["--disk-size", "8G", "w"];
    finished(&mut rig.new_vm("create", DEBIAN, &create), LIMIT)
        .await
        .ok();
    settle(&rig).await;
    let mut rows = vec![question(&rig, "ports").await, question(&rig, "stats").await];
    rows.extend(repository(&rig, FILES / part).await);
    for (what, random) in [("random data", true), ("text", false)] {
        rows.push(copy(&rig, what, random, COPY_BYTES / part).await);
    }
    rows
}

/// The image's services are up, and no longer in the way.
async fn settle(rig: &Rig) {
    let script = "busctl --watch-bind=true status >/dev/null; systemctl is-system-running --wait";
    rig.banger(["vm", "exec", "w", "--", "sh", "-c", script]).await;
}

async fn question(rig: &Rig, verb: &str) -> Row {
    let mut times = Vec::new();
    for _ in 0..4 * rounds() + 1 {
        let start = Instant::now();
        rig.banger(["vm", verb, "w"]).await.ok();
        times.push(start.elapsed());
    }
    // The first look asks every socket what it speaks.
    let first = times.remove(0);
    let what = format!(
        "`vm {verb}` of a guest that runs (the first time {})",
        milliseconds(first)
    );
    Row::alone(&what, &times, "≤ 50 ms")
}

async fn repository(rig: &Rig, files: usize) -> [Row; 2] {
    let repository = rig.dir().join("repository");
    make(rig, &repository, files).await;
    let prepare = || {
        let mut command = rig.command(["vm", "workspace", "prepare", "--quiet", "w"]);
        command.arg(&repository);
        command
    };
    let start = Instant::now();
    finished(&mut prepare(), LIMIT).await.ok();
    let first = start.elapsed();
    for index in 0..CHANGED {
        let path = repository.join(name(index * files / CHANGED));
        let mut file = fs::File::options().append(true).open(path).expect("it was made");
        writeln!(file, "one more line").expect("the rig is writable");
    }
    let start = Instant::now();
    finished(&mut prepare(), LIMIT).await.ok();
    let second = start.elapsed();

    let script = r#"cd "$1"; shift; tar -c . | "$@" 'mkdir other && tar -x -C other'"#;
    let mut tar = rig.program("bash");
    tar.args(["-euo", "pipefail", "-c", script, "bash"])
        .arg(&repository)
        .arg("ssh");
    rig.reach("w", &mut tar, "-p").await;
    tar.arg("root@127.0.0.1");
    let start = Instant::now();
    finished(&mut tar, LIMIT).await.ok();
    let other = start.elapsed();
    rig.banger(["vm", "exec", "w", "--", "rm", "-rf", "/root/other", "/root/repo"])
        .await
        .ok();
    let megabytes = files * FILE_BYTES / 1_000_000;
    let what =
        format!("repository of {files} files, {megabytes} MB into a guest, against `tar -c | ssh tar -x`");
    let again = format!("the same again with {CHANGED} changed files, against the first time");
    [
        Row::of(&what, &[first], &[other], "≤ 1.0×"),
        Row::of(&again, &[second], &[first], "≤ 0.1×"),
    ]
}

async fn copy(rig: &Rig, what: &str, random: bool, bytes: usize) -> Row {
    let file = rig.dir().join("file");
    let mut words = Words(9);
    let content = if random {
        words.noise(bytes)
    } else {
        words.text(bytes)
    };
    fs::write(&file, content).expect("the rig is writable");
    let (mut ours, mut other) = (Vec::new(), Vec::new());
    for _ in 0..rounds().min(3) {
        let mut cp = rig.command(["vm", "cp", "--quiet"]);
        cp.arg(&file).arg("w:/root/ours");
        ours.push(timed(&mut cp).await);
        let mut scp = rig.program("scp");
        scp.arg("-q");
        rig.reach("w", &mut scp, "-P").await;
        scp.arg(&file).arg("root@127.0.0.1:/root/other");
        other.push(timed(&mut scp).await);
        rig.banger(["vm", "exec", "w", "--", "rm", "/root/ours", "/root/other"])
            .await
            .ok();
    }
    let what = format!("`vm cp` of {} MiB of {what}, against `scp`", bytes >> 20);
    Row::of(&what, &ours, &other, "≤ 1.0×")
}

async fn timed(command: &mut Command) -> Duration {
    let start = Instant::now();
    finished(command, LIMIT).await.ok();
    start.elapsed()
}

/// The same files on every machine, committed and packed.
async fn make(rig: &Rig, repository: &Path, files: usize) {
    let mut words = Words(7);
    for index in 0..files {
        let path = repository.join(name(index));
        fs::create_dir_all(path.parent().expect("it has a directory")).expect("the rig is writable");
        fs::write(path, words.text(FILE_BYTES)).expect("the rig is writable");
    }
    let script =
        "git init -q && git add -A && git -c user.name=b -c user.email=b@b commit -qm all && git repack -adq";
    let mut git = rig.program("sh");
    git.args(["-euc", script]).current_dir(repository);
    finished(&mut git, LIMIT).await.ok();
}

fn name(index: usize) -> String {
    format!("part{}/module{index}.txt", index / PER_DIRECTORY)
}

/// Pseudo-random (xorshift64), so that all machines send the same.
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn noise(&mut self, bytes: usize) -> Vec<u8> {
        let mut noise: Vec<u8> = (0..bytes.div_ceil(8))
            .flat_map(|_| self.next().to_le_bytes())
            .collect();
        noise.truncate(bytes);
        noise
    }

    /// Lines of words as a program has them: few of them often, names in between.
    fn text(&mut self, bytes: usize) -> Vec<u8> {
        const COMMON: [&str; 16] = [
            "let ", "return ", "self.", "if ", "(", ") ", "{ ", "} ", "= ", "for ", "in ", "value", "index",
            ", ", "result ", "&",
        ];
        let mut text = Vec::with_capacity(bytes + 64);
        while text.len() < bytes {
            let choice = self.next();
            match choice % 8 {
                0 => text.extend_from_slice(b"\n        "),
                1 | 2 => text.extend_from_slice(format!("name_{:03x} ", (choice >> 8) & 0xfff).as_bytes()),
                _ => text.extend_from_slice(COMMON[(choice >> 8) as usize % COMMON.len()].as_bytes()),
            }
        }
        text.truncate(bytes);
        text
    }
}
