//! What can go wrong with the unpacker.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

use super::{ADDRESS_SPACE, CPU_SECONDS, SILENCE};

/// Why layers were not unpacked. Texts of the child are one short line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// What is unpacked is bad, in the child's words.
    #[error("{0}")]
    Refused(String),
    /// Something else went wrong, in the child's words.
    #[error("The unpacker failed: {0}")]
    Failed(String),
    #[error("The unpacker was ended by signal {signal} ({})", reason(*.signal))]
    Killed { signal: i32 },
    #[error("The unpacker ended too early ({0})")]
    Ended(ExitStatus),
    #[error("The unpacker does not keep to its protocol")]
    Protocol,
    #[error("The unpacker said nothing for {} minutes", SILENCE.as_secs() / 60)]
    Silent,
    #[error("Cannot speak to the unpacker")]
    Socket(#[source] io::Error),
}

impl UnpackError {
    pub(super) fn ended(status: ExitStatus) -> Self {
        match status.signal() {
            Some(signal) => Self::Killed { signal },
            None => Self::Ended(status),
        }
    }
}

fn reason(signal: i32) -> String {
    match Signal::from_named_raw(signal) {
        Some(Signal::SYS) => "SIGSYS: it tried what it must not do".to_owned(),
        Some(Signal::KILL) => "SIGKILL: no memory is left, or somebody ended it".to_owned(),
        Some(Signal::ABORT) => format!(
            "SIGABRT: it wanted more than {} MiB of memory, or has a bug",
            ADDRESS_SPACE >> 20
        ),
        Some(Signal::XCPU) => format!("SIGXCPU: it worked for more than {} minutes", CPU_SECONDS / 60),
        Some(Signal::XFSZ) => "SIGXFSZ: the file system became too large".to_owned(),
        _ => "a bug".to_owned(),
    }
}
