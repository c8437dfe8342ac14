//! An ext4 file as e2fsprogs see it: neither ours nor the kernel's reading of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use tree_listing::Listing;

use crate::rig::{Out, finished};

const LIMIT: Duration = Duration::from_secs(120);
/// Inodes that ext4 keeps for itself, and `lost+found`.
const OWN_INODES: usize = 11;

/// Fails unless e2fsck finds nothing to repair and debugfs sees this tree.
///
/// # Panics
/// With what is not so.
pub async fn assert_sound(image: &Path, wanted: &Listing) {
    run("e2fsck", &["-f", "-n"], image).await.ok();
    let seen = stats(image, wanted).await;
    let mut wrong = Vec::new();
    for (path, fields) in wanted.iter().filter(|(path, _)| speakable(path)) {
        let Some(stat) = seen.get(path) else {
            wrong.push(format!("{path} is not there"));
            continue;
        };
        for (key, value) in stat {
            let wanted = wanted_of(fields, key);
            let known = matches!(key.as_str(), "links" | "xattrs") || fields.contains_key(key);
            if known && wanted != *value {
                wrong.push(format!("{path}: {key} is {value}, not {wanted}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}: debugfs: {:#?}",
        image.display(),
        &wrong[..wrong.len().min(40)]
    );
    assert_eq!(
        inodes(image).await,
        distinct(wanted),
        "inodes in use in {}",
        image.display()
    );
    contents(image, wanted).await;
}

/// Hashes of what debugfs writes to files.
async fn contents(image: &Path, wanted: &Listing) {
    let dir = tempfile::Builder::new()
        .prefix("bng-rdump-")
        .tempdir_in(crate::rig::temporary())
        .expect("a temporary directory can be made");
    let request = format!("rdump / {}", dir.path().display());
    run("debugfs", &["-R", &request], image).await.ok();
    let found = tree_listing::list(dir.path()).expect("root can read everything");
    for (path, fields) in wanted {
        for key in ["sha256", "target"] {
            let seen = found.get(path).and_then(|fields| fields.get(key));
            assert_eq!(seen, fields.get(key), "{key} of {path} in {}", image.display());
        }
    }
}

/// The value that a listing's fields stand for, in the words of [`stat_of`].
fn wanted_of(fields: &BTreeMap<String, String>, key: &str) -> String {
    match key {
        "links" => {
            let links = fields.get("links").and_then(|links| links.split(' ').next());
            links.unwrap_or("1").to_owned()
        }
        "xattrs" => {
            let pairs = fields
                .iter()
                .filter_map(|(key, value)| Some((key.strip_prefix("xattr:")?, value)));
            let names: BTreeSet<_> = pairs
                .map(|(name, value)| format!("{name} ({})", value.len() / 2))
                .collect();
            names.into_iter().collect::<Vec<_>>().join(" ")
        }
        _ => fields.get(key).cloned().unwrap_or_default(),
    }
}

/// What `stat` of debugfs says of each path.
async fn stats(image: &Path, wanted: &Listing) -> Listing {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let script = dir.path().join("commands");
    let mut commands = Vec::new();
    let paths: Vec<_> = wanted.keys().filter(|path| speakable(path)).collect();
    for path in &paths {
        commands.extend_from_slice(b"stat \"/");
        commands.extend_from_slice(&unescaped(path));
        commands.extend_from_slice(b"\"\n");
    }
    fs::write(&script, commands).expect("the directory is writable");
    let out = run("debugfs", &["-f", &script.display().to_string()], image)
        .await
        .ok();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // Each command is repeated before its answer.
    let answers = text.split("debugfs: stat ").skip(1);
    paths
        .iter()
        .zip(answers)
        .filter_map(|(path, answer)| Some(((*path).clone(), stat_of(answer)?)))
        .collect()
}

/// The fields of a listing in an answer of `stat`, with the number of links and the names and
/// lengths of attributes in forms of their own.
fn stat_of(answer: &str) -> Option<BTreeMap<String, String>> {
    let word = |key: &str| {
        let rest = answer.split_once(key)?.1.trim_start();
        rest.split_whitespace().next().map(str::to_owned)
    };
    let mut found = BTreeMap::new();
    let kind = answer.split_once("Type: ")?.1;
    let kind = [
        "regular",
        "directory",
        "symlink",
        "character special",
        "block special",
        "FIFO",
    ]
    .into_iter()
    .zip(["file", "directory", "link", "character", "block", "fifo"])
    .find(|(theirs, _)| kind.starts_with(theirs))?
    .1;
    found.insert("type".to_owned(), kind.to_owned());
    // It has one digit more where a special bit is set.
    let mode = u32::from_str_radix(&word("Mode:")?, 8).ok()?;
    found.insert("mode".to_owned(), format!("{mode:04o}"));
    // It writes them as if they had a sign.
    let owner = |word: &str| Some(word.parse::<i64>().ok()?.rem_euclid(1 << 32).to_string());
    found.insert("uid".to_owned(), owner(&word("User:")?)?);
    found.insert("gid".to_owned(), owner(&word("Group:")?)?);
    found.insert("mtime".to_owned(), time(&word(" mtime:")?)?);
    if kind == "file" {
        let sizes = answer.split_once("Project:")?.1;
        let size = sizes.split_once("Size:")?.1.split_whitespace().next()?;
        found.insert("size".to_owned(), size.to_owned());
    }
    if kind != "directory" {
        found.insert("links".to_owned(), word("Links:")?);
    }
    if let Some(device) = word("Device major/minor number:") {
        let (major, minor) = device.split_once(':')?;
        let number = |text: &str| text.parse::<u32>().ok();
        found.insert(
            "device".to_owned(),
            format!("{}:{}", number(major)?, number(minor)?),
        );
    }
    let mut names = BTreeSet::new();
    for line in answer
        .split_once("Extended attributes:")
        .map_or("", |(_, rest)| rest)
        .lines()
        .skip(1)
    {
        let Some(line) = line.strip_prefix("  ") else {
            break;
        };
        // A long value is left out.
        names.insert(line.split(" = ").next().unwrap_or(line).to_owned());
    }
    found.insert(
        "xattrs".to_owned(),
        names.into_iter().collect::<Vec<_>>().join(" "),
    );
    Some(found)
}

/// `0xSECONDS:EXTRA`, where EXTRA has two bits of the seconds and thirty of nanoseconds.
fn time(word: &str) -> Option<String> {
    let (seconds, extra) = word.strip_prefix("0x")?.split_once(':')?;
    let seconds = u32::from_str_radix(seconds, 16).ok()?.cast_signed();
    let extra = u32::from_str_radix(extra, 16).ok()?;
    let seconds = i64::from(seconds) + (i64::from(extra & 3) << 32);
    Some(format!("{seconds}.{:09}", extra >> 2))
}

/// Inodes in use, without ext4's own.
async fn inodes(image: &Path) -> usize {
    let out = run("dumpe2fs", &["-h"], image).await.ok();
    let text = out.text();
    let number = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .unwrap_or_else(|| panic!("no {key} in {out}"))
    };
    number("Inode count:") - number("Free inodes:") - OWN_INODES
}

/// The files of a tree without its root, hard links once.
fn distinct(listing: &Listing) -> usize {
    let mut groups = BTreeSet::new();
    let mut counted = |fields: &BTreeMap<String, String>| match fields.get("links") {
        Some(group) => groups.insert(group.clone()),
        None => true,
    };
    listing.values().filter(|fields| counted(fields)).count() - 1
}

/// Whether a path can be written in a line of debugfs's commands.
fn speakable(path: &str) -> bool {
    !path.contains("\\x0a") && !path.contains('"') && path.len() < 2000
}

fn unescaped(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = path;
    while let Some((plain, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(plain.as_bytes());
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(b'?'));
        rest = after.get(2..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

async fn run(program: &str, arguments: &[&str], image: &Path) -> Out {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args(arguments)
        .arg(image)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    finished(&mut command, LIMIT).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_more_bits_than_thirty_two() {
        assert_eq!(time("0x00000005:00000001").unwrap(), "4294967301.000000000");
        assert_eq!(time("0xfffeae7f:00000000").unwrap(), "-86401.000000000");
        assert_eq!(time("0x6553f100:1d6f3454").unwrap(), "1700000000.123456789");
        assert_eq!(unescaped("a\\x5cb\\xffc"), b"a\\b\xffc");
    }

    #[tokio::test]
    async fn e2fsprogs_agree_with_what_they_made_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a b/c\\d")).unwrap();
        fs::write(root.join("a b/file"), "content").unwrap();
        fs::hard_link(root.join("a b/file"), root.join("twin")).unwrap();
        std::os::unix::fs::symlink("no/where", root.join("link")).unwrap();
        let mut wanted = tree_listing::list(&root).unwrap();
        let image = dir.path().join("ext4");
        crate::mke2fs(&root, &image, "8M").unwrap();
        // This mke2fs drops fractions of seconds, and its root has the time of its making.
        for fields in wanted.values_mut() {
            let mtime = fields.get_mut("mtime").unwrap();
            *mtime = format!("{}.000000000", mtime.split('.').next().unwrap());
        }
        wanted.get_mut(".").unwrap().remove("mtime");
        if rustix::process::geteuid().is_root() {
            assert_sound(&image, &wanted).await;
        }
    }
}
