//! SSH connections to a guest's agent, kept open: a command costs a channel and not a handshake.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use russh::Channel;
use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::{Error, Result};

/// The user as whom commands run.
const USER: &str = "root";
/// Where a published port leads: what listens for the guest alone is reached too.
const LOOPBACK: &str = "127.0.0.1";
/// How long connecting may take: under emulation a handshake alone takes a second.
const CONNECT: Duration = Duration::from_secs(30);
/// Connections to one guest. A client that does not read its output stops the connection that
/// carries it, so each command has its own as long as there are few.
const MAX_SESSIONS: usize = 8;
/// Connections that stay open without a command.
const MAX_UNUSED: usize = 2;
/// What the guest may send before we take it, per channel in bytes.
const WINDOW: u32 = 2 << 20;
/// The largest piece of data in bytes; below what TCP and russh take as one.
const PACKET: u32 = 65_535;
/// How long after a VM's end its guest's last words may be on their way, which the host's kernel has
/// by then. Where its VMM held the connections they end by themselves before.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Messages of one channel that wait to be taken.
const CHANNEL_BUFFER: usize = 32;

/// Where a guest's agent is and how it proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// A line of authorized_keys(5).
    pub(crate) host_key: String,
}

/// The way into one running guest.
pub(crate) struct Agent {
    address: SocketAddr,
    host_key: PublicKey,
    client_key: Arc<PrivateKey>,
    config: Arc<client::Config>,
    sessions: Mutex<Vec<Arc<Session>>>,
    /// Held while connecting: many at once would be refused or late, and share what one makes.
    connecting: tokio::sync::Mutex<()>,
    /// Whether the guest that it leads to is gone, and how.
    gone: watch::Sender<Option<Gone>>,
}

/// Why a guest will never answer on its connections. Nothing else says so: a guest that does not
/// run ends none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It has started anew, and its kernel forgot them.
    Restarted,
    /// Its VM has ended.
    Ended,
}

struct Session {
    handle: Handle<Pin>,
    /// Commands that run on it.
    used: AtomicUsize,
}

/// The use of a connection by one command; its place is free again when this is dropped.
pub(crate) struct Lease {
    session: Arc<Session>,
    agent: Arc<Agent>,
}

/// Accepts one host key.
struct Pin {
    key: PublicKey,
    address: SocketAddr,
}

impl Agent {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the host key cannot be read.
    pub(crate) fn new(endpoint: &Endpoint, client_key: Arc<PrivateKey>) -> Result<Arc<Self>> {
        let host_key = PublicKey::from_openssh(&endpoint.host_key)
            .map_err(|_| Error::HostKey(endpoint.host_key.clone()))?;
        let config = client::Config {
            window_size: WINDOW,
            maximum_packet_size: PACKET,
            channel_buffer_size: CHANNEL_BUFFER,
            nodelay: true,
            ..client::Config::default()
        };
        Ok(Arc::new(Self {
            address: endpoint.address,
            host_key,
            client_key,
            config: Arc::new(config),
            sessions: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            gone: watch::channel(None).0,
        }))
    }

    /// Connects, so that the first command finds a connection. Does nothing where one is open.
    ///
    /// # Errors
    /// When the agent does not answer or is not the guest's.
    pub(crate) async fn warm(self: &Arc<Self>) -> Result<()> {
        self.lease().await.map(drop)
    }

    /// Nothing more will come from the guest: commands that wait are told.
    pub(crate) fn hang_up(&self, why: Gone) {
        self.gone.send_replace(Some(why));
        self.lock().clear();
    }

    /// Resolves after [`Agent::hang_up`]. What the guest said before it ended has been taken then.
    pub(crate) async fn hung_up(&self) -> Gone {
        let mut gone = self.gone.subscribe();
        // The sender lives as long as self, so this ends by the word only.
        let why = gone.wait_for(Option::is_some).await;
        let why = why.ok().and_then(|why| *why).unwrap_or(Gone::Ended);
        if why == Gone::Ended {
            tokio::time::sleep(LAST_WORDS).await;
        }
        why
    }

    /// A session channel on a connection that still works.
    pub(super) async fn channel(self: &Arc<Self>) -> Result<(Lease, Channel<Msg>)> {
        let lease = self.lease().await?;
        match lease.session.handle.channel_open_session().await {
            Ok(channel) => Ok((lease, channel)),
            // It was open a moment ago, but the guest may have ended it since.
            Err(_) if lease.session.handle.is_closed() => {
                drop(lease);
                let lease = self.connect().await?;
                let channel = lease.session.handle.channel_open_session().await;
                channel.map(|channel| (lease, channel)).map_err(Error::Ssh)
            }
            Err(error) => Err(Error::Ssh(error)),
        }
    }

