//! The descriptors that a caller hands over. Nothing is read from them or written to them here,
//! and no question is asked that a file server could leave open; they are looked at, and go to
//! the VMM. What the caller could open himself, he may give to his own VMM: the checks keep out
//! what is of the wrong kind, what would hold the VMM up or cannot be what it is given for, and
//! files of others.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use banger_bus::ErrorKind;
use banger_bus::helper::{FileRole, HelperError, HelperResult, LaunchEngine};
use banger_model::limits::MAX_DISK_BYTES;
use banger_vmm::{Channels, ConsoleSink};
use rustix::fs::{FileType, OFlags, SealFlags, Statx, fcntl_get_seals, fcntl_getfl};
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

/// The largest kernel, in bytes: distributions' have some 10 MiB, an uncompressed one with
/// everything built in some 100.
const MAX_KERNEL_BYTES: u64 = 512 << 20;
/// The largest initramfs, in bytes.
const MAX_INITRD_BYTES: u64 = 512 << 20;
/// The largest file that a console or a log may have become, in bytes. Its owner keeps it below
/// 1 MiB.
const MAX_OUTPUT_BYTES: u64 = 64 << 20;
/// The smallest disk, in bytes: a sector.
const MIN_DISK_BYTES: u64 = 512;

/// Looked at, and what they are for.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) kernel: File,
    pub(crate) initrd: OwnedFd,
    pub(crate) root_disk: OwnedFd,
    pub(crate) console: ConsoleSink,
    pub(crate) log: OwnedFd,
    pub(crate) channels: Channels,
}

impl Files {
    /// Exactly those that the engine takes, each as its role wants it. `caller`: his uid.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the role and what is wrong.
    pub(crate) fn check(
        mut files: HashMap<u8, OwnedFd>,
        engine: LaunchEngine,
        caller: u32,
    ) -> HelperResult<Self> {
        let wanted = roles(engine);
        if let Some(number) = files
            .keys()
            .find(|number| !wanted.iter().any(|role| role.number() == **number))
        {
            return Err(invalid(&format!("{engine:?} takes no file {number}")));
        }
        for role in wanted {
            let file = files.get(&role.number());
            let file = file.ok_or_else(|| invalid(&format!("The file {role:?} is missing")))?;
            let wrong = |what| invalid(&format!("The file {role:?} {what}"));
            Looked::at(file)
                .and_then(|file| file.is_for(*role, caller))
                .map_err(wrong)?;
        }
        // All are there, as was just seen.
        let mut take = |role: FileRole| {
            let file = files.remove(&role.number());
            file.ok_or_else(|| invalid(&format!("The file {role:?} is missing")))
        };
        Ok(Self {
            kernel: take(FileRole::Kernel)?.into(),
            initrd: take(FileRole::Initrd)?,
            root_disk: take(FileRole::RootDisk)?,
            console: sink(take(FileRole::Console)?),
            log: take(FileRole::Log)?,
            channels: match engine {
                LaunchEngine::Qemu => Channels::Sockets {
                    control: take(FileRole::Control)?,
                    monitor: take(FileRole::Monitor)?,
                },
                LaunchEngine::Firecracker => Channels::Directory(take(FileRole::Directory)?),
            },
        })
    }
}

/// Whether root's own program may write there: a pipe's end. A socket tells its reader who
/// writes, and a caller could give one of journald's, for which a guest's lines were root's.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_reader(output: &OwnedFd) -> Result<(), &'static str> {
    let file = Looked::at(output)?;
    match file.kind {
        FileType::Fifo => file.opened_for(OFlags::WRONLY),
        _ => Err("is no pipe"),
    }
}

const fn roles(engine: LaunchEngine) -> &'static [FileRole] {
    use FileRole::{Console, Control, Directory, Initrd, Kernel, Log, Monitor, RootDisk};
    match engine {
        LaunchEngine::Qemu => &[Kernel, Initrd, RootDisk, Console, Log, Control, Monitor],
        LaunchEngine::Firecracker => &[Kernel, Initrd, RootDisk, Console, Log, Directory],
    }
}

fn sink(console: OwnedFd) -> ConsoleSink {
    match Looked::at(&console).map(|file| file.kind) {
        Ok(FileType::RegularFile) => ConsoleSink::File(console),
        _ => ConsoleSink::Stream(console),
    }
}

/// What is wrong with a file, to follow its role.
type Wrong = &'static str;

struct Looked<'fd> {
    fd: &'fd OwnedFd,
    known: Statx,
    kind: FileType,
    flags: OFlags,
}

impl<'fd> Looked<'fd> {
    fn at(fd: &'fd OwnedFd) -> Result<Self, Wrong> {
        let flags = fcntl_getfl(fd).map_err(|_| "cannot be looked at")?;
        if flags.contains(OFlags::PATH) {
            return Err("is not open (O_PATH)");
        }
        let known = banger_sys::file::known(fd).map_err(|_| "cannot be looked at")?;
        let kind = FileType::from_raw_mode(known.stx_mode.into());
        Ok(Self {
            fd,
            known,
            kind,
            flags,
        })
    }

