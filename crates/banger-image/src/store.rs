//! Building aside: a directory with a lock while it grows, a rename when it is done.

mod settle;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with, syncfs};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Cancel;
use crate::error::{Error, Result};
use crate::process::MMDEBSTRAP;
use settle::State;

/// Of nobody else: what has it and no lock is removed, in shared directories too.
pub(crate) const PREFIX: &str = ".tmp-banger-";
const LOCK: &str = ".lock";
/// Metadata files are small; a larger one is not ours.
const MAX_METADATA: u64 = 1 << 20;

/// A directory in the making. Dropped without [`Build::publish`] it is removed.
#[derive(Debug)]
pub(crate) struct Build {
    dir: PathBuf,
    lock: File,
    done: bool,
}

impl Build {
    /// Makes an empty, locked directory below `parent`, which is made as needed.
    pub(crate) fn begin(parent: &Path) -> Result<Self> {
        make_dir(parent)?;
        // A sweep may take the directory between its making and its locking: then try again.
        for _ in 0..16 {
            let dir = tempfile::Builder::new()
                .prefix(PREFIX)
                .tempdir_in(parent)
                .map_err(Error::io("make a directory in", parent))?
                .keep();
            if let Some(lock) = try_lock(&dir)? {
                return Ok(Self {
                    dir,
                    lock,
                    done: false,
                });
            }
        }
        Err(Error::Damaged {
            path: parent.to_owned(),
            reason: "another program removes what is made here".to_owned(),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An empty file that carries the lock: whoever holds it keeps the directory from
    /// being swept.
    pub(crate) fn lock(&self) -> Result<File> {
        self.lock.try_clone().map_err(Error::io("lock", &self.dir))
    }

    /// Makes everything durable, then gives the directory its name. What has the name
    /// already is replaced when `replace`, else [`Error::Exists`] with `what`.
    pub(crate) fn publish(self, target: &Path, what: &'static str, replace: bool) -> Result<()> {
        settle::mark_synced(&self.lock).map_err(Error::io("write in", &self.dir))?;
        let dir = File::open(&self.dir).map_err(Error::io("open", &self.dir))?;
        syncfs(&dir).map_err(Error::os("write out", &self.dir))?;
        self.name(target, what, replace)
    }

    /// Gives the directory, which is on the disk, its name for good.
    fn name(mut self, target: &Path, what: &'static str, replace: bool) -> Result<()> {
        self.rename(target, what, replace)?;
        // Only now: until it had its name, the lock kept it from being swept.
        _ = fs::remove_file(target.join(LOCK));
        let parent = target.parent().unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(Error::io("write out", parent))
    }

    /// The same for a few files, without waiting for everything else that the disk has to do.
    pub(crate) fn publish_files(self, target: &Path, what: &'static str, replace: bool) -> Result<()> {
        settle::mark_synced(&self.lock).map_err(Error::io("write in", &self.dir))?;
        for entry in fs::read_dir(&self.dir).map_err(Error::io("read", &self.dir))? {
            let path = entry.map_err(Error::io("read", &self.dir))?.path();
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            file.sync_all().map_err(Error::io("write out", &path))?;
        }
        let dir = File::open(&self.dir).map_err(Error::io("open", &self.dir))?;
        dir.sync_all().map_err(Error::io("write out", &self.dir))?;
        self.name(target, what, replace)
    }

    /// The same for what can be fetched again: the directory has its name at once, and becomes
    /// durable soon after. A power loss in between leaves nothing under the name. What would
    /// replace something waits, so that a power loss leaves the old one or the new one.
    ///
    /// Returns the thread that sees to it, if there is one; nobody needs to wait for it.
    pub(crate) fn publish_soon(
        mut self,
        target: &Path,
        what: &'static str,
        replace: bool,
    ) -> Result<Option<JoinHandle<()>>> {
        let dir = File::open(&self.dir).map_err(Error::io("open", &self.dir))?;
        let replaces = fs::symlink_metadata(target).is_ok();
        if replaces || !settle::mark_boot(&self.lock).map_err(Error::io("write in", &self.dir))? {
            return self.publish(target, what, replace).map(|()| None);
        }
        let lock = self.lock()?;
        match self.rename(target, what, false) {
            Ok(()) => Ok(settle::later(dir, lock)),
            // It came meanwhile.
            Err(Error::Exists { .. }) if replace => self.publish(target, what, replace).map(|()| None),
            Err(error) => Err(error),
        }
    }

    fn rename(&mut self, target: &Path, what: &'static str, replace: bool) -> Result<()> {
        let rename = |flags| renameat_with(CWD, &self.dir, CWD, target, flags);
        match rename(RenameFlags::NOREPLACE) {
            Ok(()) => self.done = true,
            Err(rustix::io::Errno::EXIST) if replace => {
                // The old one now has the temporary name, and goes when self is dropped.
                rename(RenameFlags::EXCHANGE).map_err(Error::os("replace", target))?;
            }
            Err(rustix::io::Errno::EXIST) => {
                let name = target.file_name().unwrap_or_default();
                return Err(Error::Exists {
                    what,
                    name: name.to_string_lossy().into_owned(),
                });
            }
            Err(error) => return Err(Error::os("make", target)(error)),
        }
        Ok(())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = remove_tree(&self.dir)
        {
            // The next sweep tries again.
            tracing::warn!(dir = %self.dir.display(), %error, "Cannot remove a build directory");
        }
    }
}

/// Removes what interrupted builds and a power loss left below `parent`. Builds that live are
/// not touched. Returns the number of directories removed.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn sweep(parent: &Path) -> Result<usize> {
    Ok(sweep_builds(parent)? + sweep_marked(parent)?)
}

/// Finishes what a program that ended had published without waiting for the disk, and removes
/// what did not survive.
fn sweep_marked(parent: &Path) -> Result<usize> {
    let mut removed = 0;
    for name in names(parent)? {
        let dir = parent.join(&name);
        if !dir.join(LOCK).exists() {
            continue;
        }
        // Nobody has the lock of a lost one, and whoever publishes has that of another.
        let swept = match lock_existing(&dir) {
            Ok(None) => continue,
            Ok(Some(_lock)) => match settle::state(&dir).map_err(Error::io("read", &dir)) {
                Ok(State::Lost) => remove(parent, &name).map(usize::from),
                Ok(_) => File::open(&dir)
                    .and_then(|dir| settle::now(&dir))
                    .map_err(Error::io("write out", &dir))
                    .map(|()| 0),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match swept {
            Ok(number) => removed += number,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "Cannot remove or finish a leftover");
            }
        }
    }
    Ok(removed)
}

fn sweep_builds(parent: &Path) -> Result<usize> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::io("read", parent)(error)),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(Error::io("read", parent))?;
        let ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !ours {
            continue;
        }
        let dir = entry.path();
        let mine = entry
            .metadata()
            .is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw());
        if !mine {
            continue;
        }
        let swept = match try_lock(&dir) {
            Ok(None) => continue,
            Ok(Some(_lock)) => remove_tree(&dir).map_err(Error::io("remove", &dir)),
            Err(error) => Err(error),
        };
        match swept {
            Ok(()) => removed += 1,
            // In nobody's way but the disk's; the next sweep tries again.
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "Cannot remove a leftover");
            }
        }
    }
    Ok(removed)
}

