//! Structures of the disk as bytes.

use super::checksum::crc32c;
use super::content::Extent;
use super::layout::BLOCK;

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

/// A device's numbers in the form that holds them: the old one where it can.
pub(super) fn device(major: u32, minor: u32) -> [u8; 8] {
    let mut block = [0; 8];
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

/// A node above others: for each its first logical block, and where it is.
pub(super) fn index(area: &mut [u8], capacity: usize, depth: u16, nodes: &[(u32, u32)]) {
    extent_header(area, nodes.len(), capacity, depth);
    for (i, &(logical, block)) in nodes.iter().enumerate() {
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

/// Gives the blocks of a directory, one after the other, with their checksums.
pub(super) fn directory<E>(
    entries: impl Iterator<Item = (impl AsRef<[u8]>, u32, u16)>,
    inode_seed: u32,
    mut block_done: impl FnMut(&[u8; BLOCK]) -> Result<(), E>,
) -> Result<(), E> {
    let mut block = Box::new([0; BLOCK]);
    let (mut used, mut last) = (0, 0);
    for (name, number, mode) in entries {
        let name = name.as_ref();
        let len = (8 + name.len()).next_multiple_of(4);
        if used + len > BLOCK - DIR_TAIL {
            finish_dir_block(&mut block, last, inode_seed);
            block_done(&block)?;
            block.fill(0);
            used = 0;
        }
        last = used;
        put32(&mut block[..], last, number);
        put16(&mut block[..], last + 4, len as u16);
        block[last + 6] = name.len() as u8;
        block[last + 7] = file_type(mode);
        block[last + 8..][..name.len()].copy_from_slice(name);
        used += len;
    }
    finish_dir_block(&mut block, last, inode_seed);
    block_done(&block)
}

/// The last entry reaches to the tail; the tail looks like an entry to older programs.
fn finish_dir_block(block: &mut [u8; BLOCK], last: usize, inode_seed: u32) {
    let tail = BLOCK - DIR_TAIL;
    put16(block, last + 4, (tail - last) as u16);
    put16(block, tail + 4, DIR_TAIL as u16);
    block[tail + 7] = 0xde;
    let crc = crc32c(inode_seed, &block[..tail]);
    put32(block, tail + 8, crc);
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
pub(super) fn encode_time((seconds, nanos): (i64, u32)) -> (u32, u32) {
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
        assert_eq!(device(5, 1), [1, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(device(259, 300), [0, 0, 0, 0, 44, 3, 17, 0]);
    }

    #[test]
    fn directories_fill_whole_blocks() {
        let names: Vec<String> = (0..500).map(|i| format!("entry-number-{i}")).collect();
        let mut blocks = Vec::new();
        let entries = names.iter().map(|n| (n.as_bytes(), 12, S_IFREG));
        directory(entries, 1, |block| {
            blocks.extend_from_slice(block);
            Ok::<_, ()>(())
        })
        .unwrap();
        assert!(blocks.len() > 2 * BLOCK);
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
    }
}
