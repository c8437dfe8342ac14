//! Making the entries of a stream below a directory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod, fchown,
    futimens, mkdirat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::error::Error;
use crate::header::Head;
use crate::remove::remove_tree;
use crate::root::{Last, Root, split};
use crate::unpack::{Owner, Rules};

/// The mode of a directory that no entry names.
const MADE: Mode = Mode::from_raw_mode(0o755);
/// The paths of directories that wait for their mode and time, in bytes.
const MAX_WAITING: u64 = 256 << 20;
/// Names for a file that is written aside; another's is in the way of none of them for long.
const TRIES: usize = 16;

/// Puts entries where they belong.
pub(crate) struct Placer<'a> {
    root: &'a Root,
    rules: &'a Rules,
    last: Last,
    /// Directories get their modes and times when nothing more is written into them.
    waiting: Vec<Waiting>,
    waiting_bytes: u64,
}

struct Waiting {
    path: PathBuf,
    mode: u32,
    mtime_ns: i64,
    owner: Option<(u32, u32)>,
}

/// A file that is being written. It goes again when it is not finished.
pub(crate) struct Unfinished {
    parent: Rc<OwnedFd>,
    file: File,
    /// The name that it has now.
    name: OsString,
    /// The one that it gets.
    becomes: Option<OsString>,
    /// Remove the directory that has that name.
    over_directory: bool,
    finished: bool,
}

impl<'a> Placer<'a> {
    pub(crate) fn new(root: &'a Root, rules: &'a Rules) -> Self {
        Self {
            root,
            rules,
            last: Last::default(),
            waiting: Vec::new(),
            waiting_bytes: 0,
        }
    }

    pub(crate) fn directory(&mut self, path: &Path, head: &Head) -> Result<(), Error> {
        let made = self.make(path, Mode::RWXU)?;
        // What was there already is the other side's business only where it is replaced.
        if !made && !self.rules.replace {
            return Ok(());
        }
        self.waiting_bytes += (path.as_os_str().len() + size_of::<Waiting>()) as u64;
        if self.waiting_bytes > MAX_WAITING {
            return Err(Error::TooMuch {
                what: "bytes of directories' names",
                limit: MAX_WAITING,
            });
        }
        self.waiting.push(Waiting {
            path: path.to_owned(),
            mode: mode(head.mode, self.rules),
            mtime_ns: head.mtime_ns,
            owner: owner(head, self.rules),
        });
        Ok(())
    }

