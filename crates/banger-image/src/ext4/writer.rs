//! Writes a file system in one pass: content goes to its final blocks as it arrives, what
//! describes it follows at the end.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::checksum::crc32c;
use super::content::PIECE;
use super::encode::{self, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK};
use super::entry::{Kind, Metadata, Segment, Summary};
use super::error::WriteError;
use super::inode::{Body, Inode, InodeAttributes, SHORT_LINK};
use super::layout::{Allocator, BLOCK_U64, Run};
use super::limits::{MAX_ENTRIES, MAX_TARGET};
use super::output::Output;
use super::path;
use super::seed::Seed;
use super::tree::{LOST_FOUND, ROOT, Slot, Tree};
use super::whiteout::Whiteout;
use super::xattr::{self, Attribute, Place};

/// A file system in the making. Until [`Writer::finish`] succeeds the file is none.
#[derive(Debug)]
pub struct Writer {
    pub(super) output: Output,
    pub(super) allocator: Allocator,
    pub(super) tree: Tree,
    pub(super) identity: Seed,
    /// What all checksums start with.
    pub(super) seed: u32,
    pub(super) content: u64,
    pub(super) piece: Vec<u8>,
    entries: u32,
}

impl Writer {
    /// Begins in an empty file that is open for reading and writing.
    ///
    /// # Errors
    /// [`WriteError::NotEmpty`]: what the file had would stay between what is written.
    pub fn new(file: File, seed: Seed) -> Result<Self, WriteError> {
        // A confined process may ask for no more than fstat(2).
        let found = rustix::fs::fstat(&file).map_err(|error| WriteError::Write(error.into()))?;
        if found.st_size != 0 {
            return Err(WriteError::NotEmpty);
        }
        Ok(Self {
            output: Output::new(file),
            allocator: Allocator::new(),
            tree: Tree::new(seed.time),
            seed: crc32c(!0, &seed.uuid),
            identity: seed,
            content: 0,
            piece: vec![0; PIECE],
            entries: 0,
        })
    }

