//! The index of a repository: copied, brought into its plain form, listed.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::scratch::Scratch;

/// About five million files.
const INDEX_LIMIT: u64 = 1 << 30;
const ENTRIES: usize = 4_000_000;
const PATH_LIMIT: usize = 4096;
/// Shared parts of a split index that a repository may have lying about.
const SHARED_LIMIT: usize = 16;
const GITLINK: &str = "160000";

/// One line of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) symlink: bool,
    pub(crate) executable: bool,
    pub(crate) object: String,
    /// 0, or one side of a conflict.
    pub(crate) stage: u8,
}

/// Copies the repository's index into the scratch and writes it as a whole, without what only
/// this machine can use. `None` where the repository has none. Keeps the time: by it git knows
/// which entries it must look at again.
pub(crate) fn import(repository: &Repository, scratch: &Scratch) -> Result<Option<SystemTime>> {
    let from = repository.git_dir().join("index");
    let to = scratch.path().join("index");
    let Some(written) = copy(&from, &to)? else {
        return Ok(None);
    };
    let dir = fs::read_dir(repository.git_dir()).map_err(Error::io("list", repository.git_dir()))?;
    let shared = dir
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name.as_bytes().starts_with(b"sharedindex."));
    for name in shared.take(SHARED_LIMIT) {
        copy(&repository.git_dir().join(&name), &scratch.path().join(&name))?;
    }
    let damaged = |text: String| Error::Damaged {
        path: from.clone(),
        what: text,
    };
    let done = scratch
        .command([
            "update-index",
            "--no-split-index",
            "--no-untracked-cache",
            "--no-fsmonitor",
            "--force-write-index",
        ])
        .status()?;
    if done.code != Some(0) {
        return Err(damaged(done.stderr));
    }
    set_time(&to, written)?;
    Ok(Some(written))
}

pub(crate) fn set_time(path: &Path, time: SystemTime) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_modified(time))
        .map_err(Error::io("set the time of", path))
}

/// All entries of the scratch's index, in its order.
pub(crate) fn entries(repository: &Repository, scratch: &Scratch) -> Result<Vec<Entry>> {
    let listed = scratch.command(["ls-files", "--stage", "-z"]).run()?;
    let mut entries = Vec::new();
    for line in listed.split(|&b| b == 0).filter(|line| !line.is_empty()) {
        if entries.len() == ENTRIES {
            return Err(Error::TooMany {
                path: repository.work_tree().to_owned(),
                limit: ENTRIES,
                what: "files",
            });
        }
        entries.push(entry(repository, line)?);
    }
    Ok(entries)
}

/// `mode object stage\tpath`.
fn entry(repository: &Repository, line: &[u8]) -> Result<Entry> {
    let damaged = |what: &str| Error::Damaged {
        path: repository.git_dir().join("index"),
        what: what.to_owned(),
    };
    let tab = line.iter().position(|&b| b == b'\t');
    let (head, path) = line.split_at(tab.ok_or_else(|| damaged("a line has no path"))?);
    let path = Path::new(OsStr::from_bytes(&path[1..]));
    if !is_safe(path) {
        let name: String = path.to_string_lossy().chars().take(80).collect();
        return Err(damaged(&format!("it has the path {name:?}")));
    }
    let head = std::str::from_utf8(head).map_err(|_| damaged("a line cannot be read"))?;
    let [mode, object, stage] = head.split(' ').collect::<Vec<_>>()[..] else {
        return Err(damaged("a line cannot be read"));
    };
    if mode == GITLINK {
        return Err(Error::Submodules {
            path: repository.work_tree().to_owned(),
            first: path.to_string_lossy().into_owned(),
        });
    }
    Ok(Entry {
        path: path.to_owned(),
        symlink: mode == "120000",
        executable: mode == "100755",
        object: object.to_owned(),
        stage: stage.parse().map_err(|_| damaged("a line cannot be read"))?,
    })
}