    pub(crate) fn symlink(&mut self, path: &Path, head: &Head) -> Result<(), Error> {
        let (parent, name) = self.split(path)?;
        let target = OsStr::from_bytes(&head.target);
        let failed = |error: Errno| Error::file("make the link", path)(error);
        match symlinkat(target, &parent, name) {
            Err(Errno::EXIST) => {
                if self.look(&parent, name, path)? == Found::Directory {
                    self.clear(&parent, name, path)?;
                } else {
                    unlinkat(&parent, name, AtFlags::empty()).map_err(failed)?;
                }
                symlinkat(target, &parent, name).map_err(failed)?;
            }
            made => made.map_err(failed)?,
        }
        if let Some((uid, gid)) = owner(head, self.rules) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        utimensat(&parent, name, &times(head.mtime_ns), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    pub(crate) fn file(&mut self, path: &Path) -> Result<Unfinished, Error> {
        let (parent, name) = self.split(path)?;
        let failed = |error: Errno| Error::file("write", path)(error);
        let (name, becomes, over_directory, fd) = match create(&parent, name) {
            Err(Errno::EXIST) => {
                let over_directory = self.look(&parent, name, path)? == Found::Directory;
                if over_directory {
                    self.last.forget();
                }
                let (aside, fd) = create_aside(&parent).map_err(Error::file("write", path))?;
                (aside, Some(name.to_owned()), over_directory, fd)
            }
            made => (name.to_owned(), None, false, made.map_err(failed)?),
        };
        Ok(Unfinished {
            parent,
            file: fd.into(),
            name,
            becomes,
            over_directory,
            finished: false,
        })
    }

    /// Gives the directories their modes and times, the innermost first.
    pub(crate) fn finish(self) -> Result<(), Error> {
        for waiting in self.waiting.iter().rev() {
            let failed = |error: Errno| Error::file("finish the directory", &waiting.path)(error);
            let directory = self.root.directory(&waiting.path).map_err(failed)?;
            if let Some((uid, gid)) = waiting.owner {
                fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
            }
            fchmod(&directory, Mode::from_raw_mode(waiting.mode)).map_err(failed)?;
            futimens(&directory, &times(waiting.mtime_ns)).map_err(failed)?;
        }
        Ok(())
    }

    fn split<'p>(&mut self, path: &'p Path) -> Result<(Rc<OwnedFd>, &'p OsStr), Error> {
        let (parent, name) = split(path).ok_or(Error::Broken("an entry has no name"))?;
        Ok((self.parent(parent)?, name))
    }

    /// The directory of an entry, made where it is not there.
    fn parent(&mut self, path: &Path) -> Result<Rc<OwnedFd>, Error> {
        let opened = self.last.directory(self.root, path);
        match opened {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !path.as_os_str().is_empty() => {
                self.make(path, MADE)?;
                self.last.directory(self.root, path)
            }
            opened => opened,
        }
        .map_err(Error::file("open", path))
    }

    /// Makes a directory; false where there is one.
    fn make(&mut self, path: &Path, mode: Mode) -> Result<bool, Error> {
        let (parent, name) = self.split(path)?;
        let failed = |error: Errno| Error::file("make the directory", path)(error);
        match mkdirat(&parent, name, mode) {
            Err(Errno::EXIST) => {}
            made => return made.map(|()| true).map_err(failed),
        }
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let found = FileType::from_raw_mode(stat.st_mode);
        if found == FileType::Directory {
            return Ok(false);
        }
        if !self.rules.replace {
            return Err(Error::Conflict {
                path: path.to_owned(),
                found: name_of(found),
            });
        }
        unlinkat(&parent, name, AtFlags::empty()).map_err(failed)?;
        mkdirat(&parent, name, mode).map_err(failed)?;
        Ok(true)
    }

    /// What is in the way of a file or a link, where it may be replaced.
    fn look(&self, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<Found, Error> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Found::Other),
            stat => stat.map_err(Error::file("look at", path))?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Symlink => Ok(Found::Other),
            FileType::Directory if self.rules.replace => Ok(Found::Directory),
            _ if self.rules.replace => Ok(Found::Other),
            found => Err(Error::Conflict {
                path: path.to_owned(),
                found: name_of(found),
            }),
        }
    }

    fn clear(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), Error> {
        self.last.forget();
        remove_tree(parent, name, 0).map_err(Error::file("remove", path))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Directory,
    Other,
}

impl Unfinished {
    pub(crate) fn write(&mut self, piece: &[u8], path: &Path) -> Result<(), Error> {
        self.file.write_all(piece).map_err(Error::file("write", path))
    }

    pub(crate) fn finish(mut self, path: &Path, head: &Head, rules: &Rules) -> Result<(), Error> {
        let failed = |error: Errno| Error::file("write", path)(error);
        // The owner first: a change of it takes bits of the mode away.
        if let Some((uid, gid)) = owner(head, rules) {
            fchown(&self.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
        }
        fchmod(&self.file, Mode::from_raw_mode(mode(head.mode, rules))).map_err(failed)?;
        futimens(&self.file, &times(head.mtime_ns)).map_err(failed)?;
        if let Some(becomes) = &self.becomes {
            if self.over_directory {
                remove_tree(&self.parent, becomes, 0).map_err(failed)?;
            }
            renameat(&self.parent, &self.name, &self.parent, becomes).map_err(failed)?;
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // Half a file: it may be gone already.
            let _ = unlinkat(&self.parent, &self.name, AtFlags::empty());
        }
    }
}

fn create(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
}

/// A file with a name that nobody else has thought of.
fn create_aside(parent: impl AsFd) -> io::Result<(OsString, OwnedFd)> {
    for _ in 0..TRIES {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = OsString::from(format!(".banger-{:016x}", u64::from_ne_bytes(random)));
        match create(&parent, &name) {
            Err(Errno::EXIST) => {}
            made => return Ok((name, made?)),
        }
    }
    Err(Errno::EXIST.into())
}

fn mode(mode: u32, rules: &Rules) -> u32 {
    mode & if rules.set_id { 0o7777 } else { 0o1777 }
}

/// The owner to change to, where a new file is not his already.
fn owner(head: &Head, rules: &Rules) -> Option<(u32, u32)> {
    let (uid, gid) = match rules.owner {
        Owner::Process => return None,
        Owner::Stream => (head.uid, head.gid),
        Owner::Is(uid, gid) => (uid, gid),
    };
    let own = uid == geteuid().as_raw() && gid == getegid().as_raw();
    (!own).then_some((uid, gid))
}

fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
        },
    }
}

fn name_of(found: FileType) -> &'static str {
    match found {
        FileType::Directory => "directory",
        FileType::RegularFile => "file",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        _ => "device",
    }
}
