//! Recognises an ext4 file system by its superblock, which may be anything.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the superblock starts, and its length, in bytes.
const OFFSET: u64 = 1024;
const LEN: usize = 1024;
const MAGIC: u16 = 0xef53;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
const COMPAT_HAS_JOURNAL: u32 = 0x4;

/// What a superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Bytes of a block.
    pub block_size: u32,
    pub blocks: u64,
    pub free_blocks: u64,
    pub inodes: u32,
    pub uuid: [u8; 16],
    pub has_journal: bool,
    /// It was not unmounted cleanly: its journal is read when it is mounted next.
    pub needs_recovery: bool,
}

/// Why a file is not taken for a file system.
#[derive(Debug, thiserror::Error)]
pub enum SuperblockError {
    #[error("Cannot read")]
    Read(#[source] io::Error),
    #[error("Too short for a file system")]
    Short,
    #[error("No ext4 superblock: make one with mkfs.ext4, or convert the file")]
    Magic,
    #[error("A partition table: give the partition's content alone")]
    Partitions,
    #[error("ext2 or ext3, not ext4 (tune2fs -O extents,uninit_bg,dir_index changes that)")]
    NotExt4,
    #[error("The journal of another file system")]
    JournalDevice,
    #[error("A damaged superblock: {0}")]
    Damaged(&'static str),
    #[error("Cut off: the file has {have} bytes, the file system {blocks} blocks of {block_size}")]
    Truncated { have: u64, blocks: u64, block_size: u32 },
}

impl Superblock {
    /// Reads and checks a file's superblock. Nothing else of the file is looked at.
    ///
    /// # Errors
    /// Whatever would keep a guest from mounting it.
    pub fn read(file: &File) -> Result<Self, SuperblockError> {
        let len = file.metadata().map_err(SuperblockError::Read)?.len();
        let mut head = [0; OFFSET as usize + LEN];
        if len < head.len() as u64 {
            return Err(SuperblockError::Short);
        }
        file.read_exact_at(&mut head, 0).map_err(SuperblockError::Read)?;
        Self::parse(&head, len)
    }

    /// Bytes of the whole file system.
    pub fn size(&self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block_size))
    }

    fn parse(head: &[u8; OFFSET as usize + LEN], len: u64) -> Result<Self, SuperblockError> {
        let raw = &head[OFFSET as usize..];
        let u16_at = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        if u16_at(0x38) != MAGIC {
            let partitions = head[510..512] == [0x55, 0xaa] || &head[512..520] == b"EFI PART";
            return Err(if partitions {
                SuperblockError::Partitions
            } else {
                SuperblockError::Magic
            });
        }
        let (compat, incompat) = (u32_at(0x5c), u32_at(0x60));
        if incompat & INCOMPAT_JOURNAL_DEV != 0 {
            return Err(SuperblockError::JournalDevice);
        }
        if incompat & INCOMPAT_EXTENTS == 0 {
            return Err(SuperblockError::NotExt4);
        }
        let log_block_size = u32_at(0x18);
        if log_block_size > 6 {
            return Err(SuperblockError::Damaged("its block size"));
        }
        let block_size = 1024 << log_block_size;
        let high = |at| {
            if incompat & INCOMPAT_64BIT != 0 {
                u64::from(u32_at(at)) << 32
            } else {
                0
            }
        };
        let blocks = u64::from(u32_at(0x04)) | high(0x150);
        let free_blocks = u64::from(u32_at(0x0c)) | high(0x158);
        let (per_group, inodes_per_group) = (u32_at(0x20), u32_at(0x28));
        if blocks == 0 || free_blocks > blocks {
            return Err(SuperblockError::Damaged("its number of blocks"));
        }
        if per_group == 0 || inodes_per_group == 0 || inodes_per_group > block_size * 8 {
            return Err(SuperblockError::Damaged("its groups"));
        }
        if blocks
            .checked_mul(u64::from(block_size))
            .is_none_or(|size| size > len)
        {
            return Err(SuperblockError::Truncated {
                have: len,
                blocks,
                block_size,
            });
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&raw[0x68..0x78]);
        Ok(Self {
            block_size,
            blocks,
            free_blocks,
            inodes: u32_at(0),
            uuid,
            has_journal: compat & COMPAT_HAS_JOURNAL != 0,
            needs_recovery: incompat & INCOMPAT_RECOVER != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> [u8; 2048] {
        let mut head = [0; 2048];
        let mut put = |at: usize, value: u32| {
            head[1024 + at..1024 + at + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(0x00, 16);
        put(0x04, 1000);
        put(0x0c, 10);
        put(0x18, 2);
        put(0x20, 32768);
        put(0x28, 16);
        put(0x38, u32::from(MAGIC));
        put(0x60, INCOMPAT_EXTENTS);
        head
    }

    #[test]
    fn a_sane_one_is_read() {
        let read = Superblock::parse(&good(), 4_096_000).unwrap();
        assert_eq!((read.block_size, read.size()), (4096, 4_096_000));
        assert!(matches!(
            Superblock::parse(&good(), 4_095_999),
            Err(SuperblockError::Truncated { .. })
        ));
    }

    #[test]
    fn other_content_is_named() {
        let mut head = [0; 2048];
        assert!(matches!(
            Superblock::parse(&head, 4096),
            Err(SuperblockError::Magic)
        ));
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(matches!(
            Superblock::parse(&head, 4096),
            Err(SuperblockError::Partitions)
        ));
        let mut head = good();
        head[1024 + 0x60] = 0;
        assert!(matches!(
            Superblock::parse(&head, 4_096_000),
            Err(SuperblockError::NotExt4)
        ));
    }

    #[test]
    fn no_content_panics() {
        // Every field at its extremes, one at a time.
        for at in (0..1024).step_by(2) {
            for value in [0u16, 1, 0x7fff, 0xffff] {
                let mut head = good();
                head[1024 + at..1024 + at + 2].copy_from_slice(&value.to_le_bytes());
                if let Ok(read) = Superblock::parse(&head, 4_096_000) {
                    assert!(read.size() <= 4_096_000);
                }
            }
        }
    }

    #[test]
    fn short_files_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2047).unwrap();
        assert!(matches!(Superblock::read(&file), Err(SuperblockError::Short)));
    }
}
