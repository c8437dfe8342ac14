//! The guest's `.git`, made here as a whole: the guest needs no git to receive it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::index;
use crate::manifest::Manifest;
use crate::overlay::Overlay;
use crate::read;
use crate::refs::{is_branch, is_object};
use crate::scratch;

/// Of `info/exclude` and `info/attributes`.
const INFO_LIMIT: usize = 1 << 20;
const VALUE_LIMIT: usize = 1000;
const DIRECTORIES: [&str; 8] = [
    "",
    "info",
    "objects",
    "objects/info",
    "objects/pack",
    "refs",
    "refs/heads",
    "refs/tags",
];

/// What of it is to be sent, as paths below the workspace.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) directories: Vec<PathBuf>,
    /// Objects: they go first, what names them last.
    pub(crate) packs: Vec<PathBuf>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) remove: Vec<PathBuf>,
    /// References that the guest must not have made itself.
    pub(crate) new_refs: Vec<PathBuf>,
    pub(crate) git_files: BTreeMap<String, String>,
    pub(crate) shallow: Vec<String>,
}

/// Makes below `root` what the guest does not have yet.
pub(crate) fn make(overlay: &Overlay, root: &Path, previous: Option<&Manifest>) -> Result<Made> {
    let git = root.join(".git");
    let mut made = Made::default();
    for name in DIRECTORIES {
        let path = git.join(name);
        fs::create_dir_all(&path).map_err(Error::io("make", path))?;
        if previous.is_none() {
            made.directories
                .push(Path::new(".git").join(name).components().collect());
        }
    }
    made.shallow = pack(overlay, &git.join("objects/pack"), previous)?;
    let packs = fs::read_dir(git.join("objects/pack")).map_err(Error::io("list", &git))?;
    for entry in packs {
        let name = entry.map_err(Error::io("list", &git))?.file_name();
        made.packs.push(Path::new(".git/objects/pack").join(name));
    }
    // A pack before its index: by the index git finds it.
    made.packs
        .sort_by_key(|path| (path.extension() == Some("idx".as_ref()), path.clone()));
    let files = small_files(overlay, &made.shallow)?;
    for (name, bytes) in &files {
        let digest = digest(bytes);
        let known = previous.and_then(|previous| previous.git_files.get(name));
        if known != Some(&digest) {
            write(&git.join(name), bytes)?;
            let path = Path::new(".git").join(name);
            if known.is_none() && previous.is_some() && name.starts_with("refs/") {
                made.new_refs.push(path.clone());
            }
            made.files.push(path);
        }
        made.git_files.insert(name.clone(), digest);
    }
    // What names everything else comes last.
    made.files
        .sort_by_key(|path| (path.ends_with("HEAD"), path.clone()));
    keep_time(overlay, &git)?;
    if let Some(previous) = previous {
        let gone = previous
            .git_files
            .keys()
            .filter(|name| !files.contains_key(*name));
        made.remove = gone.map(|name| Path::new(".git").join(name)).collect();
    }
    Ok(made)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
    }
    fs::write(path, bytes).map_err(Error::io("write", path))
}

