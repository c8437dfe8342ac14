//! Writes a file system in one pass: content goes to its final blocks as it arrives, what
//! describes it follows at the end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::checksum::crc32c;
use super::encode::{
    self, BLOCK_EXTENTS, Extent, FLAG_EXTENTS, Inode, MAX_EXTENT, ROOT_EXTENTS, S_IFBLK, S_IFCHR, S_IFDIR,
    S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK, inode_seed, seal_extents,
};
use super::layout::{Allocator, BLOCK, BLOCK_U64, Run};
use super::tree::{MAX_INODES, Slot, Tree};
use super::xattr::{self, Attribute, Place};

/// Content of one file system in bytes, holes included.
pub(super) const MAX_CONTENT: u64 = 64 << 30;
/// Content is read in pieces of this many bytes; one that is all zeros becomes a hole.
const PIECE: usize = 1 << 20;
/// Extents that two levels of a tree hold.
const MAX_EXTENTS: usize = ROOT_EXTENTS * BLOCK_EXTENTS;
/// Beyond this many extents holes are no longer made.
const HOLE_EXTENTS: usize = MAX_EXTENTS / 2;
/// A link's target up to this length lies in the inode.
const SHORT_LINK: usize = 59;

/// Why a file system could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    #[error("Cannot write")]
    Write(#[source] io::Error),
    #[error("Cannot read the content")]
    Read(#[source] io::Error),
    #[error("Bad path {:?}: {why}", .path.escape_ascii().to_string())]
    BadPath { path: Box<[u8]>, why: &'static str },
    #[error("Below something that is not a directory: {:?}", .0.escape_ascii().to_string())]
    NotADirectory(Box<[u8]>),
    #[error("Already a directory: {:?}", .0.escape_ascii().to_string())]
    IsADirectory(Box<[u8]>),
    #[error("A hard link to what is not there, or to a directory: {:?}", .0.escape_ascii().to_string())]
    BadLink(Box<[u8]>),
    #[error("More than {MAX_INODES} files")]
    TooManyFiles,
    #[error("More than 65000 hard links to one file")]
    TooManyLinks,
    #[error("More than {} GiB of content", MAX_CONTENT >> 30)]
    TooLarge,
    #[error("Extended attributes of more than 4 KiB: {:?}", .0.escape_ascii().to_string())]
    Attributes(Box<[u8]>),
    #[error("Content shorter than announced: {:?}", .0.escape_ascii().to_string())]
    Truncated(Box<[u8]>),
    #[error("Not a form of tar that is understood: {0}")]
    Unsupported(String),
    #[error("Cancelled")]
    Cancelled,
}

/// What an entry is.
pub enum Kind<'a> {
    Directory,
    /// Exactly `size` bytes are read.
    File {
        size: u64,
        content: &'a mut dyn Read,
    },
    Symlink {
        target: &'a [u8],
    },
    /// Another name of what `target` names already; the metadata is not looked at.
    HardLink {
        target: &'a [u8],
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

/// What an entry has beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permissions, without the type.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    pub mtime_nanos: u32,
    /// Extended attributes by their full names: `user.`, access control lists and
    /// capabilities. Others are left out.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A finished file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Of the file system, and of the sparse file that holds it.
    pub size: u64,
    /// Bytes of all files.
    pub content: u64,
    pub files: u32,
}

/// A file system in the making. Until [`Writer::finish`] succeeds the file is none.
#[derive(Debug)]
pub struct Writer {
    pub(super) output: Output,
    pub(super) allocator: Allocator,
    pub(super) tree: Tree,
    pub(super) uuid: [u8; 16],
    pub(super) hash_seed: [u8; 16],
    /// What all checksums start with.
    pub(super) seed: u32,
    content: u64,
    piece: Vec<u8>,
}

impl Writer {
    /// Makes the file, for the owner alone.
    ///
    /// # Errors
    /// [`WriteError::Write`], also when the file exists.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(WriteError::Write)?;
        let mut random = [0; 32];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| WriteError::Write(error.into()))?;
        let [mut uuid, hash_seed] = [0, 16].map(|at| {
            let mut half = [0; 16];
            half.copy_from_slice(&random[at..at + 16]);
            half
        });
        // RFC 9562: version 4, variant 1.
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        Ok(Self {
            output: Output::new(file),
            allocator: Allocator::new(),
            tree: Tree::new(crate::store::now().cast_signed()),
            uuid,
            hash_seed,
            seed: crc32c(!0, &uuid),
            content: 0,
            piece: vec![0; PIECE],
        })
    }

    /// Adds an entry. Directories that are missing on the way are made. What has the name
    /// already is replaced, except that a directory stays and takes the new metadata.
    ///
    /// # Errors
    /// Limits, bad paths and I/O; the writer is of no use afterwards.
    pub fn add(&mut self, path: &[u8], kind: Kind<'_>, metadata: &Metadata) -> Result<(), WriteError> {
        let Some(slot) = self.tree.slot(path)? else {
            return match kind {
                Kind::Directory => self.update(super::tree::ROOT, path, metadata),
                _ => Err(WriteError::IsADirectory(path.into())),
            };
        };
        if let Some(there) = slot.there
            && self.tree.is_dir(there)
        {
            return match kind {
                Kind::Directory => self.update(there, path, metadata),
                _ => Err(WriteError::IsADirectory(path.into())),
            };
        }
        if let Kind::HardLink { target } = kind {
            return self.hard_link(&slot, target);
        }
        self.tree.check_room()?;
        self.replace(&slot);
        let number = self.tree.next();
        let mut inode = self.inode(&kind, metadata);
        match kind {
            Kind::File { size, content } => {
                self.write_file(&mut inode, number, size, content, path)?;
            }
            Kind::Symlink { target } => self.write_link(&mut inode, number, target, path)?,
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                inode.block = encode::device(major, minor);
            }
            Kind::Directory | Kind::Fifo | Kind::Socket | Kind::HardLink { .. } => {}
        }
        self.attach(&mut inode, path, metadata)?;
        self.tree.add(&slot, inode);
        Ok(())
    }

    /// Bytes of the file so far, holes included.
    pub fn written(&self) -> u64 {
        u64::from(self.allocator.next()) * BLOCK_U64
    }

    /// Adds what makes a file system of it, and returns its figures. The file is not synced.
    ///
    /// # Errors
    /// [`WriteError::Write`], [`WriteError::TooLarge`].
    pub fn finish(self) -> Result<Summary, WriteError> {
        let content = self.content;
        super::seal::seal(self, content)
    }

    fn inode(&self, kind: &Kind<'_>, metadata: &Metadata) -> Inode {
        let kind = match kind {
            Kind::Directory => S_IFDIR,
            Kind::File { .. } | Kind::HardLink { .. } => S_IFREG,
            Kind::Symlink { .. } => S_IFLNK,
            Kind::CharDevice { .. } => S_IFCHR,
            Kind::BlockDevice { .. } => S_IFBLK,
            Kind::Fifo => S_IFIFO,
            Kind::Socket => S_IFSOCK,
        };
        let mut inode = Inode::new(kind);
        set_metadata(&mut inode, metadata);
        inode
    }

    /// A directory that is there takes new metadata.
    fn update(&mut self, number: u32, path: &[u8], metadata: &Metadata) -> Result<(), WriteError> {
        let Some(mut inode) = self.tree.get(number).cloned() else {
            return Err(WriteError::NotADirectory(path.into()));
        };
        set_metadata(&mut inode, metadata);
        for run in inode.owned.drain(..) {
            self.allocator.give_back(run);
        }
        inode.xattr_block = 0;
        inode.xattrs = None;
        self.attach(&mut inode, path, metadata)?;
        self.tree.set(number, inode);
        Ok(())
    }

    fn hard_link(&mut self, slot: &Slot<'_>, target: &[u8]) -> Result<(), WriteError> {
        let bad = || WriteError::BadLink(target.into());
        let number = self.tree.find(target)?.ok_or_else(bad)?;
        if self.tree.is_dir(number) {
            return Err(bad());
        }
        if slot.there == Some(number) {
            return Ok(());
        }
        self.replace(slot);
        self.tree.link(slot, number)
    }

    fn replace(&mut self, slot: &Slot<'_>) {
        if slot.there.is_some()
            && let Some(old) = self.tree.unlink(slot)
        {
            for run in old.owned {
                self.allocator.give_back(run);
            }
        }
    }

    fn attach(&mut self, inode: &mut Inode, path: &[u8], metadata: &Metadata) -> Result<(), WriteError> {
        let attributes = metadata
            .xattrs
            .iter()
            .filter_map(|(name, value)| Attribute::new(name, value))
            .collect();
        match xattr::place(attributes) {
            None => return Err(WriteError::Attributes(path.into())),
            Some(Place::None) => {}
            Some(Place::Inode(room)) => inode.xattrs = Some(room),
            Some(Place::Block(mut block)) => {
                let run = self.take(1)?;
                xattr::seal_block(&mut block, run.start, self.seed);
                self.output.write(run.start, &block[..])?;
                inode.xattr_block = run.start;
                own(inode, run);
            }
        }
        Ok(())
    }

    fn write_link(
        &mut self,
        inode: &mut Inode,
        number: u32,
        target: &[u8],
        path: &[u8],
    ) -> Result<(), WriteError> {
        if target.is_empty() || target.len() >= BLOCK || target.contains(&0) {
            return Err(WriteError::BadPath {
                path: path.into(),
                why: "a symbolic link without a usable target",
            });
        }
        // As the kernel: the permissions of a link mean nothing.
        inode.mode = S_IFLNK | 0o777;
        if target.len() <= SHORT_LINK {
            inode.size = target.len() as u64;
            inode.block[..target.len()].copy_from_slice(target);
            return Ok(());
        }
        self.write_file(inode, number, target.len() as u64, &mut &*target, path)
    }

    /// Reads content into blocks, and leaves out pieces that are all zeros.
    pub(super) fn write_file(
        &mut self,
        inode: &mut Inode,
        number: u32,
        size: u64,
        content: &mut dyn Read,
        path: &[u8],
    ) -> Result<(), WriteError> {
        self.content = self
            .content
            .checked_add(size)
            .filter(|&total| total <= MAX_CONTENT)
            .ok_or(WriteError::TooLarge)?;
        let mut piece = std::mem::take(&mut self.piece);
        let mut extents: Vec<Extent> = Vec::new();
        let mut done = 0;
        while done < size {
            let len = (size - done).min(PIECE as u64) as usize;
            content
                .read_exact(&mut piece[..len])
                .map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => WriteError::Truncated(path.into()),
                    _ => WriteError::Read(error),
                })?;
            let hole =
                len == PIECE && extents.len() < HOLE_EXTENTS && piece[..len].iter().all(|&byte| byte == 0);
            if !hole {
                let logical = (done / BLOCK_U64) as u32;
                self.write_piece(inode, &mut extents, logical, &piece[..len])?;
            }
            done += len as u64;
        }
        self.piece = piece;
        inode.size = size;
        self.write_extents(inode, number, &extents)
    }

    fn write_piece(
        &mut self,
        inode: &mut Inode,
        extents: &mut Vec<Extent>,
        mut logical: u32,
        mut bytes: &[u8],
    ) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let run = self.take(bytes.len().div_ceil(BLOCK) as u32)?;
            let (now, later) = bytes.split_at(bytes.len().min(run.len as usize * BLOCK));
            self.output.write(run.start, now)?;
            own(inode, run);
            extend(extents, Extent { logical, run });
            logical += run.len;
            bytes = later;
        }
        Ok(())
    }

    /// Stores where a file's blocks are: in the inode, or one level below it.
    pub(super) fn write_extents(
        &mut self,
        inode: &mut Inode,
        number: u32,
        extents: &[Extent],
    ) -> Result<(), WriteError> {
        inode.flags |= FLAG_EXTENTS;
        if extents.len() <= ROOT_EXTENTS {
            encode::leaf(&mut inode.block, ROOT_EXTENTS, extents);
            return Ok(());
        }
        if extents.len() > MAX_EXTENTS {
            return Err(WriteError::TooLarge);
        }
        let mut leaves = Vec::new();
        for chunk in extents.chunks(BLOCK_EXTENTS) {
            let run = self.take(1)?;
            let mut block = Box::new([0; BLOCK]);
            encode::leaf(&mut block[..], BLOCK_EXTENTS, chunk);
            seal_extents(&mut block, inode_seed(self.seed, number));
            self.output.write(run.start, &block[..])?;
            own(inode, run);
            leaves.push((chunk[0].logical, run.start));
        }
        encode::index(&mut inode.block, ROOT_EXTENTS, &leaves);
        Ok(())
    }

    pub(super) fn take(&mut self, most: u32) -> Result<Run, WriteError> {
        self.allocator.take(most).ok_or(WriteError::TooLarge)
    }
}

