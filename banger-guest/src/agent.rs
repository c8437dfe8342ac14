//! The agent: an SSH server for the guest's owner, and the guest's end of the control channel.
//!
//! One process listens and does nothing else; it has one thread and forks a process for each
//! connection. So a restart of the agent, or the death of one connection, leaves the others.

mod adopt;
mod backlog;
mod channel;
mod command;
mod connection;
pub(crate) mod control;
mod exit;
mod figures;
mod forward;
mod handler;
mod listen;
mod power;
mod process;
mod pump;
mod resolve;
mod terminal;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

pub(crate) use adopt::adopt;

use crate::{console, identity, paths};
use listen::Next;

/// Runs the agent until it is told to end, or until a connection that it was forked for ends.
pub(crate) fn run() -> ExitCode {
    let identity = match identity::read(Path::new(paths::IDENTITY)) {
        Ok(identity) => identity,
        Err(error) => {
            console::warn("The agent has no identity", &error);
            return ExitCode::FAILURE;
        }
    };
    match listen::run(&identity, announce_to_parent) {
        Ok(Next::Stop) => ExitCode::SUCCESS,
        Ok(Next::Serve(stream)) => connection::serve(stream, identity),
        Err(error) => {
            console::warn("The agent cannot listen", &error);
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever started the agent and waits (`agent wait`) that it listens.
fn announce_to_parent() {
    if std::env::args().nth(2).as_deref() == Some("wait") {
        let _ = std::io::stdout().write_all(b"ready\n");
        // The parent reads to the end.
        let null = std::fs::File::options().write(true).open("/dev/null");
        if let Ok(null) = null {
            let _ = rustix::stdio::dup2_stdout(null);
        }
    }
}
