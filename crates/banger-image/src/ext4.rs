//! ext4 file systems as files: written in one pass from a stream of entries, and recognised.
//!
//! The on-disk format is that of the kernel's Documentation/filesystems/ext4. What is made
//! here has the features of `mke2fs` (journal, checksums, resize inode, flexible groups), so
//! that a guest can mount it and grow it while it is mounted. Nothing is ever mounted here,
//! and no entry of an archive becomes a file of the host.

mod checksum;
mod content;
mod encode;
mod entry;
mod error;
mod inode;
mod layout;
pub mod limits;
mod output;
mod path;
mod seal;
mod seed;
mod superblock;
mod tar;
mod tree;
mod whiteout;
mod writer;
mod xattr;

pub use entry::{Kind, Metadata, Segment, Summary};
pub use error::WriteError;
pub use seed::Seed;
pub use superblock::{Superblock, SuperblockError};
pub use tar::{apply_layer, unpack};
pub use writer::Writer;