    /// Makes the file, for the owner alone, and begins in it with a random seed.
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
        Self::new(file, Seed::random().map_err(WriteError::Write)?)
    }

    /// Begins the next layer: its whiteouts hide what is there now, and nothing that is added
    /// after this. Layers beyond the 65535th belong to that one.
    pub fn begin_layer(&mut self) {
        self.tree.layer = self.tree.layer.saturating_add(1);
    }

    /// Adds an entry. Directories that are missing on the way are made, links on the way are
    /// followed inside the tree. What has the name already is replaced, a whole directory too,
    /// except that a directory over a directory only changes its metadata. The root and
    /// `lost+found` stay directories.
    ///
    /// # Errors
    /// Limits, bad paths and I/O; the writer is of no use afterwards.
    pub fn add(&mut self, path: &[u8], kind: Kind<'_>, metadata: &Metadata) -> Result<(), WriteError> {
        let Some(place) = path::split(path)? else {
            return match kind {
                Kind::Directory => self.update(ROOT, path, metadata),
                _ => Err(WriteError::IsADirectory(path.into())),
            };
        };
        let slot = self.tree.make_way(place)?;
        let there = slot.there.map(|entry| (entry, self.tree.inode_of(entry)));
        match (&kind, there) {
            (Kind::Directory, Some((entry, number))) if self.tree.is_dir(number) => {
                self.tree.touch(entry);
                return self.update(number, path, metadata);
            }
            (_, Some((_, LOST_FOUND))) => return Err(WriteError::IsADirectory(path.into())),
            _ => {}
        }
        match kind {
            Kind::HardLink { target } => self.hard_link(&slot, target),
            Kind::Directory => {
                self.clear(&slot);
                let number = self.tree.add_directory(&slot, path)?;
                self.update(number, path, metadata)
            }
            kind => {
                self.clear(&slot);
                self.add_inode(&slot, kind, path, metadata)
            }
        }
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
        super::seal::seal(self)
    }

    /// Counts one entry of an archive.
    pub(super) fn count_entry(&mut self) -> Result<(), WriteError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(WriteError::TooManyEntries);
        }
        Ok(())
    }

    pub(super) fn hide(&mut self, whiteout: Whiteout<'_>) -> Result<(), WriteError> {
        self.tree.apply(whiteout, &mut self.allocator)
    }

    pub(super) fn take(&mut self, most: u32) -> Result<Run, WriteError> {
        self.allocator.take(most).ok_or(WriteError::TooLarge)
    }

    /// Adds what is neither a directory nor a second name.
    fn add_inode(
        &mut self,
        slot: &Slot<'_>,
        kind: Kind<'_>,
        path: &[u8],
        metadata: &Metadata,
    ) -> Result<(), WriteError> {
        self.tree.check_room()?;
        let number = self.tree.next();
        let mut inode = Inode::new(format(&kind), 0);
        let mut permissions = metadata.mode;
        match kind {
            Kind::File { size, content } => {
                inode.size = size;
                let whole = [Segment { offset: 0, len: size }];
                inode.body = self.write_file(number, size, &whole, content, path)?;
            }
            Kind::Sparse {
                size,
                segments,
                content,
            } => {
                inode.size = size;
                inode.body = self.write_file(number, size, segments, content, path)?;
            }
            Kind::Symlink { target } => {
                inode.size = target.len() as u64;
                inode.body = self.write_link(target, path)?;
                // As the kernel: the permissions of a link mean nothing.
                permissions = 0o777;
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                inode.body = Body::Device(encode::device(major, minor));
            }
            Kind::Directory | Kind::HardLink { .. } | Kind::Fifo | Kind::Socket => {}
        }
        describe(&mut inode, permissions, metadata);
        (inode.xattr_block, inode.xattrs) = self.attributes(path, metadata)?;
        self.tree.add(slot, inode)?;
        Ok(())
    }

    /// A directory that is there takes new metadata.
    fn update(&mut self, number: u32, path: &[u8], metadata: &Metadata) -> Result<(), WriteError> {
        self.tree.drop_attributes(number, &mut self.allocator);
        let (block, beside) = self.attributes(path, metadata)?;
        if beside.is_some() {
            self.tree.charge(size_of::<InodeAttributes>())?;
        }
        if let Some(inode) = self.tree.get_mut(number) {
            describe(inode, metadata.mode, metadata);
            (inode.xattr_block, inode.xattrs) = (block, beside);
        }
        Ok(())
    }

    fn hard_link(&mut self, slot: &Slot<'_>, target: &[u8]) -> Result<(), WriteError> {
        let bad = || WriteError::BadLink(target.into());
        let found = self.tree.find(path::split(target)?.ok_or_else(bad)?)?;
        let entry = found.and_then(|found| found.there).ok_or_else(bad)?;
        let number = self.tree.inode_of(entry);
        if self.tree.is_dir(number) {
            return Err(bad());
        }
        if let Some(there) = slot.there
            && self.tree.inode_of(there) == number
        {
            self.tree.touch(there);
            return Ok(());
        }
        self.clear(slot);
        // It may have been below what has just been replaced.
        self.tree.get(number).ok_or_else(bad)?;
        self.tree.link(slot, number)
    }

    /// Makes a name free.
    fn clear(&mut self, slot: &Slot<'_>) {
        if let Some(entry) = slot.there {
            self.tree.remove(entry, &mut self.allocator);
        }
    }

    /// Lays out the attributes of an entry: in a block whose number is returned, or beside
    /// the inode.
    fn attributes(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
    ) -> Result<(u32, Option<Box<InodeAttributes>>), WriteError> {
        let attributes = metadata
            .xattrs
            .iter()
            .filter_map(|(name, value)| Attribute::new(name, value))
            .collect();
        match xattr::place(attributes) {
            None => Err(WriteError::Attributes(path.into())),
            Some(Place::None) => Ok((0, None)),
            Some(Place::Inode(room)) => Ok((0, Some(room))),
            Some(Place::Block(mut block)) => {
                let run = self.take(1)?;
                xattr::seal_block(&mut block, run.start, self.seed);
                self.output.write(run.start, &block[..])?;
                Ok((run.start, None))
            }
        }
    }

    /// A target that is too long for the inode has a block; for those that follow it, it is
    /// kept here as well.
    fn write_link(&mut self, target: &[u8], path: &[u8]) -> Result<Body, WriteError> {
        if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
            return Err(WriteError::BadPath {
                path: path.into(),
                why: "a symbolic link without a usable target",
            });
        }
        let text = self.tree.keep(target)?;
        let mut block = 0;
        if target.len() > SHORT_LINK {
            block = self.take(1)?.start;
            self.output.write(block, target)?;
        }
        Ok(Body::Link { text, block })
    }
}

fn format(kind: &Kind<'_>) -> u16 {
    match kind {
        Kind::Directory => S_IFDIR,
        Kind::File { .. } | Kind::Sparse { .. } | Kind::HardLink { .. } => S_IFREG,
        Kind::Symlink { .. } => S_IFLNK,
        Kind::CharDevice { .. } => S_IFCHR,
        Kind::BlockDevice { .. } => S_IFBLK,
        Kind::Fifo => S_IFIFO,
        Kind::Socket => S_IFSOCK,
    }
}

fn describe(inode: &mut Inode, permissions: u16, metadata: &Metadata) {
    inode.describe(
        permissions,
        (metadata.uid, metadata.gid),
        (metadata.mtime, metadata.mtime_nanos),
    );
}

#[cfg(test)]
mod tests {
    use super::super::{apply_layer, unpack};
    use super::*;

    #[test]
    fn entries_are_counted_over_all_layers() {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..9].copy_from_slice(b".wh.other");
        header.set_size(0);
        header.set_cksum();
        let archive = &header.as_bytes()[..];
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file, Seed::from_digest(&[0; 32], 0)).unwrap();
        writer.entries = MAX_ENTRIES - 2;
        unpack(archive, &mut writer, |_| Ok(())).unwrap();
        writer.begin_layer();
        // One that adds nothing counts, too.
        apply_layer(archive, &mut writer, |_| Ok(())).unwrap();
        let error = apply_layer(archive, &mut writer, |_| Ok(())).unwrap_err();
        assert!(matches!(error, WriteError::TooManyEntries), "{error}");
    }
}
