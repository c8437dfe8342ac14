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
    #[error("Bad path {:?}: {why}", .path.escape_ascii().to_string())]
    BadPath { path: Box<[u8]>, why: &'static str },
    #[error("Below something that is not a directory: {:?}", .0.escape_ascii().to_string())]
    NotADirectory(Box<[u8]>),
    #[error("Must stay a directory: {:?}", .0.escape_ascii().to_string())]
    IsADirectory(Box<[u8]>),
    #[error("More than {MAX_LINKS_FOLLOWED} symbolic links on the way, or a loop of them: {:?}", .0.escape_ascii().to_string())]
    LinkLoop(Box<[u8]>),
    #[error("A hard link to what is not there, or to a directory: {:?}", .0.escape_ascii().to_string())]
    BadLink(Box<[u8]>),
    #[error("A whiteout that names nothing that could be removed: {:?}", .0.escape_ascii().to_string())]
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
    #[error("Extended attributes of more than 4 KiB: {:?}", .0.escape_ascii().to_string())]
    Attributes(Box<[u8]>),
    #[error("Content shorter than announced: {:?}", .0.escape_ascii().to_string())]
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