    /// Whether a connection from within the guest to a host and port of its network is made. It is
    /// closed at once.
    ///
    /// # Errors
    /// When the agent itself is not reached.
    pub(crate) async fn reaches(self: &Arc<Self>, host: &str, port: u16) -> Result<bool> {
        let lease = self.lease().await?;
        let opening = lease
            .session
            .handle
            .channel_open_direct_tcpip(host, port.into(), "127.0.0.1", 0);
        match opening.await {
            Ok(channel) => {
                // Whoever is at the other end sees the connection end either way.
                let _ = channel.close().await;
                Ok(true)
            }
            Err(russh::Error::ChannelOpenFailure(_)) => Ok(false),
            Err(error) => Err(Error::Ssh(error)),
        }
    }

    /// A connection to a port of the guest's own loopback, for one of the host at `from`.
    ///
    /// # Errors
    /// When the agent is not reached, or nothing listens there.
    pub(crate) async fn forward(
        self: &Arc<Self>,
        port: u16,
        from: SocketAddr,
    ) -> Result<(Lease, Channel<Msg>)> {
        let lease = self.lease().await?;
        let (address, number) = (from.ip().to_string(), from.port().into());
        let opened = lease
            .session
            .handle
            .channel_open_direct_tcpip(LOOPBACK, port.into(), address, number);
        match opened.await {
            Ok(channel) => Ok((lease, channel)),
            Err(error) => Err(Error::Ssh(error)),
        }
    }

    async fn lease(self: &Arc<Self>) -> Result<Lease> {
        if let Some(lease) = self.take() {
            return Ok(lease);
        }
        let _turn = timeout(CONNECT, self.connecting.lock())
            .await
            .map_err(|_| Error::ConnectTimeout(self.address))?;
        match self.take() {
            Some(lease) => Ok(lease),
            None => self.connect().await,
        }
    }

    /// An unused connection, or the least used one when there are many.
    fn take(self: &Arc<Self>) -> Option<Lease> {
        let mut sessions = self.lock();
        sessions.retain(|session| !session.handle.is_closed());
        let full = sessions.len() >= MAX_SESSIONS;
        let session = sessions
            .iter()
            .min_by_key(|session| session.used.load(Ordering::Relaxed))?;
        if !full && session.used.load(Ordering::Relaxed) > 0 {
            return None;
        }
        session.used.fetch_add(1, Ordering::Relaxed);
        Some(Lease {
            session: session.clone(),
            agent: self.clone(),
        })
    }

    async fn connect(self: &Arc<Self>) -> Result<Lease> {
        let address = self.address;
        let handle = timeout(CONNECT, self.handshake())
            .await
            .map_err(|_| Error::ConnectTimeout(address))??;
        let session = Arc::new(Session {
            handle,
            used: AtomicUsize::new(1),
        });
        self.lock().push(session.clone());
        Ok(Lease {
            session,
            agent: self.clone(),
        })
    }

    async fn handshake(&self) -> Result<Handle<Pin>> {
        let address = self.address;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| Error::Connect { address, source })?;
        stream
            .set_nodelay(true)
            .map_err(|source| Error::Connect { address, source })?;
        let pin = Pin {
            key: self.host_key.clone(),
            address,
        };
        let mut handle = client::connect_stream(self.config.clone(), stream, pin).await?;
        let key = PrivateKeyWithHashAlg::new(self.client_key.clone(), None);
        let answer = handle
            .authenticate_publickey(USER, key)
            .await
            .map_err(Error::Ssh)?;
        if answer.success() {
            Ok(handle)
        } else {
            Err(Error::Refused)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut sessions = self.agent.lock();
        self.session.used.fetch_sub(1, Ordering::Relaxed);
        let mut unused = 0;
        sessions.retain(|session| {
            if session.used.load(Ordering::Relaxed) == 0 {
                unused += 1;
            }
            // A dropped handle ends its connection.
            !session.handle.is_closed() && (unused <= MAX_UNUSED || session.used.load(Ordering::Relaxed) > 0)
        });
    }
}

impl client::Handler for Pin {
    type Error = Error;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool> {
        match offered {
            PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.key.key_data() => {
                Ok(true)
            }
            _ => Err(Error::WrongHostKey(self.address)),
        }
    }

    // Nothing is forwarded, so the guest has no channel to open. russh would accept any number
    // of them; a reply that is dropped refuses.

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<()> {
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<()> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<()> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<()> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<()> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<()> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<()> {
        Ok(())
    }
}

impl From<russh::Error> for Error {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}
