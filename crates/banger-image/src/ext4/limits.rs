//! What one file system may have. Whatever is more ends in a [`WriteError`](super::WriteError),
//! before memory or disk are used for it. The figures are those of real images with room to
//! spare; a guest that needs more makes it itself.

/// Entries of all archives together, those that replace or remove something too.
pub const MAX_ENTRIES: u32 = 1_000_000;
/// Files and directories at one time, those that no entry names too.
pub const MAX_INODES: u32 = 1_050_000;
/// Bytes of a path; with links on its way put in, it may have twice as many.
pub const MAX_PATH: usize = 4096;
/// Bytes of one name in a path.
pub const MAX_NAME: usize = 255;
/// Directories one below the other.
pub const MAX_DEPTH: usize = 128;
/// Symbolic links that are followed on the way of one path, as in the kernel.
pub const MAX_LINKS_FOLLOWED: usize = 40;
/// Names that are looked up on the way of one path with its links.
pub const MAX_LOOKUPS: usize = 512;
/// Bytes of a symbolic link's target.
pub const MAX_TARGET: usize = 4095;
/// Names of one file: the format's own limit.
pub const MAX_HARD_LINKS: u32 = 65_000;
/// Bytes of all files together that ever were written, holes included.
pub const MAX_CONTENT: u64 = 64 << 30;
/// Bytes in memory for names, targets, attributes beside inodes, and lists of blocks.
pub const MAX_DETAILS: usize = 64 << 20;
/// Parts of one sparse file that are no holes.
pub const MAX_SEGMENTS: usize = 65_536;
/// Bytes of all headers that describe one entry.
pub const MAX_EXTENDED: u64 = 1 << 20;
/// Headers that describe one entry.
pub const MAX_HEADERS: u32 = 16;
/// Extended attributes of one entry, those that are left out too.
pub const MAX_ATTRIBUTES: usize = 256;
