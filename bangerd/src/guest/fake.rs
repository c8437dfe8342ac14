//! An agent for tests: an SSH server that runs commands by the host's own shell.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use russh::keys::{Algorithm, PrivateKey, PublicKey, key::safe_rng};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::agent::Endpoint;

/// A server on a port of its own, for one client's key.
pub(crate) struct FakeGuest {
    pub(crate) endpoint: Endpoint,
    /// The status of each command that has ended here, as its shell gave it.
    pub(super) ended: mpsc::UnboundedReceiver<std::process::ExitStatus>,
    pub(super) connections: mpsc::UnboundedReceiver<SocketAddr>,
    /// Which of the channels that a guest could open were accepted.
    pub(super) opened: mpsc::UnboundedReceiver<[bool; 7]>,
}

struct Server {
    client: PublicKey,
    ended: mpsc::UnboundedSender<std::process::ExitStatus>,
    opened: mpsc::UnboundedSender<[bool; 7]>,
    channels: HashMap<ChannelId, Channel<Msg>>,
    env: Vec<(String, String)>,
}

pub(crate) fn new_key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

impl FakeGuest {
    pub(crate) async fn start(client: &PrivateKey) -> Self {
        let host = new_key();
        let mut public = host.public_key().clone();
        public.set_comment("");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint {
            address: listener.local_addr().unwrap(),
            host_key: public.to_openssh().unwrap(),
        };
        let config = Arc::new(server::Config {
            keys: vec![host],
            auth_rejection_time: std::time::Duration::ZERO,
            nodelay: true,
            ..server::Config::default()
        });
        let (ended, receiver) = mpsc::unbounded_channel();
        let (connected, connections) = mpsc::unbounded_channel();
        let (open, opened) = mpsc::unbounded_channel();
        let client = client.public_key().clone();
        tokio::spawn(async move {
            while let Ok((stream, address)) = listener.accept().await {
                let server = Server {
                    client: client.clone(),
                    ended: ended.clone(),
                    opened: open.clone(),
                    channels: HashMap::new(),
                    env: Vec::new(),
                };
                // A test that has ended does not listen.
                let _ = connected.send(address);
                let session = server::run_stream(config.clone(), stream, server).await;
                tokio::spawn(async move { session?.await });
            }
        });
        Self {
            endpoint,
            ended: receiver,
            connections,
            opened,
        }
    }
}

impl server::Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let good = user == "root" && key.public_key.key_data() == self.client.key_data();
        Ok(if good { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let place = (host.to_owned(), u16::try_from(port).unwrap());
        tokio::spawn(async move {
            let Ok(mut stream) = tokio::net::TcpStream::connect(place).await else {
                return reply.reject(russh::ChannelOpenFailure::ConnectFailed).await;
            };
            reply.accept().await;
            // Either side may break off.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut channel.into_stream()).await;
        });
        Ok(())
    }

    async fn env_request(
        &mut self,
        _: ChannelId,
        key: &str,
        value: &str,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.env.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let line = String::from_utf8_lossy(line).into_owned();
        if line.contains("refuse-me") {
            return session.channel_failure(id);
        }
        if line.contains("open-channels") {
            let (handle, opened) = (session.handle(), self.opened.clone());
            tokio::spawn(async move {
                let results = [
                    handle.channel_open_forwarded_tcpip("a", 1, "b", 2).await,
                    handle.channel_open_agent().await,
                    handle.channel_open_x11("a", 1).await,
                    handle.channel_open_session().await,
                    handle.channel_open_direct_tcpip("a", 1, "b", 2).await,
                    handle.channel_open_forwarded_streamlocal("/a").await,
                    handle.channel_open_direct_streamlocal("/a").await,
                ];
                // A test that has ended does not listen.
                let _ = opened.send(results.map(|opened| opened.is_ok()));
            });
        }
        session.channel_success(id)?;
        let child = Command::new("/bin/sh")
            .args(["-c", &line])
            .envs(self.env.drain(..))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(channel) = self.channels.remove(&id) {
            let (read, write) = channel.split();
            tokio::spawn(serve(child, read, write, self.ended.clone()));
        }
        Ok(())
    }
}

async fn serve(
    mut child: Child,
    mut read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    ended: mpsc::UnboundedSender<std::process::ExitStatus>,
) {
    let group = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    let mut stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let input = async {
        while let Some(message) = read.wait().await {
            match message {
                ChannelMsg::Data { data } => {
                    if let Some(stdin) = &mut stdin {
                        // The command may read no more.
                        let _ = stdin.write_all(&data).await;
                    }
                }
                ChannelMsg::Eof => stdin = None,
                ChannelMsg::Signal { signal } => {
                    let signal = match signal {
                        Sig::INT => rustix::process::Signal::INT,
                        Sig::PIPE => rustix::process::Signal::PIPE,
                        _ => rustix::process::Signal::TERM,
                    };
                    let _ = rustix::process::kill_process_group(group, signal);
                }
                _ => {}
            }
        }
        // The channel is closed: so ends the command.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::HUP);
        std::future::pending::<()>().await;
    };
    let output = async {
        tokio::join!(forward(stdout, &write, None), forward(stderr, &write, Some(1)));
        child.wait().await.unwrap()
    };
    let status = tokio::select! {
        status = output => status,
        () = input => return,
    };
    // The client may have left.
    let _ = ended.send(status);
    if let Some(code) = status.code() {
        let _ = write.exit_status(code.cast_unsigned()).await;
    }
    let _ = write.eof().await;
    let _ = write.close().await;
}

async fn forward(mut from: impl AsyncRead + Unpin, to: &ChannelWriteHalf<Msg>, ext: Option<u32>) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let length = from.read(&mut buffer).await.unwrap();
        if length == 0 {
            return;
        }
        let data = buffer[..length].to_vec();
        let sent = match ext {
            None => to.data_bytes(data).await,
            Some(ext) => to.extended_data_bytes(ext, data).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
