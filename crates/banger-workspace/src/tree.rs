//! The tree of a commit as files, for a workspace that begins at another commit than HEAD. Nothing
//! is checked out: the bytes are written as they are, below a new directory.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::index::{self, Entry};
use crate::refs::is_object;
use crate::repository::Repository;
use crate::scratch::Scratch;

/// A symbolic link's target, at most.
const TARGET_LIMIT: usize = 4096;
/// Of `object type size`.
const HEADER_LIMIT: usize = 200;

/// The commit that a name of the owner's stands for.
pub(crate) fn resolve(scratch: &Scratch, name: &str) -> Result<String> {
    let unknown = || Error::NoSuchCommit(name.chars().take(200).collect());
    if name.is_empty() || name.contains(['\0', '\n']) {
        return Err(unknown());
    }
    let commit = format!("{name}^{{commit}}");
    let done = scratch
        .command(["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])
        .status()?;
    let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    if done.code == Some(0) && is_object(&text) {
        Ok(text)
    } else {
        Err(unknown())
    }
}

/// Writes the files of a commit below `root`, which is made, and an index that knows them.
pub(crate) fn extract(
    repository: &Repository,
    scratch: &Scratch,
    commit: &str,
    root: &Path,
) -> Result<Vec<Entry>> {
    scratch.command(["read-tree", commit]).run()?;
    let entries = index::entries(repository, scratch)?;
    let time = commit_time(scratch, commit)?;
    fs::create_dir(root).map_err(Error::io("make", root))?;
    for entry in &entries {
        let parent = root.join(&entry.path);
        let parent = parent.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
    }
    // Links last: then no file is written over one.
    let (links, files): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.symlink);
    write_all(scratch, root, &files, time)?;
    write_all(scratch, root, &links, time)?;
    scratch
        .command(["update-index", "-q", "--refresh"])
        .env("GIT_WORK_TREE", root)
        .within(root)
        .run()?;
    Ok(entries)
}

fn commit_time(scratch: &Scratch, commit: &str) -> Result<SystemTime> {
    let said = scratch
        .command(["rev-list", "--format=%ct", "--max-count=1", commit])
        .run()?;
    let text = String::from_utf8_lossy(&said);
    let seconds = text.lines().last().and_then(|line| line.trim().parse().ok());
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds.unwrap_or_default()));
    Ok(time.unwrap_or(UNIX_EPOCH).min(SystemTime::now()))
}

fn write_all(scratch: &Scratch, root: &Path, entries: &[&Entry], time: SystemTime) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let wanted: String = entries
        .iter()
        .map(|entry| format!("{}\n", entry.object))
        .collect();
    let mut writer = Writer {
        root,
        time,
        entries: entries.iter().copied().collect(),
        header: Vec::new(),
        open: None,
    };
    scratch
        .command(["cat-file", "--batch"])
        .input(wanted.into_bytes())
        .stream(&mut |piece| writer.take(piece))?;
    if writer.entries.is_empty() && writer.open.is_none() {
        Ok(())
    } else {
        Err(writer.missing())
    }
}

/// Takes what `git cat-file --batch` writes: for each object `name type size`, the bytes, and
/// an end of line.
struct Writer<'a> {
    root: &'a Path,
    time: SystemTime,
    entries: VecDeque<&'a Entry>,
    header: Vec<u8>,
    open: Option<Open>,
}

struct Open {
    path: PathBuf,
    target: Target,
    /// Bytes to come, without the end of line.
    left: u64,
}

enum Target {
    File(File),
    Link(Vec<u8>),
}

impl Writer<'_> {
    fn take(&mut self, mut piece: &[u8]) -> Result<()> {
        while let Some(&first) = piece.first() {
            let Some(open) = &mut self.open else {
                piece = &piece[1..];
                if first == b'\n' {
                    self.begin()?;
                } else if self.header.len() < HEADER_LIMIT {
                    self.header.push(first);
                } else {
                    return Err(self.missing());
                }
                continue;
            };
            if open.left == 0 {
                // The end of line after the bytes.
                piece = &piece[1..];
                self.finish()?;
                continue;
            }
            let length = usize::try_from(open.left).unwrap_or(usize::MAX).min(piece.len());
            open.write(&piece[..length])?;
            piece = &piece[length..];
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let header = std::mem::take(&mut self.header);
        let text = String::from_utf8_lossy(&header).into_owned();
        let Some(entry) = self.entries.front() else {
            return Err(self.missing());
        };
        let size = match text.split(' ').collect::<Vec<_>>()[..] {
            [_, "blob", size] => size.parse::<u64>().ok(),
            _ => None,
        };
        let size = size.ok_or_else(|| self.missing())?;
        let path = self.root.join(&entry.path);
        let target = if entry.symlink {
            Target::Link(Vec::new())
        } else {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path)
                .map_err(Error::io("make", &path))?;
            let mode = if entry.executable { 0o755 } else { 0o644 };
            file.set_permissions(fs::Permissions::from_mode(mode))
                .map_err(Error::io("make", &path))?;
            Target::File(file)
        };
        self.entries.pop_front();
        self.open = Some(Open {
            path,
            target,
            left: size,
        });
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        match open.target {
            Target::File(file) => file.set_modified(self.time),
            Target::Link(target) => link(&open.path, &target, self.time),
        }
        .map_err(Error::io("write", open.path))
    }

    fn missing(&self) -> Error {
        let path = self.entries.front().map(|entry| entry.path.clone());
        Error::Damaged {
            path: path.unwrap_or_default(),
            what: "its contents cannot be read".to_owned(),
        }
    }
}

impl Open {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.left -= bytes.len() as u64;
        match &mut self.target {
            Target::File(file) => file.write_all(bytes).map_err(Error::io("write", &self.path)),
            Target::Link(target) if target.len() + bytes.len() < TARGET_LIMIT => {
                target.extend_from_slice(bytes);
                Ok(())
            }
            Target::Link(_) => Err(Error::Damaged {
                path: self.path.clone(),
                what: "a link's target is too long".to_owned(),
            }),
        }
    }
}

fn link(path: &Path, target: &[u8], time: SystemTime) -> std::io::Result<()> {
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path)?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let stamp = rustix::fs::Timespec {
        tv_sec: i64::try_from(since.as_secs()).unwrap_or_default(),
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: stamp,
        last_modification: stamp,
    };
    Ok(rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )?)
}