/// The lock of a build directory, or nothing when somebody has it or the directory is gone.
fn try_lock(dir: &Path) -> Result<Option<File>> {
    lock(dir, true)
}

/// The lock of a finished object, or nothing when it has none: it must not get one now.
fn lock_existing(dir: &Path) -> Result<Option<File>> {
    lock(dir, false)
}

fn lock(dir: &Path, create: bool) -> Result<Option<File>> {
    let path = dir.join(LOCK);
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let file = match OpenOptions::new()
        .write(true)
        .read(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
    {
        Ok(file) => file,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(Error::os("lock", &path)(error)),
    }
    let there = file.metadata().map_err(Error::io("look at", &path))?.nlink() > 0;
    Ok(there.then_some(file))
}

/// Removes a tree, also one in which a build in a user namespace left files of its
/// subordinate ids. Never one in which something is mounted.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    if has_mounts(dir)? {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "something is mounted in it",
        ));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mut foreign = Vec::new();
            find_foreign(dir, &mut foreign)?;
            // Without any, something else is in the way.
            let (first, others) = foreign.split_first().ok_or(error)?;
            empty_foreign(first, others)?;
            fs::remove_dir_all(dir)
        }
        other => other,
    }
}

/// Empties directories of the user's subordinate ids, which only root of a user namespace
/// can. They themselves lie in directories of the user, and are the user's to remove. There is
/// always a first one: `find` without any would empty the directory that it runs in.
fn empty_foreign(first: &Path, others: &[PathBuf]) -> io::Result<()> {
    let mut helper = MMDEBSTRAP.command().map_err(io::Error::other)?;
    helper
        .args(["--unshare-helper", "find"])
        .arg(first)
        .args(others)
        .args(["-xdev", "-mindepth", "1", "-delete"])
        .current_dir("/");
    MMDEBSTRAP
        .output(helper, &Cancel::new(), 0)
        .map_err(io::Error::other)?;
    Ok(())
}

