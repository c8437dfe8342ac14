//! Root disks: a clone of an image, shared where the file system can, else copied with its
//! holes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use banger_model::Size;
use rustix::fs::{OFlags, SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::Cancel;
use crate::error::{Error, Result};

/// Copied between two looks at whether to go on.
const PIECE: u64 = 16 << 20;

/// How a disk was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The image's blocks are shared until they are written to.
    Reflink,
    /// Copied by the kernel, without holes.
    Copy,
    /// Read and written.
    ReadWrite,
}

/// Makes the disk `target` of `size` bytes with the content of `source`. It appears whole or
/// not at all, for the owner alone, and nothing is synced: a disk that is lost in a crash of
/// the host is made again.
///
/// # Errors
/// [`Error::DiskTooSmall`] when `size` is below that of the source, [`Error::NoSpace`],
/// [`Error::Cancelled`]; [`Error::Io`] also when the target exists.
pub fn clone_root_disk(source: &Path, target: &Path, size: u64, cancel: &Cancel) -> Result<Method> {
    cancel.check()?;
    // A pipe in its place would be waited for.
    let from = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(source)
        .map_err(Error::io("open", source))?;
    let found = from.metadata().map_err(Error::io("look at", source))?;
    if !found.is_file() {
        return Err(Error::NotAFile(source.to_owned()));
    }
    if size < found.len() {
        return Err(Error::DiskTooSmall {
            wanted: Size::from_bytes(size),
            have: Size::from_bytes(found.len()),
        });
    }
    if fs::symlink_metadata(target).is_ok() {
        return Err(Error::io("make", target)(io::ErrorKind::AlreadyExists.into()));
    }
    let part = Part::make(target)?;
    let method = match ioctl_ficlone(&part.file, &from) {
        Ok(()) => Method::Reflink,
        Err(_) => copy(&from, &part, source, found.len(), cancel)?,
    };
    part.file.set_len(size).map_err(Error::io("grow", &part.path))?;
    part.finish(target)?;
    Ok(method)
}

/// The target under its temporary name, removed unless it is finished. The name is always
/// the same, so that what a crash leaves is found and replaced.
struct Part {
    path: PathBuf,
    file: File,
    done: bool,
}

impl Part {
    fn make(target: &Path) -> Result<Self> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("make", &path))?;
        Ok(Self {
            path,
            file,
            done: false,
        })
    }

    fn finish(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(Error::io("make", target))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Copies what is not a hole.
fn copy(from: &File, part: &Part, source: &Path, len: u64, cancel: &Cancel) -> Result<Method> {
    let mut method = Method::Copy;
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, len).map_err(Error::os("read", source))? {
        at = start;
        while at < end {
            cancel.check()?;
            let piece = (end - at).min(PIECE);
            let needed = len - at;
            let failed = |error| Error::io_needing("write", &part.path, needed, error);
            let copied = match method {
                Method::ReadWrite => read_write(from, &part.file, at, piece).map_err(failed)?,
                _ => match copy_range(from, &part.file, at, piece) {
                    Ok(copied) => copied,
                    // Old kernels and some file systems cannot, or not between two.
                    Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                        method = Method::ReadWrite;
                        continue;
                    }
                    Err(error) => return Err(failed(error.into())),
                },
            };
            if copied == 0 {
                return Err(Error::io("read", source)(io::ErrorKind::UnexpectedEof.into()));
            }
            at += copied;
        }
    }
    Ok(method)
}

/// The next run of data from `at` on, as start and end.
fn next_data(file: &File, at: u64, len: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        // Only a hole is left.
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not know holes.
        Err(Errno::INVAL) => return Ok(Some((at, len))),
        Err(error) => return Err(error),
    };
    if start >= len {
        return Ok(None);
    }
    let end = seek(file, SeekFrom::Hole(start))?.min(len);
    Ok(Some((start, end)))
}

fn copy_range(from: &File, to: &File, at: u64, len: u64) -> rustix::io::Result<u64> {
    let (mut in_at, mut out_at) = (at, at);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    copy_file_range(from, Some(&mut in_at), to, Some(&mut out_at), len).map(|copied| copied as u64)
}

fn read_write(from: &File, to: &File, at: u64, len: u64) -> io::Result<u64> {
    let mut buffer = vec![0; len.min(1 << 20) as usize];
    let read = from.read_at(&mut buffer, at)?;
    to.write_all_at(&buffer[..read], at)?;
    Ok(read as u64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// 64 MiB with two pieces of data.
    fn source(dir: &Path) -> PathBuf {
        let path = dir.join("rootfs.ext4");
        let file = File::create(&path).unwrap();
        file.set_len(64 * MIB).unwrap();
        file.write_all_at(&[1; 5000], 8192).unwrap();
        file.write_all_at(&[2; 5000], 40 * MIB).unwrap();
        path
    }

    fn check(source: &Path, target: &Path, size: u64) {
        let (from, to) = (File::open(source).unwrap(), File::open(target).unwrap());
        let found = to.metadata().unwrap();
        assert_eq!(found.len(), size);
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        assert!(found.blocks() * 512 < 2 * MIB, "{}", found.blocks() * 512);
        let (mut a, mut b) = (vec![0; 64 << 20], vec![0; 64 << 20]);
        from.read_exact_at(&mut a, 0).unwrap();
        to.read_exact_at(&mut b, 0).unwrap();
        assert!(a == b);
    }

    #[test]
    fn content_and_holes_are_kept_and_the_disk_grows() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (source(dir.path()), dir.path().join("disk"));
        clone_root_disk(&source, &target, 1 << 40, &Cancel::new()).unwrap();
        check(&source, &target, 1 << 40);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn reading_and_writing_keeps_holes_too() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        let from = File::open(&source).unwrap();
        let part = Part::make(&dir.path().join("disk")).unwrap();
        let mut at = 0;
        while let Some((start, end)) = next_data(&from, at, 64 * MIB).unwrap() {
            at = start;
            while at < end {
                at += read_write(&from, &part.file, at, end - at).unwrap();
            }
        }
        part.file.set_len(64 * MIB).unwrap();
        check(&source, &part.path, 64 * MIB);
    }

    #[test]
    fn what_cannot_be_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (source(dir.path()), dir.path().join("disk"));
        assert!(matches!(
            clone_root_disk(&source, &target, MIB, &Cancel::new()),
            Err(Error::DiskTooSmall { .. })
        ));
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(matches!(
            clone_root_disk(&source, &target, 1 << 40, &cancel),
            Err(Error::Cancelled)
        ));
        assert!(matches!(
            clone_root_disk(dir.path(), &target, 1 << 40, &Cancel::new()),
            Err(Error::NotAFile(_))
        ));
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(
            clone_root_disk(&pipe, &target, 1 << 40, &Cancel::new()),
            Err(Error::NotAFile(_))
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_leftover_is_replaced_and_a_disk_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (source(dir.path()), dir.path().join("disk"));
        fs::write(dir.path().join("disk.part"), "half").unwrap();
        clone_root_disk(&source, &target, 64 * MIB, &Cancel::new()).unwrap();
        check(&source, &target, 64 * MIB);
        let again = clone_root_disk(&source, &target, 64 * MIB, &Cancel::new());
        assert!(matches!(again, Err(Error::Io { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
