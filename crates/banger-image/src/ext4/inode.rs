//! Inodes in memory, small because there may be a million, and as bytes.

use super::checksum::crc32c;
use super::content::{self, Extent};
use super::encode::{FLAG_EXTENTS, ROOT_EXTENTS, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, encode_time, leaf};
use super::encode::{put16, put32};
use super::layout::{INODE, Run};
use super::limits::MAX_HARD_LINKS;
use super::xattr::INODE_END;

/// No entry, where the number of one could be.
pub(super) const NONE: u32 = u32::MAX;
/// A link's target up to this length lies in the inode.
pub(super) const SHORT_LINK: usize = 59;
/// The attributes beside an inode.
pub(super) type InodeAttributes = [u8; INODE - INODE_END];

/// An inode's fields, without its number.
#[derive(Debug)]
pub(super) struct Inode {
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// In the form of the disk.
    mtime: (u32, u32),
    /// The block of its attributes, or 0.
    pub(super) xattr_block: u32,
    pub(super) xattrs: Option<Box<InodeAttributes>>,
    pub(super) body: Body,
}

/// What an inode has beside its fields.
#[derive(Debug)]
pub(super) enum Body {
    /// No blocks, for instance an empty file.
    None,
    /// Blocks in a row from the file's start.
    Run(Run),
    /// Any other blocks.
    Blocks(Box<Blocks>),
    /// A directory while it is filled.
    Directory(Directory),
    /// A link: where its target starts in the tree's text, and its block when it is long.
    Link {
        text: u32,
        block: u32,
    },
    Device([u8; 8]),
}

#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) flags: u32,
    /// The root of the tree of extents.
    pub(super) root: [u8; 60],
    /// All blocks, those of the tree too.
    pub(super) owned: Vec<Run>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Directory {
    pub(super) parent: u32,
    /// The first of its entries, or [`NONE`].
    pub(super) first: u32,
    /// The layer up to which everything older was hidden here: nothing of a lower one is left.
    pub(super) bare_since: u16,
    /// Directories above it.
    pub(super) depth: u16,
}

impl Inode {
    pub(super) fn new(mode: u16, time: i64) -> Self {
        Self {
            mode,
            links: 1,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: encode_time((time, 0)),
            xattr_block: 0,
            xattrs: None,
            body: Body::None,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }

    /// Sets permissions, owner and time.
    pub(super) fn describe(&mut self, permissions: u16, (uid, gid): (u32, u32), mtime: (i64, u32)) {
        self.mode = self.mode & S_IFMT | permissions & 0o7777;
        self.uid = uid;
        self.gid = gid;
        self.mtime = encode_time(mtime);
    }

    /// Blocks of the file and of what describes it.
    pub(super) fn for_each_run(&self, mut take: impl FnMut(Run)) {
        match &self.body {
            Body::Run(run) => take(*run),
            Body::Blocks(blocks) => blocks.owned.iter().for_each(|&run| take(run)),
            Body::Link { block, .. } if *block != 0 => take(Run {
                start: *block,
                len: 1,
            }),
            _ => {}
        }
        if self.xattr_block != 0 {
            take(Run {
                start: self.xattr_block,
                len: 1,
            });
        }
    }

    /// Bytes that it takes beside itself.
    pub(super) fn details(&self) -> usize {
        let blocks = match &self.body {
            Body::Blocks(blocks) => size_of::<Blocks>() + blocks.owned.len() * size_of::<Run>(),
            _ => 0,
        };
        blocks + self.xattrs.as_ref().map_or(0, |_| size_of::<InodeAttributes>())
    }

    /// The inode's bytes, with the checksum for its number. `text` has the targets of links.
    pub(super) fn encode(&self, number: u32, seed: u32, text: &[u8]) -> [u8; INODE] {
        let mut raw = [0; INODE];
        let (seconds, extra) = self.mtime;
        let mut blocks = 0u64;
        self.for_each_run(|run| blocks += u64::from(run.len));
        let links = if self.is_dir() && self.links > MAX_HARD_LINKS {
            1
        } else {
            self.links
        };
        let (flags, root) = self.root(text);
        put16(&mut raw, 0x00, self.mode);
        put16(&mut raw, 0x02, self.uid as u16);
        put32(&mut raw, 0x04, self.size as u32);
        for field in [0x08, 0x0c, 0x10, 0x90] {
            put32(&mut raw, field, seconds);
        }
        put16(&mut raw, 0x18, self.gid as u16);
        put16(&mut raw, 0x1a, links as u16);
        // In sectors.
        put32(&mut raw, 0x1c, (blocks * 8) as u32);
        put16(&mut raw, 0x74, ((blocks * 8) >> 32) as u16);
        put32(&mut raw, 0x20, flags);
        raw[0x28..0x64].copy_from_slice(&root);
        put32(&mut raw, 0x68, self.xattr_block);
        put32(&mut raw, 0x6c, (self.size >> 32) as u32);
        put16(&mut raw, 0x78, (self.uid >> 16) as u16);
        put16(&mut raw, 0x7a, (self.gid >> 16) as u16);
        put16(&mut raw, 0x80, (INODE_END - 128) as u16);
        for field in [0x84, 0x88, 0x8c, 0x94] {
            put32(&mut raw, field, extra);
        }
        if let Some(xattrs) = &self.xattrs {
            raw[INODE_END..].copy_from_slice(&xattrs[..]);
        }
        let crc = crc32c(inode_seed(seed, number), &raw);
        put16(&mut raw, 0x7c, crc as u16);
        put16(&mut raw, 0x82, (crc >> 16) as u16);
        raw
    }

    /// The flags, and the sixty bytes that say where the blocks are.
    pub(super) fn root(&self, text: &[u8]) -> (u32, [u8; 60]) {
        let mut root = [0; 60];
        let extents = |runs: &[Run]| {
            let mut extents: Vec<Extent> = Vec::new();
            for &run in runs {
                content::extend(&mut extents, Extent { logical: 0, run });
            }
            let mut root = [0; 60];
            leaf(&mut root, ROOT_EXTENTS, &extents);
            (FLAG_EXTENTS, root)
        };
        match &self.body {
            Body::None | Body::Directory(_) => match self.mode & S_IFMT {
                S_IFREG | S_IFDIR | S_IFLNK => extents(&[]),
                _ => (0, root),
            },
            Body::Run(run) => extents(&[*run]),
            Body::Blocks(blocks) => (blocks.flags, blocks.root),
            Body::Link { block: 0, text: at } => {
                let target = text[*at as usize..].get(..self.size as usize);
                let target = target.unwrap_or_default();
                root[..target.len()].copy_from_slice(target);
                (0, root)
            }
            Body::Link { block, .. } => extents(&[Run {
                start: *block,
                len: 1,
            }]),
            Body::Device(numbers) => {
                root[..8].copy_from_slice(numbers);
                (0, root)
            }
        }
    }
}

/// What the checksums of an inode and of its blocks start with; generations are all zero.
pub(super) fn inode_seed(seed: u32, number: u32) -> u32 {
    crc32c(crc32c(seed, &number.to_le_bytes()), &[0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_take_little_memory() {
        assert!(size_of::<Option<Inode>>() <= 64, "{}", size_of::<Option<Inode>>());
    }
}