fn find_foreign(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if !metadata.is_dir() {
            continue;
        }
        if metadata.uid() == rustix::process::geteuid().as_raw() {
            find_foreign(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// Whether something is mounted below a directory (proc(5), mountinfo).
fn has_mounts(dir: &Path) -> io::Result<bool> {
    let dir = match dir.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        result => result?,
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|point| Path::new(&unescape(point)).starts_with(&dir)))
}

/// A path in mountinfo has its white space and backslashes in octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Removes a finished object: at once by its name, then its files. Whether there was one.
pub(crate) fn remove(parent: &Path, name: &str) -> Result<bool> {
    let target = parent.join(name);
    if !target.is_dir() {
        return Ok(false);
    }
    // Under a temporary name a half-removed object is no object.
    let grave = Build::begin(parent)?;
    let inside = grave.dir().join("removed");
    fs::rename(&target, &inside).map_err(Error::io("remove", &target))?;
    drop(grave);
    Ok(true)
}

/// Makes a directory and its parents, for the owner alone.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(Error::io("make", dir))
}

/// Writes an object's metadata into its directory: whole or not at all.
pub(crate) fn write_metadata(dir: &Path, file: &str, metadata: &impl Serialize) -> Result<()> {
    let target = dir.join(file);
    let text = serde_json::to_vec_pretty(metadata).map_err(|error| Error::Damaged {
        path: target.clone(),
        reason: error.to_string(),
    })?;
    let mut temporary = tempfile::NamedTempFile::new_in(dir).map_err(Error::io("write in", dir))?;
    temporary
        .write_all(&text)
        .and_then(|()| temporary.write_all(b"\n"))
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(Error::io("write", &target))?;
    temporary
        .persist(&target)
        .map_err(|error| Error::io("write", &target)(error.error))?;
    Ok(())
}

/// Reads an object's metadata. `None` when there is no such object.
pub(crate) fn read_metadata<T: DeserializeOwned>(dir: &Path, file: &str) -> Result<Option<T>> {
    let path = dir.join(file);
    let damaged = |reason: String| Error::Damaged {
        path: dir.to_owned(),
        reason,
    };
    match fs::metadata(&path) {
        Ok(found) if found.is_file() && found.len() <= MAX_METADATA => {}
        Ok(_) => return Err(damaged(format!("{file} is not a small file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if dir.is_dir() {
                Err(damaged(format!("no {file}")))
            } else {
                Ok(None)
            };
        }
        Err(error) => return Err(Error::io("look at", &path)(error)),
    }
    if settle::state(dir).map_err(Error::io("read", dir))? == State::Lost {
        return Err(damaged(
            "the machine went down before it was on the disk".to_owned(),
        ));
    }
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| damaged(format!("{file}: {error}")))
}

