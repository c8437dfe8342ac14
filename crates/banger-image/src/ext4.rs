//! ext4 file systems as files: written in one pass from a stream of entries, and recognised.
//!
//! The on-disk format is that of the kernel's Documentation/filesystems/ext4. What is made
//! here has the features of `mke2fs` (journal, checksums, resize inode, flexible groups), so
//! that a guest can mount it and grow it while it is mounted. Nothing is ever mounted here.

mod checksum;
mod encode;
mod layout;
mod seal;
mod superblock;
mod tar;
mod tree;
mod writer;
mod xattr;

pub use superblock::{Superblock, SuperblockError};
pub use tar::unpack;
pub use writer::{Kind, Metadata, Summary, WriteError, Writer};
