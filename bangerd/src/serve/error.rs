//! Why the daemon does not serve.

use std::io;
use std::path::{Path, PathBuf};

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Dirs(#[from] banger_model::dirs::DirsError),
    #[error("Cannot {what} {}", .path.display())]
    File {
        /// A verb, as "open".
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} belongs to somebody else", .0.display())]
    NotOurs(PathBuf),
    #[error("Another daemon serves this owner already: {}{}", holder(*.pid), .path.display())]
    Running { pid: Option<u32>, path: PathBuf },
    #[error("Somebody holds {} and does not let go", .0.display())]
    StartLock(PathBuf),
    #[error("The descriptor that was passed is not a socket that listens")]
    NotListening,
    #[error("{0}")]
    Core(banger_bus::Error),
    #[error("Cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl Error {
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "its lock is ".to_owned(),
        |pid| format!("process {pid} holds "),
    )
}
