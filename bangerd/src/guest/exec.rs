//! Commands in a guest, with the caller's own descriptors.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use banger_bus::{ErrorKind, ExecOptions, JobOutcome};
use banger_model::guest::{MAKE_WORKDIR_VARIABLE, USER_VARIABLE, WORDS_VARIABLE, WORKDIR_VARIABLE};
use banger_model::image::check_user;
use banger_model::limits::{MAX_ARGS, MAX_PAIR_BYTES, MAX_PAIRS, MAX_PATH};
use banger_model::{Process, signal};
use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::{Notify, mpsc};

use super::agent::Agent;
use super::error::{Error, Result};
use super::quote::command_line;
use super::stdio::{Stop, Writer, no_thread};
use crate::core::progress::{JobContext, cancelled};
use crate::jobs::{ProcessRequest, ProcessRequests};

/// The longest command line in bytes: one packet of SSH carries it, and russh takes 256 KiB.
const MAX_COMMAND: usize = 192 << 10;
/// Output that may wait here for a caller who does not read, in bytes.
const BACKLOG: usize = 1 << 20;
/// The same after a signal: the connection must move for it to be sent.
const BACKLOG_SIGNALLED: usize = 16 << 20;
/// The user of an image that names none.
const ROOT: &str = "root";
/// The extended data stream of standard error (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// What to run, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// `None`: the user's login shell.
    line: Option<String>,
    env: Vec<(String, String)>,
    terminal: Option<Terminal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Terminal {
    term: String,
    columns: u32,
    rows: u32,
}

/// How the command ended, as far as it is known.
struct Ending {
    /// What was asked for and not answered yet, in order.
    asked: VecDeque<&'static str>,
    status: Option<u32>,
    signal: Option<Sig>,
    refused: Option<&'static str>,
}

impl Command {
    /// Checks what a client asks for, and takes the rest from what the image says.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] or [`ErrorKind::LimitExceeded`], naming what is wrong.
    pub(crate) fn new(argv: &[String], options: ExecOptions, image: &Process) -> banger_bus::Result<Self> {
        let refused = |text: String| Err(banger_bus::Error::new(ErrorKind::InvalidArgument, text));
        let shell = options.shell.unwrap_or(false);
        let argv = words(argv, shell, options.entrypoint.unwrap_or(false), image)?;
        if argv.iter().any(|arg| arg.contains('\0')) {
            return refused("Not a valid argument: it has a NUL".to_owned());
        }
        let line = (!shell).then(|| command_line(&argv));
        if argv.len() > MAX_ARGS || line.as_ref().is_some_and(|line| line.len() > MAX_COMMAND) {
            return Err(banger_bus::Error::new(
                ErrorKind::LimitExceeded,
                format!("Too long a command line (at most {MAX_ARGS} arguments and {MAX_COMMAND} bytes)"),
            )
            .hint("Give long input on standard input."));
        }
        let mut env = check_env(options.env.unwrap_or_default())?;
        if let Some(directory) = options.working_directory {
            if !directory.starts_with('/') || directory.contains('\0') || directory.len() > MAX_PATH {
                return refused(format!("Not an absolute path: {directory:?}"));
            }
            env.push((WORKDIR_VARIABLE.to_owned(), directory));
        } else if let Some(directory) = &image.working_directory {
            env.push((WORKDIR_VARIABLE.to_owned(), directory.clone()));
            env.push((MAKE_WORKDIR_VARIABLE.to_owned(), "1".to_owned()));
        }
        let user = options.user.or_else(|| image.user.clone());
        let user = user.unwrap_or_else(|| ROOT.to_owned());
        if let Err(error) = check_user(&user) {
            return refused(error.to_string());
        }
        env.push((USER_VARIABLE.to_owned(), user));
        if line.is_some() {
            // Arguments need no shell, whose start is most of what a short command costs.
            env.push((WORDS_VARIABLE.to_owned(), "1".to_owned()));
        }
        let terminal = match options.terminal_size {
            Some((columns, rows)) => Some(Terminal {
                term: check_term(options.term)?,
                columns: check_size(columns)?,
                rows: check_size(rows)?,
            }),
            None => None,
        };
        Ok(Self { line, env, terminal })
    }
}

