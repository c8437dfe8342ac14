//! A directory below which everything is found, over no symbolic link.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory that is held open: whatever happens to its path, it stays this one.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// Tells roots from one another, wherever they lie in memory.
    id: u64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Root {
    /// Opens a directory. Symbolic links of `path` itself are followed.
    ///
    /// # Errors
    /// When it is no directory or cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self {
            fd,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// A directory below, the root itself for an empty path.
    pub(crate) fn directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.fd, path, DIRECTORY, Mode::empty(), resolve)
    }
}

/// The directory that was used last: names come in order.
#[derive(Debug, Default)]
pub(crate) struct Last(Option<(u64, PathBuf, Rc<OwnedFd>)>);

impl Last {
    pub(crate) fn directory(&mut self, root: &Root, path: &Path) -> Result<Rc<OwnedFd>, Errno> {
        if let Some((id, known, fd)) = &self.0
            && *id == root.id
            && known == path
        {
            return Ok(Rc::clone(fd));
        }
        let fd = Rc::new(root.directory(path)?);
        self.0 = Some((root.id, path.to_owned(), Rc::clone(&fd)));
        Ok(fd)
    }

    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

/// The directory of a path, and its last component.
pub(crate) fn split(path: &Path) -> Option<(&Path, &std::ffi::OsStr)> {
    Some((path.parent()?, path.file_name()?))
}
