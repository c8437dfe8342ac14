//! Packing: reading files as they are, from a tree that others may change meanwhile.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::error::Error;
use crate::header::{Head, Type, padding};
use crate::root::{Last, Root, split};
use crate::{BLOCK, CHUNK, MAX_DEPTH, MAX_PATH, Watch};

/// The names of one list of [`Packed`].
const MAX_LISTED: usize = 1000;
/// A compressed block and what stands before it.
const BUFFER: usize = CHUNK + (16 << 10);

/// Mode and time of an entry that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub mode: u32,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// What went into a stream. The lists have the names in the stream, at most 1000 each.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Entries of all types.
    pub files: u64,
    /// Their contents in bytes.
    pub bytes: u64,
    /// Changed while they were read: they are in the stream, but maybe as they never were.
    pub changed: Vec<PathBuf>,
    /// No more there.
    pub vanished: Vec<PathBuf>,
    /// This user may not read them.
    pub unreadable: Vec<PathBuf>,
    /// FIFOs, sockets and devices, and names or directories that are too deep.
    pub skipped: Vec<PathBuf>,
}

/// Writes one stream.
pub struct Packer<W: Write> {
    out: FrameEncoder<BufWriter<W>>,
    watch: Box<Watch<'static>>,
    last: Last,
    buffer: Vec<u8>,
    head: Vec<u8>,
    packed: Packed,
}

impl<W: Write> Packer<W> {
    /// `watch` is called with the bytes of all contents so far; its error stops the work.
    pub fn new(out: W, watch: impl FnMut(u64) -> io::Result<()> + Send + 'static) -> Self {
        let info = FrameInfo::new()
            .block_size(BlockSize::Max256KB)
            .block_mode(BlockMode::Independent);
        Self {
            out: FrameEncoder::with_frame_info(info, BufWriter::with_capacity(BUFFER, out)),
            watch: Box::new(watch),
            last: Last::default(),
            buffer: vec![0; CHUNK],
            head: Vec::new(),
            packed: Packed::default(),
        }
    }

    /// Packs one file, symbolic link or directory below `root` under a name of its own. What is
    /// in a directory does not come with it.
    ///
    /// # Errors
    /// When it cannot be read though it is there and may be, or the stream ends.
    pub fn entry(&mut self, root: &Root, path: &Path, name: &Path) -> Result<(), Error> {
        self.find(root, path, name).map(drop)
    }

    /// Packs a file, a symbolic link, or a directory with all that is in it. An empty `path` is
    /// the root itself; with an empty `name` a directory's contents come without it.
    ///
    /// # Errors
    /// As for [`Packer::entry`].
    pub fn tree(&mut self, root: &Root, path: &Path, name: &Path) -> Result<(), Error> {
        match self.find(root, path, name)? {
            Some(directory) => self.walk(&directory, name, 0),
            None => Ok(()),
        }
    }

    /// Packs a file that is in memory.
    ///
    /// # Errors
    /// When the stream ends.
    pub fn bytes(&mut self, name: &Path, meta: Meta, contents: &[u8]) -> Result<(), Error> {
        let head = Head {
            size: contents.len() as u64,
            ..made(name, Type::File, meta)
        };
        self.header(&head)?;
        self.write(contents)?;
        self.pad(contents.len() as u64)?;
        self.count(contents.len())
    }

    /// # Errors
    /// When the stream ends.
    pub fn symlink(&mut self, name: &Path, target: &Path, mtime_ns: i64) -> Result<(), Error> {
        let meta = Meta {
            mode: 0o777,
            mtime_ns,
        };
        self.header(&Head {
            target: target.as_os_str().as_bytes().to_vec(),
            ..made(name, Type::Symlink, meta)
        })
    }

    /// # Errors
    /// When the stream ends.
    pub fn directory(&mut self, name: &Path, meta: Meta) -> Result<(), Error> {
        self.header(&made(name, Type::Directory, meta))
    }

    /// Ends the stream and gives back what it was written to.
    ///
    /// # Errors
    /// When the stream ends before.
    pub fn finish(mut self) -> Result<(W, Packed), Error> {
        self.write(&[0; 2 * BLOCK])?;
        let out = self.out.finish().map_err(|error| Error::Stream(error.into()))?;
        let out = out
            .into_inner()
            .map_err(|error| Error::Stream(error.into_error()))?;
        Ok((out, self.packed))
    }

    /// Packs one entry. What it returns is a directory, to go on with.
    fn find(&mut self, root: &Root, path: &Path, name: &Path) -> Result<Option<OwnedFd>, Error> {
        if path.as_os_str().is_empty() || path == Path::new(".") {
            let directory = root.directory(Path::new("")).map_err(Error::file("open", name))?;
            return self.opened_directory(directory, name);
        }
        let Some((parent, last)) = split(path) else {
            note(&mut self.packed.skipped, name);
            return Ok(None);
        };
        match self.last.directory(root, parent) {
            Ok(directory) => self.one(directory.as_fd(), last, name),
            Err(error) => self.missing(error, "open", name).map(|()| None),
        }
    }

