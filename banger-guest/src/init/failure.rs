//! What happens when the guest cannot boot: the reason goes to the console and to the host,
//! and the machine goes off. It never hangs and never panics the kernel.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use banger_model::guest::GuestMessage;
use rustix::system::RebootCommand;

use super::modules;
use crate::agent::control;
use crate::{console, machine};

/// A stage of the boot that failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{stage}: {message}")]
pub(crate) struct Failure {
    pub(crate) stage: &'static str,
    pub(crate) message: String,
}

/// Names the stage in which an error stops the boot.
pub(crate) trait InStage<T> {
    fn stage(self, stage: &'static str) -> Result<T, Failure>;
}

impl<T, E: std::error::Error> InStage<T> for Result<T, E> {
    fn stage(self, stage: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            stage,
            message: console::chain(&error),
        })
    }
}

/// Reports the failure and switches the machine off.
pub(crate) fn power_off(failure: &Failure) -> ExitCode {
    console::say(failure);
    let message = GuestMessage::Failed {
        stage: failure.stage.to_owned(),
        message: failure.message.chars().take(1000).collect(),
    };
    // The way to the host may be among those that the boot does not wait for.
    modules::open_later(&Path::new("/").join(banger_model::guest::MODULES_DIR)).load();
    if let Err(error) = control::report_once(&message) {
        console::warn("The host is not told", &error);
    }
    halt(RebootCommand::PowerOff)
}

/// Writes everything back and ends the machine.
pub(crate) fn halt(how: RebootCommand) -> ExitCode {
    rustix::fs::sync();
    // A root that is read-only is a clean one.
    let _ = rustix::mount::mount_remount("/", rustix::mount::MountFlags::RDONLY, c"");
    if let Err(error) = rustix::system::reboot(machine::end_of(how)) {
        console::warn("The machine does not go off", &io::Error::from(error));
    }
    // Reached only where the caller is not allowed to: a test outside a VM.
    ExitCode::FAILURE
}
