//! The network of system mode.

use std::process::ExitCode;

use crate::journal::{self, Priority};

/// Makes the network and keeps it until it is told to end.
pub fn serve() -> ExitCode {
    journal::say(Priority::Error, "The network is not part of this build", &[]);
    ExitCode::FAILURE
}

/// Takes back what is left of it.
pub fn down() -> ExitCode {
    journal::say(Priority::Error, "The network is not part of this build", &[]);
    ExitCode::FAILURE
}
