//! Reading files of a repository: bounded, and never waiting for a FIFO.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::error::{Error, Result};

/// A regular file's bytes; `None` where there is none. Links are followed: for files that are
/// parsed here and never passed on as they are.
pub(crate) fn small(path: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path);
    contents(opened, path, limit)
}

/// As [`small`], for files whose bytes go into the guest: no link on the way below `root` is
/// followed, because a repository must not name a secret of its reader's.
pub(crate) fn own(root: &Path, below: &str, limit: usize) -> Result<Option<Vec<u8>>> {
    let path = root.join(below);
    contents(beneath(root, Path::new(below)), &path, limit)
}

/// Opens a file strictly below `root`, over no link.
pub(crate) fn beneath(root: &Path, below: &Path) -> io::Result<File> {
    let root = File::open(root)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(openat2(&root, below, flags, Mode::empty(), resolve)?.into())
}

fn contents(opened: io::Result<File>, path: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
    let failed = |source| Error::io("read", path)(source);
    let file = match opened {
        Ok(file) => file,
        Err(e) if is_absent(&e) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::Damaged {
            path: path.to_owned(),
            what: "it is no regular file".to_owned(),
        });
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > limit {
        return Err(Error::TooMany {
            path: path.to_owned(),
            limit,
            what: "bytes",
        });
    }
    Ok(Some(bytes))
}

/// Nothing has this name, or a link has it that must not be followed.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(number, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}