    fn is_for(&self, role: FileRole, caller: u32) -> Result<(), Wrong> {
        match role {
            FileRole::Kernel => self.is_source(caller, MAX_KERNEL_BYTES),
            FileRole::Initrd if self.is_memfd() => self.is_sealed(caller, MAX_INITRD_BYTES),
            FileRole::Initrd => self.is_source(caller, MAX_INITRD_BYTES),
            FileRole::RootDisk => self.is_disk(caller),
            FileRole::Console | FileRole::Log => self.is_output(caller),
            FileRole::Control | FileRole::Monitor => {
                self.is_of(&[caller])?;
                self.is_stream(true)
            }
            FileRole::Directory => self.is_directory(caller),
        }
    }

    /// Something to boot from.
    fn is_source(&self, caller: u32, max: u64) -> Result<(), Wrong> {
        self.is_file(&[caller, 0])?;
        self.opened_for(OFlags::RDONLY)?;
        self.has_bytes(1, max)
    }

    /// The same, in memory: open for writing too, but nobody can write any more.
    fn is_sealed(&self, caller: u32, max: u64) -> Result<(), Wrong> {
        let needed = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
        match fcntl_get_seals(self.fd) {
            Ok(seals) if seals.contains(needed) => {}
            _ => return Err("is a file in memory that can still be changed"),
        }
        self.is_of(&[caller, 0])?;
        self.has_bytes(1, max)
    }

    fn is_disk(&self, caller: u32) -> Result<(), Wrong> {
        self.is_file(&[caller])?;
        self.opened_for(OFlags::RDWR)?;
        if self.flags.contains(OFlags::APPEND) {
            return Err("is open for appending");
        }
        self.has_bytes(MIN_DISK_BYTES, MAX_DISK_BYTES)
    }

    /// Whoever is at the other end of a pipe or socket is the caller's affair: he has opened it,
    /// and could write to it himself. Usually it is journald.
    fn is_output(&self, caller: u32) -> Result<(), Wrong> {
        match self.kind {
            FileType::Socket => self.is_stream(false),
            FileType::Fifo => self.opened_for(OFlags::WRONLY),
            FileType::RegularFile => {
                self.is_file(&[caller])?;
                self.opened_for(OFlags::WRONLY)?;
                if !self.flags.contains(OFlags::APPEND) {
                    return Err("is not open for appending");
                }
                self.has_bytes(0, MAX_OUTPUT_BYTES)
            }
            _ => Err("is no file, pipe or socket to write to"),
        }
    }

    fn is_stream(&self, listening: bool) -> Result<(), Wrong> {
        let is_unix_stream = self.kind == FileType::Socket
            && socket_domain(self.fd).is_ok_and(|domain| domain == AddressFamily::UNIX)
            && socket_type(self.fd).is_ok_and(|kind| kind == SocketType::STREAM);
        if !is_unix_stream {
            return Err("is no unix stream socket");
        }
        match socket_acceptconn(self.fd) {
            Ok(listens) if listens == listening => {}
            _ if listening => return Err("is a socket that does not listen"),
            _ => return Err("is a listening socket"),
        }
        if !listening && rustix::net::getpeername(self.fd).is_err() {
            return Err("is a socket that is not connected");
        }
        Ok(())
    }

    /// The owner's alone; the rights of one more uid, by an access list, show in the group's bits.
    fn is_directory(&self, caller: u32) -> Result<(), Wrong> {
        if self.kind != FileType::Directory {
            return Err("is no directory");
        }
        self.is_of(&[caller])?;
        self.opened_for(OFlags::RDONLY)?;
        if self.known.stx_mode & 0o7007 != 0 {
            return Err("is a directory that others can use");
        }
        Ok(())
    }

    /// A regular file of one of these users, under one name at most: what was linked elsewhere
    /// can be another user's to change.
    fn is_file(&self, owners: &[u32]) -> Result<(), Wrong> {
        if self.kind != FileType::RegularFile {
            return Err("is no regular file");
        }
        if self.known.stx_nlink > 1 {
            return Err("has more than one name (hard links)");
        }
        self.is_of(owners)
    }

    fn is_of(&self, owners: &[u32]) -> Result<(), Wrong> {
        if owners.contains(&self.known.stx_uid) {
            Ok(())
        } else {
            Err("is another user's")
        }
    }

    fn opened_for(&self, wanted: OFlags) -> Result<(), Wrong> {
        match self.flags & OFlags::RWMODE {
            mode if mode == wanted => Ok(()),
            _ if wanted == OFlags::RDONLY => Err("must be open for reading only"),
            _ if wanted == OFlags::WRONLY => Err("must be open for writing only"),
            _ => Err("must be open for reading and writing"),
        }
    }

    fn has_bytes(&self, min: u64, max: u64) -> Result<(), Wrong> {
        match self.known.stx_size {
            size if size < min => Err("is too small"),
            size if size > max => Err("is too large"),
            _ => Ok(()),
        }
    }

    /// One has no name, and its seals can be asked for; so can those of a file on tmpfs, which
    /// then lacks the needed ones.
    fn is_memfd(&self) -> bool {
        self.kind == FileType::RegularFile
            && self.known.stx_nlink == 0
            && fcntl_get_seals(self.fd.as_fd()).is_ok()
    }
}

fn invalid(text: &str) -> HelperError {
    HelperError::new(ErrorKind::InvalidArgument, text)
}

#[cfg(test)]
#[path = "../../tests/unit/launch_files.rs"]
mod tests;