    fn walk(&mut self, directory: &OwnedFd, name: &Path, depth: usize) -> Result<(), Error> {
        if depth >= MAX_DEPTH {
            note(&mut self.packed.skipped, name);
            return Ok(());
        }
        let failed = |error: Errno| Error::file("list", name)(error);
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let known = entry.file_name();
            if known != c"." && known != c".." {
                names.push(os_string(known));
            }
        }
        names.sort_unstable();
        for below in names {
            let name = name.join(&below);
            if let Some(directory) = self.one(directory.as_fd(), &below, &name)? {
                self.walk(&directory, &name, depth + 1)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, parent: impl AsFd, last: &OsStr, name: &Path) -> Result<Option<OwnedFd>, Error> {
        if name.as_os_str().len() > MAX_PATH {
            note(&mut self.packed.skipped, name);
            return Ok(None);
        }
        // Looked at before it is opened: opening a device may do something.
        let stat = match statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => return self.missing(error, "look at", name).map(|()| None),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => match readlinkat(&parent, last, Vec::new()) {
                Ok(target) => {
                    let target = target.into_bytes();
                    self.header(&Head {
                        target,
                        ..found(name, Type::Symlink, &stat)
                    })?;
                }
                Err(error) => self.missing(error, "read", name)?,
            },
            FileType::RegularFile => match openat(&parent, last, flags, Mode::empty()) {
                Ok(fd) => self.file(fd.into(), name)?,
                Err(error) => self.missing(error, "open", name)?,
            },
            FileType::Directory => {
                return match openat(&parent, last, flags | OFlags::DIRECTORY, Mode::empty()) {
                    Ok(fd) => self.opened_directory(fd, name),
                    Err(error) => self.missing(error, "open", name).map(|()| None),
                };
            }
            _ => note(&mut self.packed.skipped, name),
        }
        Ok(None)
    }

    fn opened_directory(&mut self, fd: OwnedFd, name: &Path) -> Result<Option<OwnedFd>, Error> {
        if !name.as_os_str().is_empty() {
            let stat = fstat(&fd).map_err(Error::file("look at", name))?;
            self.header(&found(name, Type::Directory, &stat))?;
        }
        Ok(Some(fd))
    }

    /// Exactly as many bytes as the header says, whatever becomes of the file.
    fn file(&mut self, mut file: File, name: &Path) -> Result<(), Error> {
        let before = fstat(&file).map_err(Error::file("look at", name))?;
        if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
            note(&mut self.packed.changed, name);
            return Ok(());
        }
        let head = found(name, Type::File, &before);
        self.header(&head)?;
        let mut left = head.size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let length = match file.read(&mut self.buffer[..wanted]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(Error::file("read", name))?,
            };
            if length == 0 {
                break;
            }
            self.out
                .write_all(&self.buffer[..length])
                .map_err(Error::Stream)?;
            self.count(length)?;
            left -= length as u64;
        }
        // It has become shorter: zeros stand for the rest.
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            self.buffer[..wanted].fill(0);
            self.out
                .write_all(&self.buffer[..wanted])
                .map_err(Error::Stream)?;
            (self.watch)(self.packed.bytes).map_err(Error::Stream)?;
            left -= wanted as u64;
        }
        self.pad(head.size)?;
        let after = fstat(&file).map_err(Error::file("look at", name))?;
        let state = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if state(&before) != state(&after) {
            note(&mut self.packed.changed, name);
        }
        Ok(())
    }

    /// A file that cannot be had is none that stops the others.
    fn missing(&mut self, error: Errno, what: &'static str, name: &Path) -> Result<(), Error> {
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => note(&mut self.packed.vanished, name),
            Errno::ACCESS | Errno::PERM => note(&mut self.packed.unreadable, name),
            error => return Err(Error::file(what, name)(error)),
        }
        Ok(())
    }

    fn header(&mut self, head: &Head) -> Result<(), Error> {
        self.head.clear();
        head.encode(&mut self.head);
        self.out.write_all(&self.head).map_err(Error::Stream)?;
        self.packed.files += 1;
        (self.watch)(self.packed.bytes).map_err(Error::Stream)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(Error::Stream)
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        self.write(&[0; BLOCK][..padding(size)])
    }

    fn count(&mut self, length: usize) -> Result<(), Error> {
        self.packed.bytes += length as u64;
        (self.watch)(self.packed.bytes).map_err(Error::Stream)
    }
}

fn note(list: &mut Vec<PathBuf>, name: &Path) {
    if list.len() < MAX_LISTED {
        list.push(name.to_owned());
    }
}

fn os_string(name: &CStr) -> OsString {
    OsString::from_vec(name.to_bytes().to_vec())
}

fn made(name: &Path, kind: Type, meta: Meta) -> Head {
    Head {
        name: name.as_os_str().as_bytes().to_vec(),
        kind,
        mode: meta.mode,
        uid: 0,
        gid: 0,
        size: 0,
        mtime_ns: meta.mtime_ns,
        target: Vec::new(),
    }
}

fn found(name: &Path, kind: Type, stat: &Stat) -> Head {
    Head {
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: match kind {
            Type::File => u64::try_from(stat.st_size).unwrap_or(0),
            _ => 0,
        },
        ..made(
            name,
            kind,
            Meta {
                mode: stat.st_mode & 0o7777,
                mtime_ns: mtime(stat),
            },
        )
    }
}

/// A file's time in nanoseconds since 1970.
pub(crate) fn mtime(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0))
}
