//! What can go wrong in a command.

use std::io;
use std::path::PathBuf;

use banger_bus::{ErrorKind, InfoError};
use banger_model::config::ConfigError;
use banger_model::dirs::DirsError;

pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The daemon's own words; the second line is a hint.
    #[error("{0}")]
    Bus(banger_bus::Error),
    /// A job was cancelled because we got a signal, to which an exit status belongs.
    #[error("{error}")]
    Interrupted { status: u8, error: banger_bus::Error },
    #[error("{what}")]
    Io { what: String, source: io::Error },
    #[error(transparent)]
    Dirs(#[from] DirsError),
    #[error(transparent)]
    Info(#[from] InfoError),
    #[error("Cannot use {path:?}")]
    Config { path: PathBuf, source: ConfigError },
    /// Standard output cannot be written to.
    #[error("Cannot write the output")]
    Output(#[source] io::Error),
    #[error("Will not use {path:?}: {problem}\nRemove it, or make it yours alone (mode 0700)")]
    Untrusted { path: PathBuf, problem: String },
    #[error(
        "Cannot find the program `bangerd`\nInstall it beside `banger`, put it on PATH, or name it in the environment variable BANGERD"
    )]
    NoDaemonProgram,
    #[error("The daemon could not start{words}\nSee {}", log.display())]
    DaemonDied { words: String, log: PathBuf },
    #[error("The daemon does not answer\nSee `banger daemon status`")]
    DaemonSilent,
    #[error("{program} ended with {status} and no usable answer")]
    ChildFailed { program: String, status: String },
    #[error("{0}")]
    Refused(String),
    /// Everything has been said already: only the exit status is left.
    #[error("")]
    Reported(u8),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    /// A refusal and, as its second line, the way out.
    pub(crate) fn refused(what: impl Into<String>, hint: &str) -> Self {
        Self::Refused(format!("{}\n{hint}", what.into()))
    }

    /// The contract's kind, where the daemon said it.
    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Bus(error) | Self::Interrupted { error, .. } => Some(error.kind),
            _ => None,
        }
    }
}

impl From<banger_bus::Error> for Error {
    fn from(error: banger_bus::Error) -> Self {
        Self::Bus(error)
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        Self::Bus(error.into())
    }
}

impl From<zbus::fdo::Error> for Error {
    fn from(error: zbus::fdo::Error) -> Self {
        Self::Bus(zbus::Error::FDO(Box::new(error)).into())
    }
}
