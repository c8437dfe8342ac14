//! Why a file system could not be written.

use std::io;

use super::limits::{
    MAX_CONTENT, MAX_DETAILS, MAX_ENTRIES, MAX_HARD_LINKS, MAX_INODES, MAX_LINKS_FOLLOWED, MAX_SEGMENTS,
};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    #[error("Cannot write")]
    Write(#[source] io::Error),
    #[error("The file for the file system is not empty")]
    NotEmpty,
    #[error("Cannot read the content")]
    Read(#[source] io::Error),
    #[error("Bad path {}: {why}", show(.path))]
    BadPath { path: Box<[u8]>, why: &'static str },
    #[error("Below something that is not a directory: {}", show(.0))]
    NotADirectory(Box<[u8]>),
    #[error("Must stay a directory: {}", show(.0))]
    IsADirectory(Box<[u8]>),
    #[error("More than {MAX_LINKS_FOLLOWED} symbolic links on the way, or a loop of them: {}", show(.0))]
    LinkLoop(Box<[u8]>),
    #[error("A hard link to what is not there, or to a directory: {}", show(.0))]
    BadLink(Box<[u8]>),
    #[error("A whiteout that names nothing that could be removed: {}", show(.0))]
    BadWhiteout(Box<[u8]>),
    #[error("More than {MAX_ENTRIES} entries in all archives")]
    TooManyEntries,
    #[error("More than {MAX_INODES} files")]
    TooManyFiles,
    #[error("More than {MAX_HARD_LINKS} hard links to one file")]
    TooManyLinks,
    #[error("More than {} GiB of content", MAX_CONTENT >> 30)]
    TooLarge,
    #[error("Names, targets, attributes and lists of blocks take more than {} MiB", MAX_DETAILS >> 20)]
    TooDetailed,
    #[error("More than {MAX_SEGMENTS} parts of a sparse file")]
    TooManySegments,
    #[error("Extended attributes of more than 4 KiB: {}", show(.0))]
    Attributes(Box<[u8]>),
    #[error("Content shorter than announced: {}", show(.0))]
    Truncated(Box<[u8]>),
    #[error("The archive ends in the middle of an entry")]
    ArchiveTruncated,
    #[error("Not an archive, or a damaged one: {0}")]
    Damaged(&'static str),
    /// What programs that read archives understand in different ways is refused, too.
    #[error("Not a form of tar that is understood: {0}")]
    Unsupported(String),
    #[error("Cancelled")]
    Cancelled,
}

/// Bytes of a path that an error shows.
const SHOWN: usize = 256;

/// A path for people: quoted, and not longer than what they read.
pub(super) fn show(path: &[u8]) -> String {
    let (start, more) = match path.get(..SHOWN) {
        Some(start) if path.len() > SHOWN => (start, "…"),
        _ => (path, ""),
    };
    format!("\"{}{more}\"", start.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_in_one_short_line() {
        assert_eq!(show(b"a\n\xff"), r#""a\n\xff""#);
        assert_eq!(show(&[b'a'; SHOWN]).len(), SHOWN + 2);
        assert!(show(&[b'a'; 4096]).len() < 300);
    }
}