fn set_metadata(inode: &mut Inode, metadata: &Metadata) {
    inode.mode = inode.mode & encode::S_IFMT | metadata.mode & 0o7777;
    inode.uid = metadata.uid;
    inode.gid = metadata.gid;
    inode.mtime = (metadata.mtime, metadata.mtime_nanos);
}

/// Notes blocks of an inode; those that follow the last ones make them longer.
pub(super) fn own(inode: &mut Inode, run: Run) {
    match inode.owned.last_mut() {
        Some(last) if last.end() == run.start => last.len += run.len,
        _ => inode.owned.push(run),
    }
}

/// Adds blocks to a file; those that follow the last ones make its extent longer.
pub(super) fn extend(extents: &mut Vec<Extent>, mut more: Extent) {
    if let Some(last) = extents.last_mut()
        && last.run.end() == more.run.start
        && last.logical + last.run.len == more.logical
    {
        let room = (MAX_EXTENT - last.run.len).min(more.run.len);
        last.run.len += room;
        more.logical += room;
        more.run.start += room;
        more.run.len -= room;
    }
    while more.run.len > 0 {
        let len = more.run.len.min(MAX_EXTENT);
        let run = Run {
            start: more.run.start,
            len,
        };
        extents.push(Extent {
            logical: more.logical,
            run,
        });
        more.logical += len;
        more.run.start += len;
        more.run.len -= len;
    }
}

