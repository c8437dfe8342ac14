//! Why a bundle is refused.

use std::io;

use banger_model::Size;

use crate::digest::Digest;

/// What is wrong with a bundle. Texts that come out of it are escaped and cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    #[error("It has {found} bytes, and the catalogue says {expected}")]
    Length { expected: u64, found: u64 },
    #[error("It is not what the catalogue says: expected {expected}, found {found}")]
    Digest { expected: Digest, found: Digest },
    #[error("Somebody changed it while it was read")]
    Changed,
    /// In the words of the process that read it.
    #[error("{0}")]
    Refused(String),
    #[error("Cannot read it")]
    Read(#[source] io::Error),
    #[error("Cannot write what is in it")]
    Write(#[source] io::Error),
    #[error("It has {found:?} where {expected} belongs")]
    Member { found: String, expected: &'static str },
    #[error("It ends before {0}")]
    Missing(&'static str),
    #[error("Its {0} is not a file")]
    NotAFile(&'static str),
    #[error("There is something after its last file")]
    Trailing,
    #[error("Its extended headers are malformed or too long")]
    Headers,
    #[error("Its manifest is malformed: {0}")]
    Manifest(String),
    #[error("It has version {0}, and only 1 is known here: a newer banger can read it")]
    Version(u64),
    #[error("It is of the {found} {name}, not of the {expected} that was asked for")]
    Other {
        found: &'static str,
        name: String,
        expected: String,
    },
    #[error("Its {member} is not as large as it says: {found} bytes, not {said}")]
    Size {
        member: &'static str,
        said: u64,
        found: u64,
    },
    #[error("The map of its file system is malformed: {0}")]
    Map(&'static str),
    #[error("Its {member} is too large (at most {})", Size::from_bytes(*.limit))]
    TooLarge { member: &'static str, limit: u64 },
    #[error("It unpacks to more than {0} times its size")]
    Ratio(u64),
    #[error("Its modules are not in the form that banger writes: {0}")]
    Modules(&'static str),
}

/// Characters of a bundle's text that an error repeats.
const SHOWN: usize = 80;

/// A bundle's text in a form that harms no terminal and fits a line.
pub(super) fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(SHOWN).collect()
}

impl BundleError {
    /// An error of a reader that may carry one of ours.
    pub(super) fn reading(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) => Self::Read(error),
        }
    }
}

impl From<BundleError> for io::Error {
    fn from(error: BundleError) -> Self {
        Self::other(error)
    }
}
