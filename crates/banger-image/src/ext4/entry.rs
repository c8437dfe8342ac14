//! What is added to a file system.

use std::io::Read;

/// What an entry is.
pub enum Kind<'a> {
    Directory,
    /// Exactly `size` bytes are read.
    File {
        size: u64,
        content: &'a mut dyn Read,
    },
    /// A file with holes. Of the content only the segments are read, one after the other.
    Sparse {
        size: u64,
        /// In ascending order, none over another, and none beyond `size`.
        segments: &'a [Segment],
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

/// A part of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub len: u64,
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
    /// Bytes of all files that were written, with those that a later layer replaced.
    pub content: u64,
    pub files: u32,
}