/// The program and its arguments; nothing for a shell.
fn words(argv: &[String], shell: bool, entrypoint: bool, image: &Process) -> banger_bus::Result<Vec<String>> {
    let refused = |text: &str| Err(banger_bus::Error::new(ErrorKind::InvalidArgument, text));
    match (argv.is_empty(), shell, entrypoint) {
        (_, true, true) => refused("A shell and the image's entrypoint: ask for one of them"),
        (false, true, _) => refused("A command and a shell: ask for one of them"),
        (true, false, false) => refused("No command: give one, or ask for a shell"),
        (_, _, false) => Ok(argv.to_vec()),
        (bare, false, true) => {
            let rest = if bare { &image.command[..] } else { argv };
            let words = [&image.entrypoint[..], rest].concat();
            if words.is_empty() {
                return refused(
                    "The image has neither an entrypoint nor a command of its own: give a command",
                );
            }
            Ok(words)
        }
    }
}

/// Runs a command until its end, or until it is cancelled: then its channel is closed, by which
/// the guest ends it.
///
/// # Errors
/// When the agent cannot be reached, or refuses the command, or the connection ends.
pub(crate) async fn run(
    agent: Arc<Agent>,
    ctx: JobContext,
    mut requests: ProcessRequests,
    command: Command,
    stdio: [OwnedFd; 3],
) -> banger_bus::Result<JobOutcome> {
    let started = async {
        let (lease, channel) = agent.channel().await?;
        let (read, write) = channel.split();
        start(&write, &command).await?;
        Ok::<_, Error>((lease, read, write))
    };
    let (_lease, read, write) = tokio::select! {
        started = started => started?,
        gone = agent.hung_up() => return Err(Error::Gone(gone).into()),
        () = ctx.cancelled() => return Err(cancelled()),
    };
    let stop = Stop::new().map_err(no_thread)?;
    let [stdin, stdout, stderr] = stdio;
    let stdin = stop.reader(stdin).map_err(no_thread)?;
    let streams = [
        stop.writer("stdout", stdout).map_err(no_thread)?,
        stop.writer("stderr", stderr).map_err(no_thread)?,
    ];
    let limit = Limit::new();
    let ending = {
        let output = output(read, &write, streams, &limit, command.terminal.is_some());
        let input = async {
            // Without a command to read it, its input has nowhere to go.
            let _ = input(&write, stdin).await;
            std::future::pending::<()>().await;
        };
        let control = async {
            while let Some(request) = requests.recv().await {
                limit.widen();
                answer(&write, request).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ending = output => Some(ending),
            () = input => None,
            () = control => None,
            gone = agent.hung_up() => return Err(Error::Gone(gone).into()),
            () = ctx.cancelled() => None,
        }
    };
    let Some(ending) = ending else {
        // The receiver is gone, so nothing holds up the connection. If it is broken, so is the command.
        let _ = write.close().await;
        return Err(cancelled());
    };
    Ok(ending.outcome()?)
}

async fn start(write: &ChannelWriteHalf<Msg>, command: &Command) -> Result<()> {
    if let Some(terminal) = &command.terminal {
        let (columns, rows) = (terminal.columns, terminal.rows);
        write
            .request_pty(true, &terminal.term, columns, rows, 0, 0, &[])
            .await?;
    }
    for (key, value) in &command.env {
        write.set_env(false, key, value).await?;
    }
    match &command.line {
        Some(line) => write.exec(true, line.as_bytes()).await?,
        None => write.request_shell(true).await?,
    }
    Ok(())
}

async fn input(write: &ChannelWriteHalf<Msg>, mut stdin: mpsc::Receiver<Vec<u8>>) -> Result<()> {
    while let Some(chunk) = stdin.recv().await {
        write.data_bytes(chunk).await?;
    }
    Ok(write.eof().await?)
}

async fn answer(write: &ChannelWriteHalf<Msg>, request: ProcessRequest) {
    let (result, done) = match request {
        ProcessRequest::Signal(name, done) => (write.signal(sig(&name)).await, done),
        ProcessRequest::Resize { columns, rows, done } => match (check_size(columns), check_size(rows)) {
            (Ok(columns), Ok(rows)) => (write.window_change(columns, rows, 0, 0).await, done),
            (Err(error), _) | (_, Err(error)) => {
                let _ = done.send(Err(error));
                return;
            }
        },
    };
    // Who asked may have left.
    let _ = done.send(result.map_err(|error| Error::Ssh(error).into()));
}

/// How much output may wait, see [`BACKLOG`].
struct Limit {
    bytes: AtomicUsize,
    widened: Notify,
}

/// One output stream of the caller, and what waits for it.
struct Output {
    waiting: VecDeque<Bytes>,
    writer: Writer<Bytes>,
    broken: bool,
}

impl Limit {
    fn new() -> Self {
        Self {
            bytes: AtomicUsize::new(BACKLOG),
            widened: Notify::new(),
        }
    }

    fn widen(&self) {
        self.bytes.store(BACKLOG_SIGNALLED, Ordering::Relaxed);
        self.widened.notify_one();
    }
}

impl Output {
    fn new(writer: Writer<Bytes>) -> Self {
        Self {
            waiting: VecDeque::new(),
            writer,
            broken: false,
        }
    }

    fn push(&mut self, data: Bytes) {
        if !self.broken && !data.is_empty() {
            self.waiting.push_back(data);
        }
    }

    fn bytes(&self) -> usize {
        self.waiting.iter().map(Bytes::len).sum()
    }

    /// Gives the next piece to the stream. True when nobody reads it any more.
    async fn forward(&mut self) -> bool {
        if let Ok(permit) = self.writer.sender.reserve().await {
            if let Some(data) = self.waiting.pop_front() {
                permit.send(data);
            }
            return false;
        }
        self.waiting.clear();
        self.broken = true;
        true
    }

    async fn finish(self) {
        let Writer { sender, done } = self.writer;
        drop(sender);
        // An error says that the thread is gone: then all is as written as it will be.
        let _ = done.await;
    }
}

/// Takes everything that the guest sends and gives it to the caller's streams. Returns when the
/// channel has ended and all is written.
async fn output(
    mut read: ChannelReadHalf,
    write: &ChannelWriteHalf<Msg>,
    streams: [Writer<Bytes>; 2],
    limit: &Limit,
    terminal: bool,
) -> Ending {
    let [mut stdout, mut stderr] = streams.map(Output::new);
    let mut ending = Ending::new(terminal);
    // What a program gets whose reader, or whose terminal, is gone.
    let broken = if terminal { Sig::HUP } else { Sig::PIPE };
    let mut open = true;
    while open || !stdout.waiting.is_empty() || !stderr.waiting.is_empty() {
        let room = stdout.bytes() + stderr.bytes() < limit.bytes.load(Ordering::Relaxed);
        let gone = tokio::select! {
            message = read.wait(), if open && room => {
                match message {
                    Some(ChannelMsg::Data { data }) => stdout.push(data),
                    Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => stderr.push(data),
                    Some(message) => open = ending.hear(message),
                    None => open = false,
                }
                false
            }
            gone = stdout.forward(), if !stdout.waiting.is_empty() => gone,
            gone = stderr.forward(), if !stderr.waiting.is_empty() => gone,
            () = limit.widened.notified(), if open && !room => false,
        };
        if gone {
            // When the connection is broken too, its end comes next.
            let _ = write.signal(broken.clone()).await;
        }
    }
    stdout.finish().await;
    stderr.finish().await;
    ending
}

impl Ending {
    fn new(terminal: bool) -> Self {
        let mut asked = VecDeque::from(["to run the command"]);
        if terminal {
            asked.push_front("a terminal");
        }
        Self {
            asked,
            status: None,
            signal: None,
            refused: None,
        }
    }

    /// Takes a message that is not data. False when it is the last one.
    fn hear(&mut self, message: ChannelMsg) -> bool {
        match message {
            ChannelMsg::Success => {
                self.asked.pop_front();
            }
            ChannelMsg::Failure => {
                self.refused = self.asked.pop_front();
                return false;
            }
            ChannelMsg::ExitStatus { exit_status } => self.status = Some(exit_status),
            ChannelMsg::ExitSignal { signal_name, .. } => self.signal = Some(signal_name),
            ChannelMsg::Close => return false,
            _ => {}
        }
        true
    }

    fn outcome(self) -> Result<JobOutcome> {
        if let Some(what) = self.refused {
            return Err(Error::Request(what));
        }
        let (exit_status, signal) = match (self.signal, self.status) {
            (Some(signal), _) => {
                let name = signal_name(&signal);
                (128 + signal::number(&name).unwrap_or(0), Some(name))
            }
            // A status is the low byte of what wait(2) gives; the guest is not trusted to keep to it.
            (None, Some(status)) => (i32::try_from(status & 0xff).unwrap_or(255), None),
            (None, None) => return Err(Error::Lost),
        };
        Ok(JobOutcome {
            exit_status: Some(exit_status),
            signal,
            ..JobOutcome::done()
        })
    }
}

fn sig(name: &str) -> Sig {
    match name {
        "ABRT" => Sig::ABRT,
        "ALRM" => Sig::ALRM,
        "FPE" => Sig::FPE,
        "HUP" => Sig::HUP,
        "ILL" => Sig::ILL,
        "INT" => Sig::INT,
        "KILL" => Sig::KILL,
        "PIPE" => Sig::PIPE,
        "QUIT" => Sig::QUIT,
        "SEGV" => Sig::SEGV,
        "TERM" => Sig::TERM,
        "USR1" => Sig::USR1,
        other => Sig::Custom(other.to_owned()),
    }
}

/// The name as it goes on: letters and digits of the guest's text, and few of them.
fn signal_name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(16)
            .collect(),
        other => format!("{other:?}"),
    }
}

