//! What a slot's VMM said, console included, out of the journal: by journalctl, with a list of
//! arguments made of integers, as a process that can read the journal and do nothing else.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, LogReadOptions};
use banger_model::Slot;
use banger_sys::hangup::hung_up;
use banger_sys::launch::{LaunchSpec, Launched, Launcher, spawn};
use rustix::process::Signal;

use super::{failed, launch_error};
use crate::context::{Call, Context};
use crate::departures::Departure;

const JOURNALCTL: &str = "/usr/bin/journalctl";
/// In debug builds: a program to be used in its place.
#[cfg(debug_assertions)]
const TEST_JOURNALCTL: &str = "BANGER_TEST_JOURNALCTL";
/// Logs of one user that may be open at once.
const MAX_LOGS: usize = 16;
/// And of everybody; each is a process.
const MAX_ALL_LOGS: usize = 64;
/// The most lines that can be asked for by number.
const MAX_LINES: u32 = 1_000_000;
/// journalctl opens every file of the journal.
const OPEN_FILES: u64 = 4096;
/// How long journalctl may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Counts the open ones by their users.
#[derive(Default)]
pub(crate) struct Logs(Arc<Mutex<HashMap<u32, usize>>>);

/// An open log, until it is dropped.
struct Place {
    logs: Arc<Mutex<HashMap<u32, usize>>>,
    user: u32,
}

/// Which entries.
pub(crate) struct LogRequest {
    pub(crate) slot: Slot,
    /// Of the slot's last run: 32 hexadecimal digits that PID 1 gave.
    pub(crate) invocation: String,
    pub(crate) options: LogReadOptions,
}

/// Starts to write the log to a pipe, and returns. The writing ends with the log, when
/// nobody reads any more, or when the caller leaves the bus.
///
/// # Errors
/// `LimitExceeded`, or `Failed` when journalctl does not start.
pub(crate) async fn open_log(call: &Call, request: LogRequest, output: OwnedFd) -> HelperResult<()> {
    let context = &call.context;
    let place = context.launches.logs.enter(call.uid)?;
    let reader = output
        .try_clone()
        .map_err(|e| failed("Cannot copy a descriptor", &e))?;
    let spec = spec(&request);
    let launched = context
        .launch_thread
        .run(move || spawn(&Launcher::this_program(), &spec, vec![(output, 1)]))
        .await;
    let launched = launched.map_err(|e| failed("Cannot read the journal", &e))?;
    let Launched { pidfd, barrier, .. } = launched.map_err(|e| launch_error(&e))?;
    let released = tokio::time::timeout(START_LIMIT, barrier.release()).await;
    let released = released.unwrap_or(Err(banger_sys::launch::LaunchError::Ended));
    let open = Open {
        context: context.clone(),
        process: Arc::new(pidfd),
        departure: call.departure.clone(),
        _place: place,
    };
    if let Err(error) = released {
        open.end().await;
        return Err(HelperError::new(
            ErrorKind::Failed,
            format!("Cannot read the journal: {}", crate::journal::chain(&error)),
        ));
    }
    let busy = context.busy();
    tokio::spawn(async move {
        let _busy = busy;
        open.watch(reader).await;
    });
    Ok(())
}

/// A journalctl that runs.
struct Open {
    context: Arc<Context>,
    process: Arc<banger_sys::pidfd::Pidfd>,
    departure: Departure,
    _place: Place,
}

impl Open {
    /// A journalctl that follows would notice a reader that is gone by its next line only.
    async fn watch(mut self, reader: OwnedFd) {
        tokio::select! {
            _ = self.process.exited() => return,
            _ = hung_up(reader) => {}
            () = self.departure.happened() => {}
        }
        self.end().await;
    }

    async fn end(self) {
        let process = self.process.clone();
        // By the thread that started it: no other may signal it.
        let killing = self
            .context
            .launch_thread
            .run(move || process.send_signal(Signal::KILL));
        let _ = killing.await;
        let _ = self.process.exited().await;
    }
}

impl Logs {
    fn enter(&self, user: u32) -> HelperResult<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.entry(user).or_default();
        if *own >= MAX_LOGS || all >= MAX_ALL_LOGS {
            let text = format!("Too many open logs (at most {MAX_LOGS} of one user)\nClose others first");
            return Err(HelperError::new(ErrorKind::LimitExceeded, text));
        }
        *own += 1;
        Ok(Place {
            logs: self.0.clone(),
            user,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.user);
            }
        }
    }
}

fn journalctl() -> PathBuf {
    #[cfg(debug_assertions)]
    if let Some(program) = std::env::var_os(TEST_JOURNALCTL) {
        return program.into();
    }
    JOURNALCTL.into()
}

/// As root without a capability, whose files the journal's are: a VMM's uid must not be near a
/// process that reads it.
fn spec(request: &LogRequest) -> LaunchSpec {
    let read = [
        "/etc/ld.so.cache",
        "/etc/machine-id",
        "/proc/self",
        "/run/log/journal",
        "/var/log/journal",
    ];
    super::reader(&journalctl(), arguments(request), &read, OPEN_FILES)
}

fn arguments(request: &LogRequest) -> Vec<String> {
    let lines = match request.options.lines {
        Some(lines) => lines.min(MAX_LINES).to_string(),
        None => "all".to_owned(),
    };
    let mut arguments = vec![
        "--quiet".to_owned(),
        "--no-pager".to_owned(),
        "--output=cat".to_owned(),
        format!("--lines={lines}"),
    ];
    if request.options.follow.unwrap_or(false) {
        arguments.push("--follow".to_owned());
    }
    arguments.extend([
        format!("_SYSTEMD_UNIT={}", request.slot.unit()),
        format!("_UID={}", request.slot.uid()),
        format!("_SYSTEMD_INVOCATION_ID={}", request.invocation),
    ]);
    arguments
}

#[cfg(test)]
#[path = "../../tests/unit/launch_log.rs"]
mod tests;
