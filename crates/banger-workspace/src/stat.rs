//! What is known of a file without reading it, and finding it out below a directory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, ResolveFlags, accessat, openat2, statat};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::read;

/// What can be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    File,
    Symlink,
    Directory,
}

/// What tells that a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    pub kind: Kind,
    /// The permissions alone: `0o777`.
    pub mode: u32,
    /// In bytes; 0 for a directory.
    pub size: u64,
    /// Nanoseconds since 1970; 0 for a directory.
    pub mtime_ns: i64,
}

impl Stat {
    /// Of what is at a path of the host, and not where it leads to; `None` where nothing is.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        match of(path) {
            Ok(stat) => Ok(Some(stat)),
            Err(Error::Io { source, .. }) if read::is_absent(&source) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// What a name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Thing(Stat),
    /// A file that this user may not read, or that lies in such a directory.
    Unreadable,
    /// A FIFO, a socket or a device.
    Special,
}

/// Looks names up below one directory, over no symbolic link. Fast for names in order.
#[derive(Debug)]
pub(crate) struct Lookup {
    root: File,
    /// The last directory, when it is there.
    parent: Option<(PathBuf, Option<OwnedFd>)>,
}

impl Lookup {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let root = File::open(root).map_err(Error::io("open", root))?;
        Ok(Self { root, parent: None })
    }

    pub(crate) fn find(&mut self, path: &Path) -> Result<Found> {
        let failed = |e: rustix::io::Errno| Error::io("look at", path)(e.into());
        let parent = path.parent().unwrap_or(Path::new(""));
        let Some(name) = path.file_name() else {
            return Ok(Found::Nothing);
        };
        if self.parent.as_ref().is_none_or(|(known, _)| known != parent) {
            let opened = match self.open(parent) {
                Ok(fd) => Some(fd),
                Err(e) if read::is_absent(&e.into()) => None,
                Err(rustix::io::Errno::ACCESS) => return Ok(Found::Unreadable),
                Err(e) => return Err(failed(e)),
            };
            self.parent = Some((parent.to_owned(), opened));
        }
        let Some((_, Some(parent))) = &self.parent else {
            return Ok(Found::Nothing);
        };
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(e) if read::is_absent(&e.into()) => return Ok(Found::Nothing),
            Err(rustix::io::Errno::ACCESS) => return Ok(Found::Unreadable),
            Err(e) => return Err(failed(e)),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Symlink => return Ok(Found::Thing(known(&stat, Kind::Symlink))),
            FileType::Directory => Kind::Directory,
            _ => return Ok(Found::Special),
        };
        let wanted = match kind {
            Kind::Directory => Access::READ_OK | Access::EXEC_OK,
            _ => Access::READ_OK,
        };
        match accessat(parent, name, wanted, AtFlags::EACCESS) {
            Ok(()) => Ok(Found::Thing(known(&stat, kind))),
            Err(rustix::io::Errno::ACCESS) => Ok(Found::Unreadable),
            Err(e) if read::is_absent(&e.into()) => Ok(Found::Nothing),
            Err(e) => Err(failed(e)),
        }
    }

    fn open(&self, dir: &Path) -> rustix::io::Result<OwnedFd> {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.root, dir, flags, Mode::empty(), resolve)
    }
}

/// Of a path that this program made itself.
pub(crate) fn of(path: &Path) -> Result<Stat> {
    let stat = rustix::fs::lstat(path).map_err(|e| Error::io("look at", path)(io::Error::from(e)))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Kind::Symlink,
        FileType::Directory => Kind::Directory,
        _ => Kind::File,
    };
    Ok(known(&stat, kind))
}

fn known(stat: &rustix::fs::Stat, kind: Kind) -> Stat {
    let is_directory = kind == Kind::Directory;
    let mtime = stat
        .st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or_default());
    Stat {
        kind,
        mode: stat.st_mode & 0o777,
        size: if is_directory {
            0
        } else {
            u64::try_from(stat.st_size).unwrap_or_default()
        },
        mtime_ns: if is_directory { 0 } else { mtime },
    }
}
