//! Questions about the guest that the agent answers itself, each a subsystem of its own: what it
//! found out stays with the connection, where a process would forget it.

use std::io;
use std::sync::Arc;

use banger_model::figures::{MAX_ANSWER, MEMORY_SUBSYSTEM, SOCKETS_SUBSYSTEM};
use serde::Serialize;
use tokio::sync::Notify;

use super::exit::Outcome;
use super::pump::{Client, STDERR, finish};
use crate::memory;
use crate::sockets::Sockets;

/// What a client wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Sockets,
    Memory,
}

impl Question {
    /// By the subsystem's name.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            SOCKETS_SUBSYSTEM => Some(Self::Sockets),
            MEMORY_SUBSYSTEM => Some(Self::Memory),
            _ => None,
        }
    }
}

/// Answers, unless the client goes before.
pub(super) async fn run(
    question: Question,
    sockets: Arc<Sockets>,
    own_port: u16,
    client: Client,
    gone: Arc<Notify>,
) {
    let work = async {
        let answer = match question {
            Question::Sockets => sockets.list(own_port).await.and_then(|it| json(&it)),
            Question::Memory => memory::now().and_then(|it| json(&it)),
        };
        let outcome = match answer {
            Ok(answer) => {
                // A client that has gone wants to know nothing.
                let _ = client.write.data_bytes(answer).await;
                Outcome::Status(0)
            }
            Err(error) => {
                let text = format!("banger: {error}\n").into_bytes();
                let _ = client.write.extended_data_bytes(STDERR, text).await;
                Outcome::Status(1)
            }
        };
        finish(&client, outcome).await;
    };
    tokio::select! {
        () = work => {}
        () = gone.notified() => {}
    }
}

fn json(answer: &impl Serialize) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(answer)?;
    if bytes.len() > MAX_ANSWER {
        return Err(io::Error::other("the answer is too long"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsystems_are_questions() {
        assert_eq!(Question::of("sockets@banger.org"), Some(Question::Sockets));
        assert_eq!(Question::of("memory@banger.org"), Some(Question::Memory));
        assert_eq!(Question::of("sftp"), None);
    }

    #[test]
    fn an_answer_has_a_bound() {
        assert_eq!(json(&[1, 2]).unwrap(), b"[1,2]");
        json(&"x".repeat(MAX_ANSWER)).unwrap_err();
    }
}
