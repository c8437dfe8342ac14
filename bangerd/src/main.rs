//! banger's owner daemon: policy and state.

mod api;
mod bus;
mod catalog;
mod config;
mod copy;
mod core;
mod doctor;
mod engine_install;
mod fail_point;
mod file_sync;
mod guest;
mod helper;
mod jobs;
mod logging;
mod names;
mod ports;
mod serve;
mod stats;
mod systemd;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The program's version, the commit it was built from and the date of that.
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("BANGER_COMMIT"),
    ", ",
    env!("BANGER_BUILD_DATE"),
    ")"
);

/// banger's daemon: manages the virtual machines of the user who runs it
///
/// Without a command it serves on the session bus and on a private socket, until nobody needs
/// it. `banger` starts it when it is needed.
#[derive(Debug, Parser)]
#[command(name = "bangerd", version = VERSION)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what works on this machine and what does not
    Doctor {
        /// Write JSON
        #[arg(long)]
        json: bool,
        /// Fail on warnings too
        #[arg(long)]
        strict: bool,
        /// Put right what is safe and your own; without it nothing is changed
        #[arg(long)]
        fix: bool,
    },
    /// Become a VMM as the daemon says on standard input
    #[command(hide = true)]
    VmmLaunch,
    /// Make a file system of layers as the daemon says on standard input
    #[command(hide = true)]
    ImageUnpack,
    /// Put an engine of the catalogue where all users' VMs find it
    #[command(hide = true)]
    EngineInstall { name: String },
    /// Run a few instructions of a guest
    #[command(hide = true)]
    KvmProbe,
    /// List the places at which a test can make the daemon fail
    #[cfg(debug_assertions)]
    #[command(hide = true)]
    FailPoints,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        None => serve::run(),
        Some(Command::Doctor { json, strict, fix }) => doctor::run(json, strict, fix),
        Some(Command::VmmLaunch) => banger_sys::launch::run_launcher(),
        Some(Command::ImageUnpack) => banger_image::unpack::run_child(),
        Some(Command::EngineInstall { name }) => engine_install::run(&name),
        Some(Command::KvmProbe) => banger_sys::kvm::run_kvm_probe_child(),
        #[cfg(debug_assertions)]
        Some(Command::FailPoints) => list_fail_points(),
    }
}

#[cfg(debug_assertions)]
fn list_fail_points() -> ExitCode {
    use std::io::Write;
    let text = fail_point::POINTS.join("\n") + "\n";
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