/// Whether a path stays below its root, and out of `.git`.
pub(crate) fn is_safe(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let plain = |part| match part {
        Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
        _ => false,
    };
    // Components hide doubled and last slashes and inner dots.
    let whole = bytes
        .split(|&b| b == b'/')
        .all(|part| !part.is_empty() && part != b"." && part != b"..");
    !bytes.is_empty() && bytes.len() <= PATH_LIMIT && whole && path.components().all(plain)
}

/// What the index has and the commit has not: objects that only the index keeps.
pub(crate) fn objects_beyond(scratch: &Scratch, commit: &str, entries: &[Entry]) -> Result<Vec<String>> {
    let changed = scratch
        .command([
            "diff-index",
            "--cached",
            "--raw",
            "-z",
            "--no-renames",
            "--no-abbrev",
            "--no-ext-diff",
            commit,
        ])
        .run()?;
    let staged = changed
        .split(|&b| b == 0)
        .filter_map(|line| std::str::from_utf8(line).ok()?.strip_prefix(':'))
        .filter_map(|line| line.split(' ').nth(3))
        .filter(|object| object.bytes().any(|b| b != b'0'))
        .map(str::to_owned);
    let conflicting = entries
        .iter()
        .filter(|entry| entry.stage > 0)
        .map(|entry| entry.object.clone());
    let mut objects: Vec<_> = staged.chain(conflicting).collect();
    objects.sort_unstable();
    objects.dedup();
    Ok(objects)
}

/// Files that git does not track and does not ignore, and directories that are repositories
/// themselves.
pub(crate) struct Untracked {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) repositories: Vec<PathBuf>,
}

pub(crate) fn untracked(repository: &Repository, scratch: &Scratch, excludes: &[u8]) -> Result<Untracked> {
    scratch.write("excludes", excludes)?;
    let mut setting = OsString::from("core.excludesFile=");
    setting.push(scratch.path().join("excludes"));
    let listed = scratch
        .command(["ls-files", "--others", "--exclude-standard", "-z"])
        .config(setting)
        .env("GIT_WORK_TREE", repository.work_tree())
        .within(repository.work_tree())
        .run()?;
    let mut all = Untracked {
        files: Vec::new(),
        repositories: Vec::new(),
    };
    for name in listed.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        match name.strip_suffix(b"/") {
            Some(dir) => all.repositories.push(PathBuf::from(OsStr::from_bytes(dir))),
            None if is_safe(Path::new(OsStr::from_bytes(name))) => {
                all.files.push(PathBuf::from(OsStr::from_bytes(name)));
            }
            None => {}
        }
    }
    Ok(all)
}

/// Copies a regular file; says when it was written. `None` where there is none.
fn copy(from: &Path, to: &Path) -> Result<Option<SystemTime>> {
    let failed = |e| Error::io("read", from)(e);
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(from);
    let source = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let metadata = source.metadata().map_err(failed)?;
    let written = metadata.modified().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > INDEX_LIMIT {
        return Err(Error::Damaged {
            path: from.to_owned(),
            what: "it is no file, or too large".to_owned(),
        });
    }
    let mut target = File::create(to).map_err(Error::io("make", to))?;
    io::copy(&mut io::Read::take(source, INDEX_LIMIT), &mut target).map_err(failed)?;
    target.set_modified(written).map_err(Error::io("write", to))?;
    Ok(Some(written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_and_out_of_the_repository() {
        for good in ["a", "a/b", "a\nb", "..a/b..", ".github/x", "-x"] {
            assert!(is_safe(Path::new(good)), "{good:?}");
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "./a",
            "a/./b",
            "../a",
            "a/../b",
            ".git/config",
            "a/.GIT/x",
        ] {
            assert!(!is_safe(Path::new(bad)), "{bad:?}");
        }
        assert!(!is_safe(Path::new(&"a/".repeat(3000))));
    }
}
