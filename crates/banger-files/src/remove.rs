//! Removing files below a directory.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::MAX_DEPTH;
use crate::error::Error;
use crate::root::{Last, Root, split};

/// Removes files, symbolic links and empty directories below `root`, over no symbolic link. What
/// is not there, and a directory that has something in it, is left as it is.
///
/// # Errors
/// When a file that is there cannot be removed.
pub fn remove<P: AsRef<Path>>(root: &Root, paths: impl IntoIterator<Item = P>) -> Result<(), Error> {
    let mut last = Last::default();
    for path in paths {
        let path = path.as_ref();
        let Some((parent, name)) = split(path) else {
            continue;
        };
        let removed =
            last.directory(root, parent)
                .and_then(|parent| match unlinkat(&parent, name, AtFlags::empty()) {
                    Err(Errno::ISDIR) => unlinkat(&parent, name, AtFlags::REMOVEDIR),
                    removed => removed,
                });
        match removed {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(Error::file("remove", path)(error)),
        }
        // The next may lie where a directory was.
        last.forget();
    }
    Ok(())
}

/// Removes a directory with all that is in it.
pub(crate) fn remove_tree(parent: &OwnedFd, name: &OsStr, depth: usize) -> Result<(), Errno> {
    if depth >= MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let below = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if below == "." || below == ".." {
            continue;
        }
        match unlinkat(&directory, &below, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(&directory, &below, depth + 1)?,
            Err(Errno::NOENT) => {}
            removed => removed?,
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}
