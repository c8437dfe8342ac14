//! Runs a command in a guest and stays with it: signals and window sizes go there, its exit
//! status comes back.

use std::collections::HashMap;
use std::convert::Infallible;
use std::env;
use std::io;

use banger_bus::{ExecOptions, JobOutcome, ProcessProxy};
use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
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
    /// Empty for the login shell, or for the entrypoint's own arguments.
    pub(crate) argv: Vec<String>,
    pub(crate) env: Option<HashMap<String, String>>,
    pub(crate) working_directory: Option<String>,
    pub(crate) user: Option<String>,
    /// `argv` are arguments of the image's entrypoint.
    pub(crate) entrypoint: bool,
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

/// What the command in the guest is to hear of.
enum Order {
    Signal(&'static str),
    Resize,
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
        shell: (command.argv.is_empty() && !command.entrypoint).then_some(true),
        user: command.user,
        entrypoint: command.entrypoint.then_some(true),
        workspace: None,
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
    // Apart from the listening: a guest that hangs answers nothing, and Ctrl-C must still count.
    let (orders, queue) = unbounded_channel();
    tokio::select! {
        outcome = listen(&mut events, signals, terminal, &orders) => outcome,
        never = carry_out(&process, queue) => match never {},
    }
}

/// Hears of the command's end and of signals, which it passes on as orders.
async fn listen(
    events: &mut UnboundedReceiver<Event>,
    signals: &mut Signals,
    terminal: bool,
    orders: &UnboundedSender<Order>,
) -> Result<JobOutcome> {
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
        // The queue's other end lives as long as this.
        match heard {
            Heard::Window if terminal => {
                let _ = orders.send(Order::Resize);
            }
            Heard::Window => {}
            Heard::Deadly(name, number) => {
                let _ = orders.send(Order::Signal(name));
                deadly += 1;
                // With its terminal gone nobody could end it any more.
                if deadly >= PATIENCE || (terminal && name == "HUP") {
                    return Err(Error::Reported(exit::SIGNAL_BASE + number));
                }
            }
        }
    }
}

/// Carries orders out one after the other, for ever.
async fn carry_out(process: &ProcessProxy<'_>, mut queue: UnboundedReceiver<Order>) -> Infallible {
    while let Some(order) = queue.recv().await {
        // A command that has just ended takes no signal: its end is on the way.
        let _ = match order {
            Order::Signal(name) => process.signal(name.to_owned()).await,
            Order::Resize => {
                let (columns, rows) = window_size();
                process.resize(columns, rows).await
            }
        };
    }
    std::future::pending().await
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
