//! A session channel: what the client has asked for so far, and then the process.

use std::sync::Arc;

use russh::ChannelWriteHalf;
use russh::server::{Handle, Msg};
use tokio::sync::Notify;

use banger_model::guest::{Identity, MAKE_WORKDIR_VARIABLE, USER_VARIABLE, WORDS_VARIABLE, WORKDIR_VARIABLE};
use banger_model::limits::MAX_ARGS_BYTES;

use super::backlog::{QueueIn, QueueOut};
use super::command::{Program, Workdir, is_variable_name};
use super::process::{Group, Launch, NotStarted, Started, launch};
use super::pump::{self, Client};
use super::terminal::{Terminal, Wanted};
use crate::users::{self, User};

/// Variables that a client may send for one session.
const MAX_VARIABLES: usize = 4096;

/// What the login itself decides.
const OF_A_LOGIN: [&str; 4] = ["HOME", "USER", "LOGNAME", "SHELL"];
/// The status of a process whose user is not there, as docker has it: nothing was tried.
const NO_USER: u32 = 125;

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
    make_workdir: bool,
    /// As whom the process runs, instead of the user who logged in.
    user: Option<String>,
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
            make_workdir: false,
            user: None,
            words: false,
            parts: Some((input, write)),
            running: None,
        }
    }

    /// Takes a variable of a session of `login`; false when it cannot be one, when there are too
    /// many, or when it is not for him.
    pub(super) fn set_variable(&mut self, login: &User, name: &str, value: &str) -> bool {
        let root = login.credentials.uid == 0;
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
            USER_VARIABLE | MAKE_WORKDIR_VARIABLE if !root => return false,
            USER_VARIABLE => self.user = Some(value.to_owned()),
            MAKE_WORKDIR_VARIABLE => self.make_workdir = true,
            WORKDIR_VARIABLE => self.workdir = Some(value.to_owned()),
            WORDS_VARIABLE => self.words = true,
            _ => self.env.push((name.to_owned(), value.to_owned())),
        }
        true
    }

    /// The client's end, for whoever answers it; nothing when somebody does already.
    pub(super) fn take_client(&mut self, handle: Handle) -> Option<(QueueOut, Client)> {
        let (input, write) = self.parts.take()?;
        let write = Arc::new(write);
        Some((input, Client { write, handle }))
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
        let Some((input, client)) = self.take_client(handle) else {
            return false;
        };
        match self.launch(program, user, identity, peer) {
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

    fn launch(
        &self,
        program: &Program,
        login: &User,
        identity: &Identity,
        peer: &[(&'static str, String)],
    ) -> Result<Started, NotStarted> {
        let other = match &self.user {
            Some(user) => Some(users::resolve(user).map_err(|error| NotStarted {
                status: NO_USER,
                message: error.to_string(),
            })?),
            None => None,
        };
        let words = match program {
            Program::Command(line) if self.words => Some(Program::Words(line.clone())),
            _ => None,
        };
        let env = self.environment(identity, peer);
        launch(&Launch {
            program: words.as_ref().unwrap_or(program),
            user: other.as_ref().unwrap_or(login),
            workdir: match &self.workdir {
                Some(directory) if self.make_workdir => Workdir::Made(directory),
                Some(directory) => Workdir::Existing(directory),
                None => Workdir::Home,
            },
            // Profiles set a PATH of their own: where there is one, an image's shell is none of
            // a login.
            login: other.is_none() || !env.iter().any(|(name, _)| *name == "PATH"),
            env,
            terminal: self.terminal.as_ref(),
        })
    }

    /// What the process has besides the user's own, in the order of its weight.
    fn environment<'a>(
        &'a self,
        identity: &'a Identity,
        peer: &'a [(&'static str, String)],
    ) -> Vec<(&'a str, &'a str)> {
        // Who logs in is at home whatever the image says of its own processes; and these have
        // no client, by which bash would know that it is to read its profile.
        let logs_in = self.user.is_none();
        let peer = peer.iter().filter(|_| logs_in);
        let image = identity
            .env
            .iter()
            .filter(|(name, _)| !(logs_in && OF_A_LOGIN.contains(&name.as_str())));
        let own = self.env.iter().map(|(name, value)| (name, value));
        peer.map(|(name, value)| (*name, value.as_str()))
            .chain(
                image
                    .chain(own)
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            )
            .collect()
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
