//! One connection, in a process of its own: from the client's first byte to its last.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use banger_model::guest::Identity;
use banger_sys::guest::SignalFd;
use russh::keys::ssh_key::Algorithm;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher};
use tokio::sync::oneshot;

use super::backlog::{Backlog, PacedStream, WINDOW};
use super::handler::Client;
use crate::console;

/// How long a client has to prove who it is.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// A client that says nothing is asked whether it is there, and dropped after three times.
const KEEPALIVE: Duration = Duration::from_secs(30);
const MAX_AUTH_ATTEMPTS: usize = 10;
/// The largest that OpenSSH's clients use.
const PACKET: u32 = 32 << 10;
/// AES is a good deal faster than ChaCha20 wherever a processor knows it.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];

/// Serves a client until it has gone.
pub(super) fn serve(stream: TcpStream, identity: Identity) -> ExitCode {
    // What a session uses up is the session's own to answer for.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    let result = SignalFd::unblock_all().and_then(|()| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(run(stream, identity))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::warn("A connection fails", &error);
            ExitCode::FAILURE
        }
    }
}

async fn run(stream: TcpStream, identity: Identity) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let peer = peer_variables(&stream)?;
    let config = Arc::new(config(&identity).map_err(io::Error::other)?);
    let keys = authorized_keys(&identity);
    let backlog = Arc::new(Backlog::default());
    let (authenticated, login) = oneshot::channel();
    let client = Client::new(
        Arc::new(identity),
        keys,
        Arc::clone(&backlog),
        peer,
        authenticated,
    );
    let stream = PacedStream { stream, backlog };
    let connection = async {
        // How it ended is the client's business.
        if let Ok(session) = russh::server::run_stream(config, stream, client).await {
            let _ = session.await;
        }
    };
    tokio::pin!(connection);
    tokio::select! {
        () = &mut connection => return Ok(()),
        result = tokio::time::timeout(LOGIN_LIMIT, login) => {
            if !matches!(result, Ok(Ok(()))) {
                return Ok(());
            }
        }
    }
    connection.await;
    Ok(())
}

fn config(identity: &Identity) -> Result<Config, russh::keys::ssh_key::Error> {
    let key = PrivateKey::from_openssh(&identity.ssh.host_key)?;
    Ok(Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-banger_",
            env!("CARGO_PKG_VERSION")
        ))),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // There is no secret that a guess could be near to.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        preferred: Preferred {
            key: Cow::Borrowed(&[Algorithm::Ed25519]),
            cipher: Cow::Borrowed(CIPHERS),
            ..Preferred::DEFAULT
        },
        max_auth_attempts: MAX_AUTH_ATTEMPTS,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        ..Config::default()
    })
}

/// The keys that open the door; a line that is none is passed over.
fn authorized_keys(identity: &Identity) -> Vec<PublicKey> {
    let lines = identity.ssh.authorized_keys.iter();
    lines
        .filter_map(|line| PublicKey::from_openssh(line.trim()).ok())
        .collect()
}