/// By the index's time git knows which files may have changed after it was written.
fn keep_time(overlay: &Overlay, git: &Path) -> Result<()> {
    let path = git.join("index");
    if !path.exists() {
        return Ok(());
    }
    let from = overlay.scratch.path().join("index");
    let time = fs::metadata(&from).and_then(|metadata| metadata.modified());
    index::set_time(&path, time.unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Writes the pack of what the guest lacks. Returns where its history ends.
fn pack(overlay: &Overlay, dir: &Path, previous: Option<&Manifest>) -> Result<Vec<String>> {
    let mut known = known_commits(overlay, previous)?;
    known.extend(known_objects(overlay, previous)?);
    // With its parents the commit can be shown whole, and a merge says what was merged. A clone
    // without old blobs may not have them.
    for depth in [Depth::Parents, Depth::Commit] {
        let ends = ends(overlay, &depth, previous)?;
        overlay
            .scratch
            .set_shallow(&[&ends[..], &overlay.scratch.shallow].concat())?;
        let input = wanted(overlay, previous, &known);
        if input.is_empty() {
            return Ok(ends);
        }
        let done = overlay
            .scratch
            .command(["pack-objects", "--revs", "--window=0", "--compression=1", "-q"])
            // It is read once and thrown away.
            .config("core.fsync=none")
            .config("pack.writeReverseIndex=false")
            .config("pack.writeBitmaps=false")
            .arg(dir.join("pack"))
            .input(input.into_bytes())
            .status()?;
        if done.code == Some(0) {
            drop_empty(dir)?;
            return Ok(ends);
        }
        if depth == Depth::Commit {
            return Err(overlay.damaged(&done.stderr));
        }
    }
    Ok(Vec::new())
}

#[derive(PartialEq, Eq)]
enum Depth {
    Parents,
    Commit,
}

fn ends(overlay: &Overlay, depth: &Depth, previous: Option<&Manifest>) -> Result<Vec<String>> {
    let commit = &overlay.head.commit;
    let mut ends: BTreeSet<String> = overlay.state.commits.iter().cloned().collect();
    match depth {
        Depth::Commit => _ = ends.insert(commit.clone()),
        Depth::Parents => {
            overlay.scratch.set_shallow(&overlay.scratch.shallow)?;
            let line = overlay
                .scratch
                .command(["rev-list", "--parents", "--max-count=1", commit])
                .run()?;
            let line = String::from_utf8_lossy(&line);
            let parents = line.split_whitespace().skip(1).filter(|name| is_object(name));
            ends.extend(parents.map(str::to_owned));
            if overlay.scratch.shallow.contains(commit) {
                ends.insert(commit.clone());
            }
        }
    }
    let kept = previous.iter().flat_map(|previous| &previous.shallow);
    ends.extend(kept.filter(|end| *end != commit).cloned());
    Ok(ends.into_iter().collect())
}

/// Commits that the guest has and that are here still.
fn known_commits(overlay: &Overlay, previous: Option<&Manifest>) -> Result<Vec<String>> {
    // Of a commit where its history ended so far, the guest lacks the parents.
    let previous = previous.filter(|previous| !previous.shallow.contains(&overlay.head.commit));
    let Some(head) = previous.and_then(|previous| previous.head.as_ref()) else {
        return Ok(Vec::new());
    };
    let commit = format!("{}^{{commit}}", head.commit);
    let done = overlay.scratch.command(["cat-file", "-e", &commit]).status()?;
    Ok(if done.code == Some(0) {
        vec![head.commit.clone()]
    } else {
        Vec::new()
    })
}

/// Objects beyond commits that the guest has and that are here still, as what was staged the last
/// time and may be committed by now.
fn known_objects(overlay: &Overlay, previous: Option<&Manifest>) -> Result<Vec<String>> {
    let objects = previous.map(|previous| &previous.objects[..]).unwrap_or_default();
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let lines = overlay
        .scratch
        .command(["cat-file", "--batch-check=%(objectname) %(objecttype)"])
        .input((objects.join("\n") + "\n").into_bytes())
        .run()?;
    let lines = String::from_utf8_lossy(&lines);
    // The rest are commits, whose history the guest does not have, or are gone.
    let blobs = lines.lines().filter_map(|line| line.strip_suffix(" blob"));
    Ok(blobs.filter(|name| is_object(name)).map(str::to_owned).collect())
}

/// What `pack-objects --revs` is told; empty when the guest has everything.
fn wanted(overlay: &Overlay, previous: Option<&Manifest>, known: &[String]) -> String {
    let mut lines = String::new();
    let has = |object: &String| {
        known.contains(object) || previous.is_some_and(|previous| previous.objects.contains(object))
    };
    let commits = std::iter::once(&overlay.head.commit).chain(&overlay.state.commits);
    for object in commits.chain(&overlay.objects).filter(|object| !has(object)) {
        _ = writeln!(lines, "{object}");
    }
    if !lines.is_empty() {
        for object in known {
            _ = writeln!(lines, "^{object}");
        }
    }
    lines
}

/// git may write a pack of nothing.
fn drop_empty(dir: &Path) -> Result<()> {
    /// A head, no object, and a digest of SHA-256.
    const EMPTY: u64 = 12 + 32;
    let failed = |e| Error::io("list", dir)(e);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension() == Some("pack".as_ref()) && fs::metadata(&path).map_err(failed)?.len() <= EMPTY {
            for extension in ["idx", "pack"] {
                fs::remove_file(path.with_extension(extension)).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Everything but objects, by names below `.git`.
fn small_files(overlay: &Overlay, shallow: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut add = |name: &str, bytes: Vec<u8>| _ = files.insert(name.to_owned(), bytes);
    let head = &overlay.head;
    let upstream = upstream(overlay)?;
    match &head.branch {
        Some(branch) => {
            add("HEAD", format!("ref: refs/heads/{branch}\n").into_bytes());
            add(
                &format!("refs/heads/{branch}"),
                format!("{}\n", head.commit).into_bytes(),
            );
        }
        None => {
            add("HEAD", format!("{}\n", head.commit).into_bytes());
            add("logs/HEAD", detached_log(&head.commit).into_bytes());
        }
    }
    if let Some(upstream) = &upstream {
        add(
            &format!("refs/remotes/origin/{upstream}"),
            format!("{}\n", head.commit).into_bytes(),
        );
    }
    add("config", config(overlay, upstream.as_deref())?.into_bytes());
    if !shallow.is_empty() {
        add("shallow", (shallow.join("\n") + "\n").into_bytes());
    }
    for (name, bytes) in &overlay.state.files {
        add(name, bytes.clone());
    }
    for name in ["info/exclude", "info/attributes"] {
        if let Some(bytes) = read::own(overlay.repository.common_dir(), name, INFO_LIMIT)? {
            add(name, bytes);
        }
    }
    if let Some(bytes) = overlay.index()? {
        add("index", bytes);
    }
    Ok(files)
}

/// From it `git status` knows where HEAD was detached.
fn detached_log(commit: &str) -> String {
    let nothing = "0".repeat(commit.len());
    format!("{nothing} {commit} banger <banger@localhost> 1 +0000\tcheckout: moving from - to {commit}\n")
}

/// The branch of `origin` that HEAD's own follows, when both are at the same commit: how far
/// they are apart otherwise, a shallow history cannot tell.
fn upstream(overlay: &Overlay) -> Result<Option<String>> {
    let Some(branch) = &overlay.head.branch else {
        return Ok(None);
    };
    let config = &overlay.repository.config;
    if config.get(&format!("branch.{branch}.remote")) != Some("origin") || origin(config).is_none() {
        return Ok(None);
    }
    let merge = config.get(&format!("branch.{branch}.merge"));
    let Some(name) = merge
        .and_then(|merge| merge.strip_prefix("refs/heads/"))
        .filter(|n| is_branch(n))
    else {
        return Ok(None);
    };
    let at = overlay
        .repository
        .resolve(&format!("refs/remotes/origin/{name}"))?;
    Ok((at.as_ref() == Some(&overlay.head.commit)).then(|| name.to_owned()))
}

/// A configuration of our own, with values of the repository's that change how files are
/// compared, each one of a few.
fn config(overlay: &Overlay, upstream: Option<&str>) -> Result<String> {
    let own = &overlay.repository.config;
    let mut text = scratch::config(overlay.repository.object_format());
    // The index has the host's stat data: sizes and times are the guest's too, the rest is not.
    text.push_str("\tlogallrefupdates = true\n\tcheckStat = minimal\n\ttrustctime = false\n");
    let filemode = own.flag("core.filemode").unwrap_or(true);
    _ = writeln!(text, "\tfilemode = {filemode}");
    if own.flag("core.symlinks") == Some(false) {
        text.push_str("\tsymlinks = false\n");
    }
    for (key, values) in [
        ("autocrlf", &["true", "false", "input"][..]),
        ("eol", &["lf", "crlf", "native"]),
        ("safecrlf", &["true", "false", "warn"]),
        ("quotepath", &["true", "false"]),
    ] {
        let key_of = format!("core.{key}");
        let value = own.get(&key_of).or_else(|| overlay.owner.get(&key_of));
        let value = value.map(str::to_ascii_lowercase);
        if let Some(value) = value.filter(|value| values.contains(&value.as_str())) {
            _ = writeln!(text, "\t{key} = {value}");
        }
    }
    // Short names are as long as here, where there are more objects.
    let short = overlay
        .scratch
        .command(["rev-parse", "--short", &overlay.head.commit])
        .run()?;
    _ = writeln!(text, "\tabbrev = {}", short.trim_ascii().len().clamp(7, 40));
    user(&mut text, &overlay.owner);
    if let Some(url) = origin(own) {
        _ = write!(
            text,
            "[remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
            quoted(&url)
        );
    }
    if let (Some(branch), Some(upstream)) = (&overlay.head.branch, upstream) {
        _ = write!(
            text,
            "[branch {}]\n\tremote = origin\n\tmerge = {}\n",
            quoted(branch),
            quoted(&format!("refs/heads/{upstream}"))
        );
    }
    Ok(text)
}

fn user(text: &mut String, owner: &Config) {
    let values = ["name", "email"].map(|key| (key, owner.get(&format!("user.{key}"))));
    if values.iter().any(|(_, value)| value.is_some()) {
        text.push_str("[user]\n");
    }
    for (key, value) in values {
        if let Some(value) = value.filter(|value| value.len() <= VALUE_LIMIT) {
            _ = writeln!(text, "\t{key} = {}", quoted(value));
        }
    }
}

/// Where `origin` is, when a guest could reach it, without anybody's password.
fn origin(config: &Config) -> Option<String> {
    let url = config.get("remote.origin.url")?;
    if url.len() > VALUE_LIMIT || url.chars().any(char::is_control) {
        return None;
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        // `[user@]host:path`, and neither a path nor a helper's `name::address`.
        let (host, path) = url.split_once(':')?;
        let plain =
            !host.is_empty() && !host.contains('/') && !host.starts_with('-') && !path.starts_with(':');
        return plain.then(|| url.to_owned());
    };
    if !matches!(scheme, "http" | "https" | "ssh" | "git") {
        return None;
    }
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let name = user.split(':').next().unwrap_or_default();
    if host.starts_with('-') || host.is_empty() {
        return None;
    }
    Some(if scheme == "ssh" && !name.is_empty() {
        format!("{scheme}://{name}@{host}{path}")
    } else {
        format!("{scheme}://{host}{path}")
    })
}

/// A value, or the middle of a section's name, for git-config(1).
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_loses_its_passwords_and_helpers_are_none() {
        let of = |url: &str| origin(&Config::of_entries(&[("remote.origin.url", url)]));
        let same = |url: &str| assert_eq!(of(url).as_deref(), Some(url));
        same("https://example.org/a.git");
        same("git@example.org:a/b.git");
        same("ssh://git@example.org:22/a");
        assert_eq!(
            of("https://u:p@example.org/a").as_deref(),
            Some("https://example.org/a")
        );
        assert_eq!(
            of("https://token@example.org/a@b").as_deref(),
            Some("https://example.org/a@b")
        );
        assert_eq!(
            of("ssh://u:p@example.org/a").as_deref(),
            Some("ssh://u@example.org/a")
        );
        for bad in [
            "ext::sh -c touch",
            "/srv/a.git",
            "file:///a",
            "-oProxyCommand=x:y",
            "ssh://-x/a",
            "https://a\nb",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn values_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"b\\c\n[alias]"), "\"a\\\"b\\\\c[alias]\"");
    }
}
