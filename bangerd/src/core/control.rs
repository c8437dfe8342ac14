//! The control channel: what the guest says about itself, one line a message. The guest is
//! hostile: a line is bounded, and one that talks too much or nonsense is heard no longer.

use std::io;
use std::path::Path;

use banger_model::guest::{GuestMessage, HostMessage};
use banger_model::limits::MAX_GUEST_MESSAGE;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Messages that are heard on one connection: a guest says where it is once a boot.
const MAX_MESSAGES: u32 = 1000;
/// Lines that are not understood before the connection is given up.
const MAX_NONSENSE: u32 = 16;

/// The host's hearing side.
pub(crate) struct Ear {
    reader: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    heard: u32,
    nonsense: u32,
}

/// The host's speaking side.
pub(crate) struct Mouth(OwnedWriteHalf);

/// Connects to a guest's control channel and asks the guest to say again where it is.
///
/// # Errors
/// When nothing listens at `path`.
pub(crate) async fn connect(path: &Path) -> io::Result<(Ear, Mouth)> {
    let (read, write) = UnixStream::connect(path).await?.into_split();
    let ear = Ear {
        reader: BufReader::new(read),
        line: Vec::new(),
        heard: 0,
        nonsense: 0,
    };
    let mut mouth = Mouth(write);
    // A close and a connect in the same instant look like nothing to the guest, so it is asked.
    // If it is gone already, the hearing side sees that.
    let _ = mouth.say(HostMessage::Status).await;
    Ok((ear, mouth))
}

impl Ear {
    /// The next message that makes sense; `None` at the end, or when the guest was given up.
    /// May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<GuestMessage> {
        while self.heard < MAX_MESSAGES && self.nonsense < MAX_NONSENSE {
            self.read_line().await?;
            self.heard += 1;
            let line = std::mem::take(&mut self.line);
            match GuestMessage::parse(line.trim_ascii_end()) {
                Ok(message) => return Some(message),
                Err(e) => {
                    self.nonsense += 1;
                    tracing::debug!(error = %e, "A guest was not understood");
                }
            }
        }
        tracing::warn!(
            "A guest's control channel is closed: it sends too much, or nothing that is understood"
        );
        None
    }

    /// Reads up to a newline, or as much as a message may have. What was read stays in `line`
    /// when the future is dropped.
    async fn read_line(&mut self) -> Option<()> {
        let room = (MAX_GUEST_MESSAGE - self.line.len().min(MAX_GUEST_MESSAGE - 1)) as u64;
        let mut limited = (&mut self.reader).take(room);
        match limited.read_until(b'\n', &mut self.line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}

impl Mouth {
    /// # Errors
    /// When the VMM is gone.
    pub(crate) async fn say(&mut self, message: HostMessage) -> io::Result<()> {
        let mut line = serde_json::to_vec(&message)?;
        line.push(b'\n');
        self.0.write_all(&line).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Hears everything that a guest says.
    async fn hear(said: Vec<u8>) -> Vec<GuestMessage> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let guest = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // It may be given up before all is said.
            let _ = stream.write_all(&said).await;
        });
        let (mut ear, _mouth) = connect(&path).await.unwrap();
        let mut heard = Vec::new();
        while let Some(message) = ear.next().await {
            heard.push(message);
        }
        drop((ear, _mouth));
        guest.await.unwrap();
        heard
    }

    fn failed(stage: &str) -> GuestMessage {
        GuestMessage::Failed {
            stage: stage.to_owned(),
            message: "x".to_owned(),
        }
    }

    fn line(message: &GuestMessage) -> Vec<u8> {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        line
    }

    #[tokio::test]
    async fn messages_are_heard_between_nonsense() {
        let mut said = b"\x00\xff nonsense\n\n".to_vec();
        said.extend(line(&failed("a")));
        said.extend(b"{\"event\":\"new\"}\r\n");
        said.extend(line(&failed("b")));
        assert_eq!(hear(said).await, [failed("a"), failed("b")]);
    }

    #[tokio::test]
    async fn a_guest_is_asked_where_it_is() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (_ear, _mouth) = connect(&path).await.unwrap();
        let (guest, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        BufReader::new(guest).read_line(&mut asked).await.unwrap();
        assert_eq!(asked, "{\"request\":\"status\"}\n");
    }

    #[tokio::test]
    async fn a_guest_that_floods_is_given_up() {
        assert_eq!(hear(vec![b'x'; 1 << 20]).await, []);
        assert_eq!(hear(b"\n".repeat(1 << 16)).await, []);
        let many = line(&failed("a")).repeat(5000);
        assert_eq!(hear(many).await.len(), MAX_MESSAGES as usize);
    }
}
