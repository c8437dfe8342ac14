//! Runs a command in a guest and stays with it: signals and window sizes go there, its exit
//! status comes back.

use std::collections::HashMap;
use std::env;
use std::io;

use banger_bus::{ExecOptions, JobOutcome, ProcessProxy};
use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use zbus::OwnedObjectPath;
use zbus::wire::OwnedFd;

use super::raw::RawMode;
use super::stdio::Stdio;
use crate::client::{Client, Event, Vm, done, lost};
use crate::error::{Error, Result};
use crate::exit;

/// What to run.
#[derive(Debug, Default)]
pub(crate) struct GuestCommand {
    /// Empty for the login shell.
    pub(crate) argv: Vec<String>,
    pub(crate) env: Option<HashMap<String, String>>,
    pub(crate) working_directory: Option<String>,
    pub(crate) terminal: bool,
}

/// The third signal leaves, whatever the command makes of them (docker does the same).
const PATIENCE: u32 = 3;

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hangup: Signal,
    window: Signal,
}

enum Heard {
    /// A signal's name without `SIG`, and its number.
    Deadly(&'static str, u8),
    Window,
}

/// Runs `command` in a VM and gives its exit status: its own, or 128 and the signal's number.
///
/// # Errors
/// When the command could not be run, or its end is not known.
pub(crate) async fn run(client: &Client, vm: &Vm, command: GuestCommand) -> Result<u8> {
    let jobs = client.jobs().await?;
    let mut signals = Signals::listen()?;
    let terminal = command.terminal;
    let (stdio, streams) = Stdio::take().map_err(|e| Error::io("Cannot pass the standard streams on", e))?;
    // Standard input may be no terminal although one was asked for (-t): then nothing is raw.
    let raw = if terminal { RawMode::enter().ok() } else { None };
    let outcome = async {
        let path = start(vm, command, streams).await?;
        let events = jobs.claim(&path);
        stay(client, &path, events, &mut signals, terminal).await
    }
    .await;
    drop(raw);
    drop(stdio);
    let outcome = outcome?;
    match exit::of_process(&outcome) {
        Some(status) => Ok(status),
        None => done(outcome).and_then(|_| {
            Err(Error::Refused(
                "The command has ended, and its exit status is not known".to_owned(),
            ))
        }),
    }
}

async fn start(
    vm: &Vm,
    command: GuestCommand,
    streams: [std::os::fd::OwnedFd; 3],
) -> Result<OwnedObjectPath> {
    let options = ExecOptions {
        env: command.env,
        working_directory: command.working_directory,
        terminal_size: command.terminal.then(window_size),
        term: env::var("TERM")
            .ok()
            .filter(|term| command.terminal && !term.is_empty()),
        shell: command.argv.is_empty().then_some(true),
    };
    let [stdin, stdout, stderr] = streams.map(OwnedFd::from);
    Ok(vm
        .proxy
        .exec(command.argv, options, stdin, stdout, stderr)
        .await?)
}

async fn stay(
    client: &Client,
    path: &OwnedObjectPath,
    mut events: UnboundedReceiver<Event>,
    signals: &mut Signals,
    terminal: bool,
) -> Result<JobOutcome> {
    let process = ProcessProxy::new(client.connection(), path).await?;
    let mut deadly = 0;
    loop {
        let heard = tokio::select! {
            event = events.recv() => match event {
                Some(Event::Removed(outcome)) => return Ok(outcome),
                Some(Event::Changed(_)) => continue,
                None => return Err(lost()),
            },
            heard = signals.next() => heard,
        };
        // A command that has just ended takes no signal: its end is on the way.
        match heard {
            Heard::Window if terminal => {
                let (columns, rows) = window_size();
                let _ = process.resize(columns, rows).await;
            }
            Heard::Window => {}
            Heard::Deadly(name, number) => {
                let _ = process.signal(name.to_owned()).await;
                deadly += 1;
                // With its terminal gone nobody could end it any more.
                if deadly >= PATIENCE || (terminal && name == "HUP") {
                    return Err(Error::Reported(exit::SIGNAL_BASE + number));
                }
            }
        }
    }
}

/// Columns and rows; the classic ones when the terminal does not know.
fn window_size() -> (u32, u32) {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    match size {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::io("Cannot listen for signals", e));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            quit: listen(SignalKind::quit())?,
            hangup: listen(SignalKind::hangup())?,
            window: listen(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.interrupt.recv() => Heard::Deadly("INT", 2),
            _ = self.terminate.recv() => Heard::Deadly("TERM", 15),
            _ = self.quit.recv() => Heard::Deadly("QUIT", 3),
            _ = self.hangup.recv() => Heard::Deadly("HUP", 1),
            _ = self.window.recv() => Heard::Window,
        }
    }
}
