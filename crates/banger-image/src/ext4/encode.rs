//! Structures of the disk as bytes.

use super::checksum::crc32c;
use super::layout::{BLOCK, INODE, Run};
use super::xattr::INODE_END;

pub(super) const S_IFIFO: u16 = 0o010_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;
pub(super) const S_IFSOCK: u16 = 0o140_000;
pub(super) const S_IFMT: u16 = 0o170_000;

/// The inode's blocks are an extent tree.
pub(super) const FLAG_EXTENTS: u32 = 0x8_0000;
/// Bytes at the end of a directory block that hold its checksum.
pub(super) const DIR_TAIL: usize = 12;
/// Extents in the inode itself, and in a block.
pub(super) const ROOT_EXTENTS: usize = 4;
pub(super) const BLOCK_EXTENTS: usize = (BLOCK - 12) / 12;
/// Blocks of one extent.
pub(super) const MAX_EXTENT: u32 = 32768;
/// A directory with more links says 1 (feature `dir_nlink`).
pub(super) const MAX_LINKS: u32 = 65_000;

/// An inode's fields, without its number.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) links: u32,
    pub(super) flags: u32,
    /// Extents, a short link's target, or a device's numbers.
    pub(super) block: [u8; 60],
    /// The block of its attributes, or 0.
    pub(super) xattr_block: u32,
    pub(super) xattrs: Option<Box<[u8; INODE - INODE_END]>>,
    /// All blocks that it has, of its content and of its structures.
    pub(super) owned: Vec<Run>,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first block, counted in the file.
    pub(super) logical: u32,
    pub(super) run: Run,
}

impl Inode {
    pub(super) fn new(mode: u16) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            links: 1,
            flags: 0,
            block: [0; 60],
            xattr_block: 0,
            xattrs: None,
            owned: Vec::new(),
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }

    /// The inode's bytes, with the checksum for its number.
    pub(super) fn encode(&self, number: u32, seed: u32) -> [u8; INODE] {
        let mut raw = [0; INODE];
        let (seconds, extra) = encode_time(self.mtime);
        let blocks: u64 = self.owned.iter().map(|run| u64::from(run.len)).sum();
        let links = if self.is_dir() && self.links > MAX_LINKS {
            1
        } else {
            self.links
        };
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
        put32(&mut raw, 0x20, self.flags);
        raw[0x28..0x64].copy_from_slice(&self.block);
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
}

/// What the checksums of an inode and of its blocks start with; generations are all zero.
pub(super) fn inode_seed(seed: u32, number: u32) -> u32 {
    crc32c(crc32c(seed, &number.to_le_bytes()), &[0; 4])
}

/// A device's numbers in the form that holds them: the old one where it can.
pub(super) fn device(major: u32, minor: u32) -> [u8; 60] {
    let mut block = [0; 60];
    if major < 256 && minor < 256 {
        put32(&mut block, 0, (major << 8) | minor);
    } else {
        let new = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        put32(&mut block, 4, new);
    }
    block
}

/// A node of an extent tree: its header, then its extents.
pub(super) fn leaf(area: &mut [u8], capacity: usize, extents: &[Extent]) {
    extent_header(area, extents.len(), capacity, 0);
    for (i, extent) in extents.iter().enumerate() {
        let at = 12 + 12 * i;
        put32(area, at, extent.logical);
        put16(area, at + 4, extent.run.len as u16);
        put32(area, at + 8, extent.run.start);
    }
}

/// A node above leaves: for each its first logical block, and where it is.
pub(super) fn index(area: &mut [u8], capacity: usize, leaves: &[(u32, u32)]) {
    extent_header(area, leaves.len(), capacity, 1);
    for (i, &(logical, block)) in leaves.iter().enumerate() {
        let at = 12 + 12 * i;
        put32(area, at, logical);
        put32(area, at + 4, block);
    }
}

/// Sets the checksum behind a full block of extents.
pub(super) fn seal_extents(block: &mut [u8; BLOCK], inode_seed: u32) {
    let at = BLOCK - 4;
    let crc = crc32c(inode_seed, &block[..at]);
    put32(block, at, crc);
}