/// The file, with writes that follow each other put together.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    pending: Vec<u8>,
    at: u64,
}

impl Output {
    fn new(file: File) -> Self {
        Self {
            file,
            pending: Vec::with_capacity(2 * PIECE),
            at: 0,
        }
    }

    /// Writes bytes from the start of a block; the rest of the last block stays zero.
    pub(super) fn write(&mut self, block: u32, bytes: &[u8]) -> Result<(), WriteError> {
        let at = u64::from(block) * BLOCK_U64;
        let follows = self.at + self.pending.len() as u64 == at;
        let direct = bytes.len() >= PIECE;
        if !follows || direct || self.pending.len() + bytes.len() > 2 * PIECE {
            self.flush()?;
            self.at = at;
        }
        if direct {
            self.file.write_all_at(bytes, at).map_err(WriteError::Write)?;
            self.at = at + bytes.len() as u64;
            return Ok(());
        }
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len().next_multiple_of(BLOCK);
        self.pending.resize(whole, 0);
        Ok(())
    }

    /// Writes what is pending, and gives the file its length.
    pub(super) fn finish(mut self, len: u64) -> Result<(), WriteError> {
        self.flush()?;
        self.file.set_len(len).map_err(WriteError::Write)
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.file
            .write_all_at(&self.pending, self.at)
            .map_err(WriteError::Write)?;
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}
