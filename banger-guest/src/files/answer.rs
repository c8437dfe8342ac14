//! Why a request failed, in the words of the contract.

use std::io;
use std::path::Path;

use banger_files::{Error, Kind};
use banger_model::agent::{Failure, FailureKind};

/// The longest text of a failure in bytes.
const MAX_TEXT: usize = 4096;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{}", .0.message)]
    Told(Failure),
    #[error(transparent)]
    Files(#[from] Error),
    /// Of the session's own streams.
    #[error("The session's stream broke off")]
    Stream(#[from] io::Error),
}

impl Refusal {
    /// About one file.
    pub(super) fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FailureKind::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FailureKind::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => FailureKind::ReadOnly,
            _ => FailureKind::Failed,
        };
        Self::Told(Failure {
            kind,
            path: bounded(path.to_string_lossy().into_owned()),
            message: format!("Cannot {what} {}: {error}", bounded(format!("{path:?}"))),
        })
    }

    pub(super) fn failure(self) -> Failure {
        let text = text(&self);
        match self {
            Self::Told(failure) => failure,
            Self::Files(error) => Failure {
                kind: match error.kind() {
                    Kind::BadStream => FailureKind::BadRequest,
                    Kind::NotFound => FailureKind::NotFound,
                    Kind::Conflict => FailureKind::Conflict,
                    Kind::NoSpace => FailureKind::NoSpace,
                    Kind::ReadOnly => FailureKind::ReadOnly,
                    Kind::Stream | Kind::Failed => FailureKind::Failed,
                },
                path: bounded(
                    error
                        .path()
                        .unwrap_or(Path::new(""))
                        .to_string_lossy()
                        .into_owned(),
                ),
                message: bounded(text),
            },
            Self::Stream(_) => Failure {
                kind: FailureKind::Failed,
                path: String::new(),
                message: bounded(text),
            },
        }
    }
}

/// An error with its causes.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn bounded(mut text: String) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
