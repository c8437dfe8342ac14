//! What can go wrong, and the way out where there is one.

use std::io;
use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

/// The way out of everything that only a copy with `.git` and all can carry.
const FULL_COPY: &str = "`--mode full_copy` copies the directory as it is, `.git` and all.";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is in no git repository")]
    NotARepository(PathBuf),
    #[error("The repository {0} is bare: it has no work tree")]
    Bare(PathBuf),
    #[error("The repository {0} has no commit yet")]
    Empty(PathBuf),
    #[error("The repository {path} has submodules ({first})")]
    Submodules { path: PathBuf, first: String },
    #[error("The repository {path} keeps {what}, which cannot be read here")]
    Unsupported { path: PathBuf, what: String },
    #[error("The repository {0} lacks objects of its commit: it is a partial clone")]
    MissingObjects(PathBuf),
    #[error("The repository {path} is damaged: {what}")]
    Damaged { path: PathBuf, what: String },
    #[error("{0:?} is no name for a branch")]
    BadBranch(String),
    #[error("The repository has no commit {0:?}")]
    NoSuchCommit(String),
    #[error("A full copy takes the directory as it is: it has no branch of its own")]
    NotInFullCopy,
    #[error("git is not installed")]
    NoGit,
    #[error("`git {command}` failed ({status}): {text}")]
    Git {
        command: String,
        status: String,
        text: String,
    },
    #[error("`git {command}` was ended: it took longer than {seconds} s")]
    Timeout { command: String, seconds: u64 },
    #[error("`git {command}` was ended: it wrote more than {bytes} bytes")]
    TooMuchOutput { command: String, bytes: usize },
    #[error("The operation was cancelled")]
    Cancelled,
    #[error("Cannot {what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} has more than {limit} {what}")]
    TooMany {
        path: PathBuf,
        limit: usize,
        what: &'static str,
    },
    #[error("The record of the last sync cannot be read: {0}")]
    BadManifest(&'static str),
    /// Nothing of it was taken.
    #[error("What the guest sends cannot be taken: {0}")]
    Hostile(String),
    #[error("{name} would lose commits")]
    Rejected { name: String, can_force: bool },
    #[error("The branch {0:?} is checked out")]
    CheckedOut(String),
}

/// What kind of failure it is, for whoever reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    BadRepository,
    MissingTool,
    InvalidArgument,
    Cancelled,
    Timeout,
    NoSpace,
    WouldOverwrite,
    BadGuest,
    Failed,
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotARepository(_)
            | Self::Bare(_)
            | Self::Empty(_)
            | Self::Submodules { .. }
            | Self::Unsupported { .. }
            | Self::MissingObjects(_)
            | Self::Damaged { .. }
            | Self::TooMany { .. }
            | Self::TooMuchOutput { .. }
            | Self::Git { .. } => ErrorKind::BadRepository,
            Self::BadBranch(_) | Self::NoSuchCommit(_) | Self::NotInFullCopy => ErrorKind::InvalidArgument,
            Self::NoGit => ErrorKind::MissingTool,
            Self::Hostile(_) => ErrorKind::BadGuest,
            Self::Rejected { .. } | Self::CheckedOut(_) => ErrorKind::WouldOverwrite,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Io { source, .. } if is_no_space(source) => ErrorKind::NoSpace,
            Self::Io { .. } | Self::BadManifest(_) => ErrorKind::Failed,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotARepository(_) => {
                "`git init` makes one; `--mode full_copy` copies the directory without one."
            }
            Self::Empty(_) => "Commit something first, or use `--mode full_copy`.",
            Self::Bare(_) => "Clone it and name the clone, or use `--mode full_copy`.",
            Self::MissingObjects(_) => "`git fetch --refetch` brings them, or use `--mode full_copy`.",
            Self::Submodules { .. } | Self::Unsupported { .. } => FULL_COPY,
            Self::NotInFullCopy => "Leave `--branch` and `--from` out.",
            Self::NoGit => "Install the package git.",
            Self::BadManifest(_) => "Prepare the workspace anew, with `--force`.",
            Self::Rejected { can_force: true, .. } => {
                "The guest has rewritten what was brought out before: `--force` takes its version."
            }
            Self::Rejected { .. } | Self::CheckedOut(_) => "Name another branch.",
            _ => return None,
        };
        Some(text.to_owned())
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

impl From<banger_sys::cancel::Cancelled> for Error {
    fn from(_: banger_sys::cancel::Cancelled) -> Self {
        Self::Cancelled
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
