//! Commands of ours in a guest. What they say is the guest's word.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use banger_bus::{Error, ErrorKind, ExecOptions, Result};
use banger_model::Process;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::core::progress::{Cancel, JobContext};
use crate::guest::Agent;
use crate::guest::exec::{self, Command};

/// What is kept of a command's standard error, in bytes.
const MAX_ERROR: u64 = 4096;
const ROOT: &str = "root";

/// How a command ended.
pub(super) struct Ended {
    pub(super) status: i32,
    /// For people: without what a terminal would obey.
    pub(super) stderr: String,
}

/// Runs a command as root and writes at most `limit` bytes of what it says to `file`.
///
/// # Errors
/// `BadGuest` when it says more, and when the guest is gone or the job cancelled.
pub(super) async fn to_file(
    agent: &Arc<Agent>,
    ctx: &JobContext,
    argv: &[&str],
    directory: &str,
    file: File,
    limit: u64,
) -> Result<Ended> {
    let cancel = Cancel::new();
    let inner = JobContext::silent_until(cancel.clone());
    let (stdout, out) = io::pipe().map_err(no_pipe)?;
    let (stderr, err) = io::pipe().map_err(no_pipe)?;
    let null = File::open("/dev/null").map_err(no_pipe)?;
    let stdio: [OwnedFd; 3] = [null.into(), out.into(), err.into()];
    let argv: Vec<_> = argv.iter().map(|&word| word.to_owned()).collect();
    let options = ExecOptions {
        working_directory: Some(directory.to_owned()),
        user: Some(ROOT.to_owned()),
        ..ExecOptions::default()
    };
    let command = Command::new(&argv, options, &Process::default())?;
    // Nobody sends signals; the sender's end would end the command.
    let (_requests, receiver) = mpsc::channel(1);
    let taken = spawn_blocking({
        let cancel = cancel.clone();
        move || copy(stdout, file, limit, &cancel)
    });
    let said = spawn_blocking(move || text(stderr));
    let running = exec::run(agent.clone(), inner, receiver, command, stdio);
    tokio::pin!(running);
    let outcome = tokio::select! {
        outcome = &mut running => outcome,
        () = ctx.cancelled() => {
            cancel.cancel();
            running.await
        }
    };
    let ended = |_| Error::new(ErrorKind::Failed, "Work for a guest ended unexpectedly");
    let taken = taken.await.map_err(ended)?;
    let stderr = said.await.map_err(ended)?;
    ctx.check()?;
    taken?;
    Ok(Ended {
        status: outcome?.exit_status.unwrap_or(-1),
        stderr,
    })
}

/// Runs a command as root for its output alone.
///
/// # Errors
/// As [`to_file`], and `BadGuest` when it is no text.
pub(super) async fn output(
    agent: &Arc<Agent>,
    ctx: &JobContext,
    argv: &[&str],
    directory: &str,
    limit: u64,
) -> Result<(Ended, String)> {
    let file = tempfile::tempfile().map_err(|e| write_error(&e))?;
    let mut reader = file.try_clone().map_err(no_pipe)?;
    let ended = to_file(agent, ctx, argv, directory, file, limit).await?;
    let mut text = String::new();
    io::Seek::rewind(&mut reader).map_err(no_pipe)?;
    match reader.read_to_string(&mut text) {
        Ok(_) => Ok((ended, text)),
        Err(_) => Err(Error::new(ErrorKind::BadGuest, "The guest sent no text")),
    }
}

fn copy(from: io::PipeReader, mut to: File, limit: u64, cancel: &Cancel) -> Result<()> {
    let mut bounded = from.take(limit + 1);
    let copied = io::copy(&mut bounded, &mut to).and_then(|bytes| to.flush().map(|()| bytes));
    match copied {
        Ok(bytes) if bytes <= limit => Ok(()),
        Ok(_) => {
            cancel.cancel();
            Err(Error::new(
                ErrorKind::BadGuest,
                format!("The guest sent more than {limit} bytes"),
            ))
        }
        Err(error) => {
            cancel.cancel();
            Err(write_error(&error))
        }
    }
}

/// The beginning; the rest is read and forgotten, so that the command is not held up.
fn text(from: io::PipeReader) -> String {
    let mut bounded = from.take(MAX_ERROR);
    let mut bytes = Vec::new();
    // What cannot be read is not told.
    let _ = bounded.read_to_end(&mut bytes);
    let _ = io::copy(&mut bounded.into_inner(), &mut io::sink());
    let text = String::from_utf8_lossy(&bytes);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn no_pipe(error: io::Error) -> Error {
    Error::new(
        ErrorKind::Failed,
        format!("Cannot run a command in the guest: {error}"),
    )
}

fn write_error(error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("Cannot write what the guest sends: {error}"))
}
