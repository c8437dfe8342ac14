//! A session channel: what the client has asked for so far, and then the process.

use std::sync::Arc;

use russh::ChannelWriteHalf;
use russh::server::{Handle, Msg};
use tokio::sync::Notify;

use banger_model::guest::{Identity, WORDS_VARIABLE, WORKDIR_VARIABLE};
use banger_model::limits::MAX_ARGS_BYTES;

use super::backlog::{QueueIn, QueueOut};
use super::command::{Program, is_variable_name};
use super::process::{Group, Launch, launch};
use super::pump::{self, Client};
use super::terminal::{Terminal, Wanted};
use crate::users::User;

/// Variables that a client may send for one session.
const MAX_VARIABLES: usize = 4096;

/// One channel of a connection.
pub(super) struct Channel {
    pub(super) input: QueueIn,
    /// Told when the client has closed the channel or gone.
    pub(super) gone: Arc<Notify>,
    /// None for a forwarded connection.
    pub(super) session: Option<Session>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.gone.notify_one();
    }
}

/// What a session is to be, and what it is once it runs.
pub(super) struct Session {
    pub(super) terminal: Option<Wanted>,
    env: Vec<(String, String)>,
    env_bytes: usize,
    workdir: Option<String>,
    /// Whether a command is words, and not a line for a shell.
    words: bool,
    /// Taken when the process starts: a channel has one.
    parts: Option<(QueueOut, ChannelWriteHalf<Msg>)>,
    running: Option<Running>,
}

struct Running {
    group: Group,
    terminal: Option<Arc<Terminal>>,
}

impl Session {
    pub(super) fn new(input: QueueOut, write: ChannelWriteHalf<Msg>) -> Self {
        Self {
            terminal: None,
            env: Vec::new(),
            env_bytes: 0,
            workdir: None,
            words: false,
            parts: Some((input, write)),
            running: None,
        }
    }

    /// Takes a variable; false when it cannot be one, or there are too many.
    pub(super) fn set_variable(&mut self, name: &str, value: &str) -> bool {
        let bytes = self.env_bytes + name.len() + value.len();
        if !is_variable_name(name)
            || value.contains('\0')
            || self.env.len() >= MAX_VARIABLES
            || bytes > MAX_ARGS_BYTES
        {
            return false;
        }
        self.env_bytes = bytes;
        match name {
            WORKDIR_VARIABLE => self.workdir = Some(value.to_owned()),
            WORDS_VARIABLE => self.words = true,
            _ => self.env.push((name.to_owned(), value.to_owned())),
        }
        true
    }

    /// Starts the process; false when there has been one.
    pub(super) fn start(
        &mut self,
        program: &Program,
        user: &User,
        identity: &Identity,
        peer: &[(&'static str, String)],
        gone: &Arc<Notify>,
        handle: Handle,
    ) -> bool {
        let Some((input, write)) = self.parts.take() else {
            return false;
        };
        let client = Client {
            write: Arc::new(write),
            handle,
        };
        let words = match program {
            Program::Command(line) if self.words => Some(Program::Words(line.clone())),
            _ => None,
        };
        let pairs = |(name, value): &'_ (String, String)| (name.clone(), value.clone());
        let env: Vec<_> = peer
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .chain(
                identity
                    .env
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            )
            .chain(self.env.iter().map(pairs))
            .collect();
        let wanted = Launch {
            program: words.as_ref().unwrap_or(program),
            user,
            workdir: self.workdir.as_deref(),
            env: env
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            terminal: self.terminal.as_ref(),
        };
        match launch(&wanted) {
            Ok(started) => {
                self.running = Some(Running {
                    group: started.group.clone(),
                    terminal: started.terminal.clone(),
                });
                tokio::spawn(pump::run(started, input, client, Arc::clone(gone)));
            }
            Err(why) => drop(tokio::spawn(pump::refuse(client, why))),
        }
        true
    }

    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        if let Some(running) = &self.running {
            running.group.signal(signal);
        }
    }

    pub(super) fn resize(&mut self, size: rustix::termios::Winsize) {
        if let Some(wanted) = &mut self.terminal {
            wanted.size = size;
        }
        if let Some(terminal) = self
            .running
            .as_ref()
            .and_then(|running| running.terminal.as_ref())
        {
            terminal.resize(size);
        }
    }

    /// The session is over for the client: a terminal closes with the last who holds it.
    pub(super) fn end(&mut self) {
        if let Some(running) = &mut self.running {
            running.group.signal(rustix::process::Signal::HUP);
            running.terminal = None;
        }
    }
}