fn extent_header(area: &mut [u8], entries: usize, capacity: usize, depth: u16) {
    put16(area, 0, 0xf30a);
    put16(area, 2, entries as u16);
    put16(area, 4, capacity as u16);
    put16(area, 6, depth);
}

/// A directory's blocks, with their checksums.
pub(super) fn directory(entries: &mut dyn Iterator<Item = (&[u8], u32, u16)>, inode_seed: u32) -> Vec<u8> {
    let mut blocks = Vec::new();
    let mut used = BLOCK;
    let mut last = 0;
    for (name, number, mode) in entries {
        let len = (8 + name.len()).next_multiple_of(4);
        if used + len > BLOCK - DIR_TAIL {
            finish_dir_block(&mut blocks, last, inode_seed);
            blocks.resize(blocks.len() + BLOCK, 0);
            used = 0;
        }
        last = blocks.len() - BLOCK + used;
        put32(&mut blocks, last, number);
        put16(&mut blocks, last + 4, len as u16);
        blocks[last + 6] = name.len() as u8;
        blocks[last + 7] = file_type(mode);
        blocks[last + 8..][..name.len()].copy_from_slice(name);
        used += len;
    }
    finish_dir_block(&mut blocks, last, inode_seed);
    blocks
}

/// The last entry reaches to the tail; the tail looks like an entry to older programs.
fn finish_dir_block(blocks: &mut [u8], last: usize, inode_seed: u32) {
    let Some(start) = blocks.len().checked_sub(BLOCK) else {
        return;
    };
    let tail = blocks.len() - DIR_TAIL;
    put16(blocks, last + 4, (tail - last) as u16);
    put16(blocks, tail + 4, DIR_TAIL as u16);
    blocks[tail + 7] = 0xde;
    let crc = crc32c(inode_seed, &blocks[start..tail]);
    put32(blocks, tail + 8, crc);
}

fn file_type(mode: u16) -> u8 {
    match mode & S_IFMT {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFSOCK => 6,
        _ => 7,
    }
}

/// The low 32 bits of the seconds, and what else belongs to a time: two more bits, and the
/// nanoseconds.
fn encode_time((seconds, nanos): (i64, u32)) -> (u32, u32) {
    let seconds = seconds.clamp(i64::from(i32::MIN), (1 << 34) - 1 + i64::from(i32::MIN));
    let low = seconds as i32;
    let epoch = ((seconds - i64::from(low)) >> 32) as u32;
    (low.cast_unsigned(), (nanos.min(999_999_999) << 2) | epoch)
}

pub(super) fn put16(area: &mut [u8], at: usize, value: u16) {
    area[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put32(area: &mut [u8], at: usize, value: u32) {
    area[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_reach_from_1901_to_2446() {
        assert_eq!(encode_time((0, 5)), (0, 20));
        assert_eq!(encode_time((-1, 0)), (u32::MAX, 0));
        assert_eq!(encode_time((1 << 31, 0)), (1 << 31, 1));
        assert_eq!(encode_time((1 << 32, 0)), (0, 1));
        assert_eq!(encode_time((i64::MAX, u32::MAX)).1 & 3, 3);
        assert_eq!(encode_time((i64::MIN, 0)), (1 << 31, 0));
    }

    #[test]
    fn devices_have_two_forms() {
        assert_eq!(device(5, 1)[..8], [1, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(device(259, 300)[..8], [0, 0, 0, 0, 44, 3, 17, 0]);
    }

    #[test]
    fn directories_fill_whole_blocks() {
        let names: Vec<String> = (0..500).map(|i| format!("entry-number-{i}")).collect();
        let blocks = directory(&mut names.iter().map(|n| (n.as_bytes(), 12, S_IFREG)), 1);
        assert_eq!(blocks.len() % BLOCK, 0);
        let mut seen = 0;
        for block in blocks.chunks(BLOCK) {
            let mut at = 0;
            while at < BLOCK {
                let len = usize::from(u16::from_le_bytes([block[at + 4], block[at + 5]]));
                assert!(len >= 8 && len.is_multiple_of(4));
                seen += usize::from(block[at] == 12);
                at += len;
            }
            assert_eq!(at, BLOCK);
        }
        assert_eq!(seen, names.len());
        assert!(directory(&mut std::iter::empty(), 1).is_empty());
    }
}
