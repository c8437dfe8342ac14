//! One connection: from the host's socket to a channel of the guest's agent, and back.

use std::net::SocketAddr;
use std::sync::Arc;

use banger_bus::Result;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::guest::Agent;

/// What is read at once.
const PIECE: usize = 64 << 10;

/// Moves data until both sides have ended or one of them is gone. An end of one direction is
/// passed on, and the other goes on.
pub(super) async fn carry(agent: &Arc<Agent>, stream: TcpStream, from: SocketAddr, guest: u16) -> Result<()> {
    // Small pieces are somebody's question or answer.
    let _ = stream.set_nodelay(true);
    let work = async {
        let (_lease, channel) = agent.forward(guest, from).await?;
        let (read, write) = channel.split();
        let (own_read, own_write) = stream.into_split();
        let sending = async {
            if send(own_read, &write).await {
                // The other direction goes on, and says when all is over.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = sending => {}
            () = receive(read, own_write) => {}
        }
        // Where the connection is broken the channel is gone too.
        let _ = write.close().await;
        Ok(())
    };
    tokio::select! {
        done = work => done,
        _ = agent.hung_up() => Ok(()),
    }
}

/// False when the host's side is gone.
async fn send(mut from: OwnedReadHalf, to: &ChannelWriteHalf<Msg>) -> bool {
    loop {
        let mut data = Vec::with_capacity(PIECE);
        match from.read_buf(&mut data).await {
            Ok(0) => return to.eof().await.is_ok(),
            Ok(_) if to.data_bytes(data).await.is_ok() => {}
            _ => return false,
        }
    }
}

/// Returns when the guest has closed the channel, or the host's side is gone.
async fn receive(mut from: ChannelReadHalf, mut to: OwnedWriteHalf) {
    while let Some(message) = from.wait().await {
        let written = match message {
            ChannelMsg::Data { data } => to.write_all(&data).await,
            ChannelMsg::Eof => to.shutdown().await,
            ChannelMsg::Close => return,
            _ => Ok(()),
        };
        if written.is_err() {
            return;
        }
    }
}
