//! What is at paths below a directory.

use std::path::Path;

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use crate::error::Error;
use crate::pack::mtime;
use crate::root::{Last, Root, split};

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub kind: FoundKind,
    /// `0o7777`.
    pub mode: u32,
    /// In bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundKind {
    File,
    Directory,
    Symlink,
    /// A device, FIFO or socket.
    Other,
}

/// Looks at paths below one directory, over no symbolic link. Fast for paths in order.
#[derive(Debug)]
pub struct Look<'a> {
    root: &'a Root,
    last: Last,
}

impl<'a> Look<'a> {
    pub fn new(root: &'a Root) -> Self {
        Self {
            root,
            last: Last::default(),
        }
    }

    /// What is there; nothing where a directory on the way is a symbolic link.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub fn at(&mut self, path: &Path) -> Result<Option<Found>, Error> {
        let Some((parent, name)) = split(path) else {
            return Ok(None);
        };
        let stat = self
            .last
            .directory(self.root, parent)
            .and_then(|parent| statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW));
        match stat {
            Ok(stat) => Ok(Some(Found {
                kind: match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => FoundKind::File,
                    FileType::Directory => FoundKind::Directory,
                    FileType::Symlink => FoundKind::Symlink,
                    _ => FoundKind::Other,
                },
                mode: stat.st_mode & 0o7777,
                size: u64::try_from(stat.st_size).unwrap_or(0),
                mtime_ns: mtime(&stat),
            })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            Err(error) => Err(Error::file("look at", path)(error)),
        }
    }
}
