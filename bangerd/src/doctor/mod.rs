//! What works on this machine, what does not, and what to do about it. Nothing is made or
//! changed, and no daemon is needed.

mod helper;
mod host;
mod owner;
mod places;
mod report;
mod session;
mod tools;

use std::io::Write;
use std::process::ExitCode;

use banger_model::Dirs;

use crate::config::ConfigFile;
use report::{Report, Status};

/// Looks at everything and writes the report to standard output. Fails when a check does, and
/// with `strict` on warnings too.
pub(crate) fn run(json: bool, strict: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = match runtime {
        Ok(runtime) => runtime.block_on(examine()),
        Err(error) => {
            let mut report = Report::default();
            report.failure(
                "runtime",
                format!("Cannot start: {error}"),
                "Free memory or descriptors, and try again.",
            );
            report
        }
    };
    let text = if json { report.json() } else { report.text() };
    let written = std::io::stdout().write_all(text.as_bytes());
    let bad = report.worst() == Status::Failure || (strict && report.worst() == Status::Warning);
    if written.is_err() || bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

async fn examine() -> Report {
    let mut report = Report::default();
    host::architecture(&mut report);
    host::landlock(&mut report);
    host::engines(&mut report).await;
    tools::check(&mut report);
    session::check(&mut report).await;
    match Dirs::resolve(|key| std::env::var_os(key)) {
        Ok(dirs) => {
            places::directories(&mut report, &dirs);
            places::database(&mut report, &dirs);
            places::stores(&mut report, &dirs);
            owner::config(&mut report, &dirs);
            // A configuration that cannot be read was reported.
            let mode = ConfigFile::new(&dirs).read().ok().and_then(|config| config.mode);
            helper::check(&mut report, mode.unwrap_or_default()).await;
            owner::daemon(&mut report, &dirs);
        }
        Err(error) => report.failure("directories", error.to_string(), "Set HOME."),
    }
    owner::guest_program(&mut report);
    report
}