fn check_env(env: HashMap<String, String>) -> banger_bus::Result<Vec<(String, String)>> {
    if env.len() > MAX_PAIRS {
        return Err(banger_bus::Error::new(
            ErrorKind::LimitExceeded,
            format!(
                "Too many environment variables: {} (at most {MAX_PAIRS})",
                env.len()
            ),
        ));
    }
    let mut env: Vec<_> = env.into_iter().collect();
    env.sort_unstable();
    for (key, value) in &env {
        let good = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && key.len() + value.len() <= MAX_PAIR_BYTES
            && !value.contains('\0');
        if !good {
            return Err(banger_bus::Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "Not a valid environment variable: {key:?} (letters, digits and '_', at most {MAX_PAIR_BYTES} bytes with its value, without NUL)"
                ),
            ));
        }
    }
    Ok(env)
}

fn check_term(term: Option<String>) -> banger_bus::Result<String> {
    let term = term.unwrap_or_else(|| "xterm-256color".to_owned());
    let good = !term.is_empty()
        && term.len() <= 64
        && term
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    if good {
        Ok(term)
    } else {
        Err(banger_bus::Error::new(
            ErrorKind::InvalidArgument,
            format!("Not a terminal type: {term:?}"),
        ))
    }
}

fn check_size(cells: u32) -> banger_bus::Result<u32> {
    // struct winsize has 16 bits for each.
    if (1..=u32::from(u16::MAX)).contains(&cells) {
        Ok(cells)
    } else {
        Err(banger_bus::Error::new(
            ErrorKind::InvalidArgument,
            format!("Not a terminal's size: {cells} (1 to {})", u16::MAX),
        ))
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