/// As OpenSSH's server sets them.
fn peer_variables(stream: &tokio::net::TcpStream) -> io::Result<Vec<(&'static str, String)>> {
    let (peer, own) = (stream.peer_addr()?, stream.local_addr()?);
    let (peer_ip, own_ip) = (peer.ip().to_canonical(), own.ip().to_canonical());
    let (peer_port, own_port) = (peer.port(), own.port());
    Ok(vec![
        ("SSH_CLIENT", format!("{peer_ip} {peer_port} {own_port}")),
        (
            "SSH_CONNECTION",
            format!("{peer_ip} {peer_port} {own_ip} {own_port}"),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use banger_model::guest::{MAKE_WORKDIR_VARIABLE, USER_VARIABLE, WORDS_VARIABLE, WORKDIR_VARIABLE};
    use russh::client;
    use russh::keys::PrivateKeyWithHashAlg;
    use russh::keys::ssh_key::private::Ed25519Keypair;
    use russh::{ChannelMsg, ChannelOpenFailure};

    use super::*;

    /// A client that trusts any host.
    struct Trusting;

    impl client::Handler for Trusting {
        type Error = russh::Error;

        async fn check_server_key(
            &mut self,
            _: &russh::keys::PublicKeyOrCertificate,
        ) -> Result<bool, russh::Error> {
            Ok(true)
        }
    }

    /// A client of a connection, logged in as `user` where each process has `env`.
    async fn logged_in(user: &str, env: &[(&str, &str)]) -> client::Handle<Trusting> {
        let pair = Ed25519Keypair::from_seed(&[9; 32]);
        let key = PrivateKey::new(pair.into(), "").unwrap();
        let mut identity = crate::identity::tests::identity();
        identity.ssh.authorized_keys = vec![key.public_key().to_openssh().unwrap()];
        let pairs = env
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()));
        identity.env = pairs.collect();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (stream, accepted) = (stream.await.unwrap(), listener.accept().unwrap().0);
        tokio::spawn(run(accepted, identity));
        let config = Arc::new(client::Config::default());
        let mut client = client::connect_stream(config, stream, Trusting).await.unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        assert!(client.authenticate_publickey(user, key).await.unwrap().success());
        client
    }

    #[tokio::test]
    async fn connections_that_fail_use_no_channel_up() {
        let client = logged_in("root", &[]).await;
        for attempt in 0..300 {
            // No such port: refused without a network.
            let opened = client.channel_open_direct_tcpip("127.0.0.1", 1 << 20, "", 0);
            assert!(
                matches!(
                    opened.await,
                    Err(russh::Error::ChannelOpenFailure(
                        ChannelOpenFailure::ConnectFailed
                    ))
                ),
                "{attempt}"
            );
        }
        client.channel_open_session().await.unwrap();
    }

    /// Both outputs of a command of a session that asked for `env`, and the exit status.
    async fn output(
        client: &client::Handle<Trusting>,
        env: &[(&str, &str)],
        line: &str,
    ) -> (String, String, Option<u32>) {
        let mut channel = client.channel_open_session().await.unwrap();
        for (name, value) in env {
            channel.set_env(false, *name, *value).await.unwrap();
        }
        channel.exec(false, line).await.unwrap();
        let (mut out, mut err, mut status) = (Vec::new(), Vec::new(), None);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => out.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => err.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(out), text(err), status)
    }

    #[tokio::test]
    async fn an_images_environment_is_its_processes_and_a_login_is_at_home() {
        let image = [("HOME", "/image"), ("PATH", "/image:/bin:/usr/bin"), ("A", "1")];
        let client = logged_in("root", &image).await;
        let line = "/bin/sh -c 'echo $HOME $PATH $A'";
        let words = (WORDS_VARIABLE, "1");
        let (out, ..) = output(&client, &[words], line).await;
        assert_eq!(out, "/root /image:/bin:/usr/bin 1\n");
        let user = (USER_VARIABLE, "root");
        let (out, ..) = output(&client, &[words, user], line).await;
        assert_eq!(out, "/image /image:/bin:/usr/bin 1\n");
        let own = [words, user, ("HOME", "/own"), ("A", "2")];
        let (out, ..) = output(&client, &own, line).await;
        assert_eq!(out, "/own /image:/bin:/usr/bin 2\n");
    }

    #[tokio::test]
    async fn a_process_runs_as_the_user_it_is_asked_to() {
        let client = logged_in("root", &[]).await;
        let user = |user| [(USER_VARIABLE, user), (WORKDIR_VARIABLE, "/")];
        let (out, err, status) = output(&client, &user("no-such-user"), "id").await;
        assert_eq!((out.as_str(), status), ("", Some(125)));
        assert!(err.contains("no user \"no-such-user\""), "{err}");
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can become another user");
            return;
        }
        let (out, err, status) =
            output(&client, &user("4711:42"), "id -u; id -g; id -G; echo $HOME $USER").await;
        assert_eq!((out.as_str(), status), ("4711\n42\n42\n/\n", Some(0)), "{err}");
    }

    #[tokio::test]
    async fn only_root_may_name_another_user() {
        if crate::users::find("daemon").is_none() {
            println!("skipped: there is no user called daemon here");
            return;
        }
        for (login, variable, granted) in [
            ("root", USER_VARIABLE, true),
            ("root", MAKE_WORKDIR_VARIABLE, true),
            ("daemon", USER_VARIABLE, false),
            ("daemon", MAKE_WORKDIR_VARIABLE, false),
            ("daemon", "A", true),
        ] {
            let client = logged_in(login, &[]).await;
            let mut channel = client.channel_open_session().await.unwrap();
            channel.set_env(true, variable, "root").await.unwrap();
            let answer = loop {
                match channel.wait().await.unwrap() {
                    ChannelMsg::Success => break true,
                    ChannelMsg::Failure => break false,
                    _ => {}
                }
            };
            assert_eq!(answer, granted, "{login} {variable}");
        }
    }
}