/// The names of a store's finished objects, sorted; none when the store is not there yet.
pub(crate) fn names(parent: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", parent)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", parent))?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The bytes that a tree takes on the disk.
pub(crate) fn disk_usage(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let found = entry.metadata().map_err(Error::io("look at", dir))?;
        total += found.blocks() * 512;
        if found.is_dir() {
            total += disk_usage(&entry.path())?;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_published_objects_are_listed() {
        let store = tempfile::tempdir().unwrap();
        let build = Build::begin(store.path()).unwrap();
        fs::write(build.dir().join("file"), "1").unwrap();
        assert_eq!(names(store.path()).unwrap(), [""; 0]);
        build.publish(&store.path().join("a"), "Thing", false).unwrap();
        assert_eq!(names(store.path()).unwrap(), ["a"]);
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(store.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn replacing_is_a_choice() {
        let store = tempfile::tempdir().unwrap();
        let target = store.path().join("a");
        for (text, replace) in [("1", false), ("2", true)] {
            let build = Build::begin(store.path()).unwrap();
            fs::write(build.dir().join("file"), text).unwrap();
            build.publish(&target, "Thing", replace).unwrap();
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), text);
        }
        let build = Build::begin(store.path()).unwrap();
        assert!(matches!(
            build.publish(&target, "Thing", false),
            Err(Error::Exists { what: "Thing", name }) if name == "a"
        ));
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 1);
    }

    #[test]
    fn sweep_spares_what_lives() {
        let store = tempfile::tempdir().unwrap();
        let alive = Build::begin(store.path()).unwrap();
        let temporary = |name: &str| store.path().join(format!("{PREFIX}{name}"));
        fs::create_dir_all(temporary("dead").join("sub")).unwrap();
        fs::create_dir(store.path().join("finished")).unwrap();
        fs::create_dir(store.path().join(".tmp-of-another-program")).unwrap();
        fs::write(temporary("file"), "").unwrap();
        assert_eq!(sweep(store.path()).unwrap(), 1);
        assert!(store.path().join(".tmp-of-another-program").is_dir());
        assert!(alive.dir().is_dir());
        assert!(store.path().join("finished").is_dir());
        drop(alive);
        assert_eq!(names(store.path()).unwrap(), ["finished"]);
        assert_eq!(sweep(store.path()).unwrap(), 0);
    }

    #[test]
    fn a_leftover_that_cannot_be_locked_stops_no_sweep() {
        let store = tempfile::tempdir().unwrap();
        for name in ["1", "2", "3"] {
            fs::create_dir(store.path().join(format!("{PREFIX}{name}"))).unwrap();
        }
        let odd = store.path().join(format!("{PREFIX}2"));
        std::os::unix::fs::symlink("/etc/passwd", odd.join(LOCK)).unwrap();
        assert_eq!(sweep(store.path()).unwrap(), 2);
        assert!(odd.is_dir());
    }

    /// A removal that fails for another reason than foreign owners must not start `find`.
    #[test]
    fn a_tree_that_cannot_be_removed_is_an_error_and_nothing_else_is_emptied() {
        let store = tempfile::tempdir().unwrap();
        let dir = store.path().join("tree");
        fs::create_dir_all(dir.join("sub")).unwrap();
        let file = File::create(dir.join("sub/file")).unwrap();
        let mut flags = rustix::fs::ioctl_getflags(&file).unwrap_or(rustix::fs::IFlags::empty());
        flags.insert(rustix::fs::IFlags::IMMUTABLE);
        if let Err(error) = rustix::fs::ioctl_setflags(&file, flags) {
            println!("skipped: no file can be made immutable here ({error})");
            return;
        }
        let removed = remove_tree(&dir);
        flags.remove(rustix::fs::IFlags::IMMUTABLE);
        rustix::fs::ioctl_setflags(&file, flags).unwrap();
        assert_eq!(removed.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        remove_tree(&dir).unwrap();
    }

    #[test]
    fn mounts_are_seen() {
        assert!(has_mounts(Path::new("/")).unwrap());
        assert!(!has_mounts(tempfile::tempdir().unwrap().path()).unwrap());
        assert!(!has_mounts(Path::new("/no/such/path")).unwrap());
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    }

    #[test]
    fn metadata_is_read_with_care() {
        let store = tempfile::tempdir().unwrap();
        let missing = read_metadata::<u32>(&store.path().join("none"), "x.json");
        assert!(matches!(missing, Ok(None)));
        let dir = store.path().join("a");
        make_dir(&dir).unwrap();
        let read = || read_metadata::<u32>(&dir, "x.json");
        assert!(matches!(read(), Err(Error::Damaged { .. })));
        fs::write(dir.join("x.json"), "{").unwrap();
        assert!(matches!(read(), Err(Error::Damaged { .. })));
        write_metadata(&dir, "x.json", &7).unwrap();
        assert_eq!(read().unwrap(), Some(7));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }
}
