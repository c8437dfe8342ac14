//! What the client of one connection asks for, request by request.

use std::collections::HashMap;
use std::sync::Arc;

use banger_model::agent::SUBSYSTEM;
use banger_model::guest::Identity;
use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session as Connection, VerifiedPublicKey,
};
use russh::{ChannelId, ChannelOpenFailure, Pty, Sig};
use rustix::process::Signal;
use tokio::sync::{Notify, oneshot};

use super::backlog::Backlog;
use super::channel::{Channel, Session};
use super::command::Program;
use super::exit::number_of;
use super::figures::{self, Question};
use super::forward::{self, Target};
use super::terminal::{self, Wanted};
use crate::sockets::Sockets;
use crate::users::{self, User};

/// Channels of one connection at once: sessions and forwarded connections.
const MAX_CHANNELS: usize = 256;

/// One connection.
pub(super) struct Client {
    identity: Arc<Identity>,
    keys: Vec<PublicKey>,
    backlog: Arc<Backlog>,
    /// Variables that say who is connected.
    peer: Vec<(&'static str, String)>,
    user: Option<User>,
    /// Told when the client has proved who it is.
    authenticated: Option<oneshot::Sender<()>>,
    channels: HashMap<ChannelId, Channel>,
    sockets: Arc<Sockets>,
}

impl Client {
    pub(super) fn new(
        identity: Arc<Identity>,
        keys: Vec<PublicKey>,
        backlog: Arc<Backlog>,
        peer: Vec<(&'static str, String)>,
        authenticated: oneshot::Sender<()>,
    ) -> Self {
        Self {
            identity,
            keys,
            backlog,
            peer,
            user: None,
            authenticated: Some(authenticated),
            channels: HashMap::new(),
            sockets: Arc::default(),
        }
    }

    /// The user, if the key opens the door for it.
    fn admit(&self, name: &str, key: &PublicKey) -> Option<User> {
        let known = self.keys.iter().any(|known| known.key_data() == key.key_data());
        known.then(|| users::find(name))?
    }

    fn session(&mut self, id: ChannelId) -> Option<&mut Session> {
        self.channels.get_mut(&id)?.session.as_mut()
    }

    fn start(&mut self, id: ChannelId, program: &Program, connection: &mut Connection) -> bool {
        let (Some(user), Some(channel)) = (&self.user, self.channels.get_mut(&id)) else {
            return false;
        };
        let gone = Arc::clone(&channel.gone);
        channel.session.as_mut().is_some_and(|session| {
            session.start(
                program,
                user,
                &self.identity,
                &self.peer,
                &gone,
                connection.handle(),
            )
        })
    }

    /// Answers a question of root's without a process.
    fn answer(&mut self, id: ChannelId, question: Question, connection: &mut Connection) -> bool {
        let root = self.user.as_ref().is_some_and(|user| user.credentials.uid == 0);
        let Some(channel) = self.channels.get_mut(&id).filter(|_| root) else {
            return false;
        };
        let session = channel.session.as_mut();
        let Some((_, client)) = session.and_then(|it| it.take_client(connection.handle())) else {
            return false;
        };
        let (sockets, gone) = (Arc::clone(&self.sockets), Arc::clone(&channel.gone));
        let own_port = self.identity.ssh.port;
        tokio::spawn(figures::run(question, sockets, own_port, client, gone));
        true
    }

    /// Whether no further channel can be opened. A forwarded connection that failed was no
    /// channel for the client, which never closes it: it goes here.
    fn is_full(&mut self) -> bool {
        if self.channels.len() >= MAX_CHANNELS {
            self.channels
                .retain(|_, channel| channel.session.is_some() || !channel.input.is_gone());
        }
        self.channels.len() >= MAX_CHANNELS
    }

    /// Opens a forwarded connection in a task of its own: others need not wait for it.
    async fn forward(&mut self, channel: russh::Channel<Msg>, target: Target, reply: ChannelOpenHandle) {
        if self.is_full() {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        let id = channel.id();
        let (_, write) = channel.split();
        let (input, output) = self.backlog.queue();
        let gone = Arc::new(Notify::new());
        tokio::spawn(forward::run(target, reply, output, write, Arc::clone(&gone)));
        let channel = Channel {
            input,
            gone,
            session: None,
        };
        self.channels.insert(id, channel);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for channel in self.channels.values_mut() {
            channel.session.iter_mut().for_each(Session::end);
        }
    }
}

/// Tells the client whether a request was granted.
fn answer(granted: bool, id: ChannelId, connection: &mut Connection) -> Result<(), russh::Error> {
    if granted {
        connection.channel_success(id)
    } else {
        connection.channel_failure(id)
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(match self.admit(user, offer.public_key) {
            Some(_) => Auth::Accept,
            None => Auth::reject(),
        })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        self.user = self.admit(user, key.public_key);
        Ok(match self.user {
            Some(_) => Auth::Accept,
            None => Auth::reject(),
        })
    }

    async fn auth_succeeded(&mut self, _: &mut Connection) -> Result<(), Self::Error> {
        if let Some(authenticated) = self.authenticated.take() {
            // Nobody waits once the connection ends.
            let _ = authenticated.send(());
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Connection,
    ) -> Result<(), Self::Error> {
        if self.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let id = channel.id();
        // The library's own queue would stop the connection when it is full.
        let (_, write) = channel.split();
        let (input, output) = self.backlog.queue();
        let channel = Channel {
            input,
            gone: Arc::new(Notify::new()),
            session: Some(Session::new(output, write)),
        };
        self.channels.insert(id, channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Connection,
    ) -> Result<(), Self::Error> {
        let host = host.to_owned();
        self.forward(channel, Target::Tcp { host, port }, reply).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: russh::Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Connection,
    ) -> Result<(), Self::Error> {
        let path = path.to_owned();
        self.forward(channel, Target::Unix { path }, reply).await;
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Connection) -> Result<(), Self::Error> {
        if let Some(channel) = self.channels.get(&id) {
            channel.input.push(data);
        }
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, current: u32) -> u32 {
        self.backlog.next_window(current)
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Connection) -> Result<(), Self::Error> {
        if let Some(channel) = self.channels.get(&id) {
            channel.input.end();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Connection) -> Result<(), Self::Error> {
        if let Some(mut channel) = self.channels.remove(&id) {
            channel.session.iter_mut().for_each(Session::end);
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        connection: &mut Connection,
    ) -> Result<(), Self::Error> {
        let session = self.session(id);
        let granted = session.is_some() && !term.contains('\0');
        if let Some(session) = session.filter(|_| granted) {
            session.terminal = Some(Wanted {
                term: term.to_owned(),
                size: terminal::size(columns, rows, width, height),
                modes: modes.to_vec(),
            });
        }
        answer(granted, id, connection)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        connection: &mut Connection,
    ) -> Result<(), Self::Error> {
        answer(false, id, connection)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _: &mut Connection,
    ) -> Result<(), Self::Error> {
        // The one request that wants no answer.
        if let Some(session) = self.session(id) {
            session.resize(terminal::size(columns, rows, width, height));
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        connection: &mut Connection,
    ) -> Result<(), Self::Error> {
        let session = self.channels.get_mut(&id).and_then(|it| it.session.as_mut());
        let granted = match (session, &self.user) {
            (Some(session), Some(login)) => session.set_variable(login, name, value),
            _ => false,
        };
        answer(granted, id, connection)
    }

    async fn shell_request(&mut self, id: ChannelId, connection: &mut Connection) -> Result<(), Self::Error> {
        let granted = self.start(id, &Program::Shell, connection);
        answer(granted, id, connection)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        connection: &mut Connection,
    ) -> Result<(), Self::Error> {
        let granted =
            !command.contains(&0) && self.start(id, &Program::Command(command.to_vec()), connection);
        answer(granted, id, connection)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        connection: &mut Connection,
    ) -> Result<(), Self::Error> {
        let granted = match Question::of(name) {
            Some(question) => self.answer(id, question, connection),
            None => {
                let root = self.user.as_ref().is_some_and(|user| user.credentials.uid == 0);
                let program = match name {
                    "sftp" => Some(Program::Sftp),
                    SUBSYSTEM if root => Some(Program::Files),
                    _ => None,
                };
                program.is_some_and(|program| self.start(id, &program, connection))
            }
        };
        answer(granted, id, connection)
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _: &mut Connection) -> Result<(), Self::Error> {
        let signal = number_of(&signal).and_then(Signal::from_named_raw);
        if let (Some(signal), Some(session)) = (signal, self.session(id)) {
            session.signal(signal);
        }
        Ok(())
    }
}
