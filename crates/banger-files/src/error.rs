//! What can go wrong with a stream of files.

use std::io;
use std::path::{Path, PathBuf};

/// Why a tree was not packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("The stream of files is broken: {0}")]
    Broken(&'static str),
    #[error("The stream of files has what must not be there: {path:?} ({what})")]
    Refused { path: PathBuf, what: &'static str },
    #[error("The stream of files is too large: more than {limit} {what}")]
    TooMuch { what: &'static str, limit: u64 },
    #[error("Cannot replace {path:?}: a {found} is there")]
    Conflict { path: PathBuf, found: &'static str },
    #[error("Cannot {what} {path:?}")]
    File {
        /// A verb, as "read".
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The other end is gone, or the work is to stop.
    #[error("The stream of files broke off")]
    Stream(#[source] io::Error),
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The stream is not one that may be taken.
    BadStream,
    NotFound,
    Conflict,
    NoSpace,
    ReadOnly,
    /// The stream ended from without.
    Stream,
    Failed,
}

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Broken(_) | Self::Refused { .. } | Self::TooMuch { .. } => Kind::BadStream,
            Self::Conflict { .. } => Kind::Conflict,
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Kind::NotFound,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::NoSpace,
                io::ErrorKind::ReadOnlyFilesystem => Kind::ReadOnly,
                _ => Kind::Failed,
            },
            Self::Stream(_) => Kind::Stream,
        }
    }

    /// The file that it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Refused { path, .. } | Self::Conflict { path, .. } | Self::File { path, .. } => Some(path),
            _ => None,
        }
    }

    pub(crate) fn file<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::File {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}
