//! The helper's program: which of its few parts runs.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// banger's root helper: the few privileged parts of a VM's life
///
/// Without a command it serves on the system bus, until nobody needs it. systemd starts it.
#[derive(Debug, Parser)]
#[command(name = "banger-helper", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Become a VMM as the helper says on standard input
    #[command(hide = true)]
    VmmLaunch,
    /// The network in which system mode's guests live
    #[command(subcommand)]
    Network(Network),
}

#[derive(Debug, Subcommand)]
enum Network {
    /// Make the network, keep it as it should be, and take it back at the end
    Serve,
    /// Take back what an earlier `serve` has made and left
    Down,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        None => banger_helper::serve::run(),
        Some(Command::VmmLaunch) => banger_sys::launch::run_launcher(),
        Some(Command::Network(Network::Serve)) => banger_helper::network::serve(),
        Some(Command::Network(Network::Down)) => banger_helper::network::down(),
    }
}
