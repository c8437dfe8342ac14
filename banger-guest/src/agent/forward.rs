//! Forwarding to what listens in the guest (RFC 4254, section 7.2, and OpenSSH's
//! `direct-streamlocal@openssh.com`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use russh::server::{ChannelOpenHandle, Msg};
use russh::{ChannelOpenFailure, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use super::backlog::QueueOut;
use super::resolve::resolve;

const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const PIECE: usize = 64 << 10;

/// What the client wants to reach.
pub(super) enum Target {
    Tcp { host: String, port: u32 },
    Unix { path: String },
}

/// Connects, tells the client, and moves data until both sides have ended or the client has
/// gone.
pub(super) async fn run(
    target: Target,
    reply: ChannelOpenHandle,
    input: QueueOut,
    write: ChannelWriteHalf<Msg>,
    gone: Arc<Notify>,
) {
    let work = async {
        match target {
            Target::Tcp { host, port } => match connect(&host, port).await {
                Ok(stream) => {
                    reply.accept().await;
                    let (read, own) = stream.into_split();
                    exchange(read, own, input, &write).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            },
            Target::Unix { path } => match UnixStream::connect(path).await {
                Ok(stream) => {
                    reply.accept().await;
                    let (read, own) = stream.into_split();
                    exchange(read, own, input, &write).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            },
        }
    };
    tokio::select! {
        () = work => {}
        () = gone.notified() => {}
    }
}

async fn connect(host: &str, port: u32) -> io::Result<TcpStream> {
    let port = u16::try_from(port).map_err(io::Error::other)?;
    let address = resolve(host).ok_or(io::ErrorKind::HostUnreachable)?;
    let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect((address, port))).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(
    mut read: impl AsyncRead + Unpin,
    mut own: impl AsyncWrite + Unpin,
    mut input: QueueOut,
    write: &ChannelWriteHalf<Msg>,
) {
    let to_guest = async {
        while let Some(data) = input.next().await {
            if own.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = own.shutdown().await;
    };
    let to_client = async {
        loop {
            let mut data = Vec::with_capacity(PIECE);
            match read.read_buf(&mut data).await {
                Ok(1..) if write.data_bytes(data).await.is_ok() => {}
                _ => break,
            }
        }
        let _ = write.eof().await;
    };
    tokio::join!(to_guest, to_client);
    let _ = write.close().await;
}
