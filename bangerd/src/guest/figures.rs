//! Questions that the guest's agent answers itself, see [`banger_model::figures`].

use std::sync::Arc;
use std::time::Duration;

use banger_model::figures::{
    GuestMemory, ListeningSocket, MAX_ANSWER, MAX_COMMAND_LINE, MAX_PROCESS_NAME, MAX_SOCKETS,
    MEMORY_SUBSYSTEM, SOCKETS_SUBSYSTEM,
};
use banger_model::limits::MAX_MEMORY_MIB;
use russh::ChannelMsg;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::agent::Agent;
use super::error::{Error, Result};

/// How long an answer may take: under emulation a first look at every process takes a while.
const LIMIT: Duration = Duration::from_secs(10);

/// What listens in the guest, within the contract's bounds.
///
/// # Errors
/// When the agent does not answer, or not by the contract.
pub(crate) async fn sockets(agent: &Arc<Agent>) -> Result<Vec<ListeningSocket>> {
    let sockets: Vec<ListeningSocket> = ask(agent, SOCKETS_SUBSYSTEM).await?;
    let fits = |it: &ListeningSocket| {
        it.process.len() <= MAX_PROCESS_NAME && it.command.len() <= MAX_COMMAND_LINE && it.port != 0
    };
    if sockets.len() > MAX_SOCKETS || !sockets.iter().all(fits) {
        return Err(Error::Answer(SOCKETS_SUBSYSTEM));
    }
    Ok(sockets)
}

/// The guest's memory, with numbers that can be.
///
/// # Errors
/// When the agent does not answer, or not by the contract.
pub(crate) async fn memory(agent: &Arc<Agent>) -> Result<GuestMemory> {
    let memory: GuestMemory = ask(agent, MEMORY_SUBSYSTEM).await?;
    if memory.available_bytes > memory.total_bytes || memory.total_bytes > MAX_MEMORY_MIB << 20 {
        return Err(Error::Answer(MEMORY_SUBSYSTEM));
    }
    Ok(memory)
}

async fn ask<T: DeserializeOwned>(agent: &Arc<Agent>, subsystem: &'static str) -> Result<T> {
    let answer = tokio::select! {
        answer = timeout(LIMIT, exchange(agent, subsystem)) => answer.map_err(|_| Error::NoAnswer)??,
        gone = agent.hung_up() => return Err(Error::Gone(gone)),
    };
    serde_json::from_slice(&answer).map_err(|_| Error::Answer(subsystem))
}

async fn exchange(agent: &Arc<Agent>, subsystem: &'static str) -> Result<Vec<u8>> {
    let (_lease, mut channel) = agent.channel().await?;
    channel.request_subsystem(true, subsystem).await?;
    let mut answer = Vec::new();
    let mut status = None;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } if answer.len() + data.len() <= MAX_ANSWER => {
                answer.extend_from_slice(&data);
            }
            ChannelMsg::Data { .. } => return Err(Error::Answer(subsystem)),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::Failure => return Err(Error::Request("a question: it is of another version")),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    // The guest may have more to say, and nobody listens.
    let _ = channel.close().await;
    match status {
        Some(0) => Ok(answer),
        Some(_) => Err(Error::Answer(subsystem)),
        None => Err(Error::Lost),
    }
}
