//! What works on this machine, what does not, and what to do about it. Nothing is made or
//! changed unless that is asked for, and no daemon is needed.

mod firewall;
mod helper;
mod host;
mod known;
mod known_hosts;
mod leftovers;
mod network;
mod owner;
mod permissions;
mod places;
mod report;
mod resolver;
mod session;
mod ssh_config;
mod tools;
mod units;

use std::io::Write;
use std::process::ExitCode;

use banger_model::Dirs;

use crate::config::ConfigFile;
use known::Known;
use report::{Report, Status};

/// Looks at everything and writes the report to standard output. Fails when a check does, and
/// with `strict` on warnings too. With `fix` it puts right what is safe and the owner's own.
pub(crate) fn run(json: bool, strict: bool, fix: bool) -> ExitCode {
    let mut report = if fix { Report::fixing() } else { Report::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            runtime.block_on(examine(&mut report));
            // A name that nobody answers is asked for in a thread, which nobody waits for.
            runtime.shutdown_background();
        }
        Err(error) => report.failure(
            "runtime",
            format!("Cannot start: {error}"),
            "Free memory or descriptors, and try again.",
        ),
    }
    let text = if json { report.json() } else { report.text() };
    let written = std::io::stdout().write_all(text.as_bytes());
    let bad = report.worst() == Status::Failure || (strict && report.worst() == Status::Warning);
    if written.is_err() || bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

async fn examine(report: &mut Report) {
    host::architecture(report);
    host::landlock(report);
    host::engines(report).await;
    tools::check(report);
    session::check(report).await;
    match Dirs::resolve(|key| std::env::var_os(key)) {
        Ok(dirs) => owners(report, &dirs).await,
        Err(error) => report.failure("directories", error.to_string(), "Set HOME."),
    }
    owner::guest_program(report);
}

/// What needs the owner's directories.
async fn owners(report: &mut Report, dirs: &Dirs) {
    if permissions::are_foreign(dirs) {
        report.stop_fixing();
    }
    permissions::check(report, dirs);
    places::space(report, dirs);
    places::copies(report, dirs);
    leftovers::check(report, dirs, &Known::find(dirs).await).await;
    // Anew: there may be fewer now, and the database may have more.
    let known = Known::find(dirs).await;
    owner::daemon(report, &known);
    places::database(report, dirs);
    known_hosts::check(report, dirs, &known);
    places::stores(report, dirs);
    owner::config(report, dirs);
    ssh_config::check(report, dirs);
    // A configuration that cannot be read was reported.
    let config = ConfigFile::new(dirs).read().unwrap_or_default();
    let system_mode = helper::check(report, config.mode.unwrap_or_default()).await;
    network::check(report, dirs, &config, known.guests(), system_mode.has_network).await;
    resolver::check(report, known.guests(), system_mode.is_used).await;
}
