//! banger's command line. It reads arguments, talks to the daemon over D-Bus, and shows what
//! comes back; whatever another client would want too is the daemon's.

mod cli;
mod client;
mod commands;
mod completion;
mod error;
mod exit;
mod output;
mod parse;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;

fn main() -> ExitCode {
    // Answers the shell's questions and ends, when it is a shell that asks.
    CompleteEnv::with_factory(cli::Cli::command).complete();
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return exit::report(&error::Error::io("Cannot start the event loop", e), exit::FAILED),
    };
    let status = runtime.block_on(cli.run());
    // A thread that still reads standard input must not keep the program.
    runtime.shutdown_background();
    status
}
