//! The QEMU machine protocol: JSON, one object a line, over a unix socket.
//! <https://www.qemu.org/docs/master/interop/qmp-spec.html>

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// The longest line that is taken from a VMM, in bytes; its answers to our commands have at
/// most a few kilobytes.
pub const MAX_LINE: usize = 1 << 20;
/// How long QEMU may take for an answer; it answers between two of the guest's instructions.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Events that may wait for their reader; more are dropped, the connection is not held up.
const EVENTS: usize = 64;
/// Longest text of an error that is repeated, in characters.
const MAX_TEXT: usize = 300;

/// A connection to the monitor of a VMM. QEMU serves one at a time: another waits until this
/// one is dropped.
#[derive(Debug)]
pub struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Waiting,
    reader: tokio::task::JoinHandle<()>,
}

/// What the VMM tells without being asked, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmmEvent {
    /// The machine ends; the process follows. `guest`: by the guest's own wish.
    Shutdown {
        guest: bool,
        /// QEMU's word, as `guest-shutdown`, `guest-panic` or `host-qmp-quit`.
        reason: String,
    },
    /// The machine starts again. `guest`: by the guest's own wish. One restart may tell it
    /// several times: SeaBIOS resets again when it finds that it has run before.
    Reset {
        guest: bool,
    },
    Stop,
    Resume,
    GuestPanicked,
    /// The power button was pressed; the guest may follow or not.
    Powerdown,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("Cannot connect to the VMM's monitor {path:?}")]
    Connect {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("The VMM's monitor is busy or silent: no answer within {} seconds", ANSWER_LIMIT.as_secs())]
    Silent,
    /// It ended, or it said something that is no QMP.
    #[error("The connection to the VMM's monitor is closed")]
    Closed,
    #[error("The VMM's monitor said something that is not understood")]
    NotUnderstood,
    /// QEMU's own words.
    #[error("The VMM refused {command}: {text}")]
    Refused { command: String, text: String },
    #[error("The VMM forwards no port to the guest's port {0}")]
    NotForwarded(u16),
}

type Answer = Result<Value, String>;
/// `None` after the connection ended.
type Waiting = Arc<Mutex<Option<Pending>>>;

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
}

impl Qmp {
    /// Connects, waits for the greeting and leaves the negotiation mode. The receiver ends with the
    /// connection.
    ///
    /// # Errors
    /// When nothing listens, another client is connected, or the greeting is not QMP's.
    pub async fn connect(path: &Path) -> Result<(Self, mpsc::Receiver<VmmEvent>), QmpError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| QmpError::Connect {
                path: path.to_owned(),
                source,
            })?;
        Self::over(stream).await
    }

    /// As [`Qmp::connect`], over a connected stream.
    ///
    /// # Errors
    /// As [`Qmp::connect`].
    pub async fn over(stream: UnixStream) -> Result<(Self, mpsc::Receiver<VmmEvent>), QmpError> {
        let (read, write) = stream.into_split();
        let mut lines = Lines::new(read);
        let greeting = tokio::time::timeout(ANSWER_LIMIT, lines.next())
            .await
            .map_err(|_| QmpError::Silent)?
            .ok_or(QmpError::Closed)?;
        if !matches!(greeting, Message::Greeting { .. }) {
            return Err(QmpError::NotUnderstood);
        }
        let waiting: Waiting = Arc::new(Mutex::new(Some(Pending::default())));
        let (sender, events) = mpsc::channel(EVENTS);
        let qmp = Self {
            writer: tokio::sync::Mutex::new(write),
            waiting: Arc::clone(&waiting),
            reader: tokio::spawn(read_all(lines, waiting, sender)),
        };
        qmp.command("qmp_capabilities", json!({})).await?;
        Ok((qmp, events))
    }

    /// QEMU's word for the machine's state, as `running`, `paused`, `prelaunch`, `shutdown`.
    ///
    /// # Errors
    /// As every command.
    pub async fn query_status(&self) -> Result<String, QmpError> {
        let answer = self.command("query-status", json!({})).await?;
        let status = answer.get("status").and_then(Value::as_str);
        Ok(bounded(status.ok_or(QmpError::NotUnderstood)?))
    }

    /// Halts the virtual CPUs.
    ///
    /// # Errors
    /// As every command.
    pub async fn stop(&self) -> Result<(), QmpError> {
        self.command("stop", json!({})).await.map(drop)
    }

    /// Lets the virtual CPUs go on.
    ///
    /// # Errors
    /// As every command.
    pub async fn cont(&self) -> Result<(), QmpError> {
        self.command("cont", json!({})).await.map(drop)
    }

    /// Ends the VMM at once, as pulling the plug. The disk's data that the guest flushed is safe.
    ///
    /// # Errors
    /// As every command.
    pub async fn quit(&self) -> Result<(), QmpError> {
        self.command("quit", json!({})).await.map(drop)
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// As every command.
    pub async fn system_powerdown(&self) -> Result<(), QmpError> {
        self.command("system_powerdown", json!({})).await.map(drop)
    }

    /// The port on 127.0.0.1 that leads to the guest's TCP port.
    ///
    /// # Errors
    /// [`QmpError::NotForwarded`] when there is none.
    pub async fn forwarded_port(&self, guest_port: u16) -> Result<u16, QmpError> {
        // There is no command for machines; this text has had the same form since 2.x.
        let arguments = json!({"command-line": "info usernet"});
        let answer = self.command("human-monitor-command", arguments).await?;
        let text = answer.as_str().ok_or(QmpError::NotUnderstood)?;
        parse_forwarded(text, guest_port).ok_or(QmpError::NotForwarded(guest_port))
    }

    /// Sends a command and waits for its answer. `arguments` is an object.
    ///
    /// # Errors
    /// [`QmpError::Refused`] with QEMU's own words; the others end the connection.
    pub async fn command(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let (sender, answer) = oneshot::channel();
        let id = self.enqueue(sender).ok_or(QmpError::Closed)?;
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        let exchange = async {
            let mut writer = self.writer.lock().await;
            writer
                .write_all(line.as_bytes())
                .await
                .map_err(|_| QmpError::Closed)?;
            drop(writer);
            answer.await.map_err(|_| QmpError::Closed)
        };
        match tokio::time::timeout(ANSWER_LIMIT, exchange).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(text))) => Err(QmpError::Refused {
                command: command.to_owned(),
                text,
            }),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(QmpError::Silent),
        }
    }

    fn enqueue(&self, sender: oneshot::Sender<Answer>) -> Option<u64> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = waiting.as_mut()?;
        pending.next += 1;
        pending.answers.insert(pending.next, sender);
        Some(pending.next)
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // The reader holds half of the socket: QEMU takes the next client when both are gone.
        self.reader.abort();
    }
}

/// Whatever a VMM may say; `untagged` tries in this order.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Message {
    Greeting {
        #[serde(rename = "QMP")]
        _qmp: Value,
    },
    Event {
        event: String,
        #[serde(default)]
        data: Value,
    },
    Return {
        r#return: Value,
        id: Option<u64>,
    },
    Error {
        error: ErrorText,
        id: Option<u64>,
    },
}

#[derive(Debug, Deserialize)]
struct ErrorText {
    desc: String,
}

struct Lines {
    reader: BufReader<OwnedReadHalf>,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(read: OwnedReadHalf) -> Self {
        Self {
            reader: BufReader::new(read),
            buffer: Vec::new(),
        }
    }

    /// `None` at the end, and after anything that is no QMP: there is no way to go on.
    async fn next(&mut self) -> Option<Message> {
        self.buffer.clear();
        let mut limited = (&mut self.reader).take(MAX_LINE as u64);
        limited.read_until(b'\n', &mut self.buffer).await.ok()?;
        if self.buffer.last() != Some(&b'\n') {
            return None;
        }
        serde_json::from_slice(&self.buffer).ok()
    }
}

async fn read_all(mut lines: Lines, waiting: Waiting, events: mpsc::Sender<VmmEvent>) {
    while let Some(message) = lines.next().await {
        match message {
            Message::Event { event, data } => {
                if let Some(event) = understand(&event, &data)
                    && events.try_send(event).is_err()
                {
                    tracing::debug!("An event of the VMM was dropped: nobody reads them");
                }
            }
            Message::Return { r#return, id } => answer(&waiting, id, Ok(r#return)),
            Message::Error { error, id } => answer(&waiting, id, Err(bounded(&error.desc))),
            Message::Greeting { .. } => break,
        }
    }
    // Whoever waits learns that there will be no answer.
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn answer(waiting: &Waiting, id: Option<u64>, answer: Answer) {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let sender = id.and_then(|id| waiting.as_mut()?.answers.remove(&id));
    if let Some(sender) = sender {
        // Nobody there: the command's time limit passed, or its caller went away.
        let _ = sender.send(answer);
    }
}

fn understand(event: &str, data: &Value) -> Option<VmmEvent> {
    let flag = |key| data.get(key).and_then(Value::as_bool).unwrap_or(false);
    Some(match event {
        "SHUTDOWN" => VmmEvent::Shutdown {
            guest: flag("guest"),
            reason: bounded(data.get("reason").and_then(Value::as_str).unwrap_or("unknown")),
        },
        "RESET" => VmmEvent::Reset { guest: flag("guest") },
        "STOP" => VmmEvent::Stop,
        "RESUME" => VmmEvent::Resume,
        "GUEST_PANICKED" => VmmEvent::GuestPanicked,
        "POWERDOWN" => VmmEvent::Powerdown,
        _ => return None,
    })
}

/// The VMM is not trusted with our terminal or our log.
fn bounded(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect()
}

/// Lines like `  TCP[HOST_FORWARD]  12  127.0.0.1 38003  10.0.2.15  1022  0  0`.
fn parse_forwarded(text: &str, guest_port: u16) -> Option<u16> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != "TCP[HOST_FORWARD]" {
            return None;
        }
        let mut words = words.skip(2);
        let host: u16 = words.next()?.parse().ok()?;
        let guest: u16 = words.nth(1)?.parse().ok()?;
        (guest == guest_port).then_some(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;

    /// A monitor that plays a script: lines beginning with `<` must come (the id is whatever
    /// came last where `ID` stands), the others are said.
    async fn play(stream: UnixStream, script: &[&str]) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut id = Value::Null;
        for step in script {
            if let Some(expected) = step.strip_prefix('<') {
                let line = lines.next_line().await.unwrap().unwrap();
                let command: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(command["execute"], expected);
                id = command["id"].clone();
            } else {
                let line = step.replace("ID", &id.to_string());
                write.write_all(line.as_bytes()).await.unwrap();
                write.write_all(b"\r\n").await.unwrap();
            }
        }
    }

    const NEGOTIATION: [&str; 3] = [GREETING, "<qmp_capabilities", r#"{"return": {}, "id": ID}"#];

    /// A client, and the monitor that goes on with the script after the negotiation.
    async fn connected(
        script: &'static [&'static str],
    ) -> (Qmp, mpsc::Receiver<VmmEvent>, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = tokio::spawn(async move {
            play(theirs, &[&NEGOTIATION[..], script].concat()).await;
        });
        let (qmp, events) = Qmp::over(ours).await.unwrap();
        (qmp, events, server)
    }

    #[tokio::test]
    async fn commands_and_events_pass_each_other() {
        let (qmp, mut events, server) = connected(&[
            "<query-status",
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESET", "data": {"guest": true, "reason": "guest-reset"}}"#,
            r#"{"event": "NIC_RX_FILTER_CHANGED", "data": {"name": "x"}}"#,
            r#"{"return": {"status": "running", "running": true}, "id": ID}"#,
            "<system_powerdown",
            r#"{"event": "POWERDOWN"}"#,
            r#"{"event": "GUEST_PANICKED", "data": {"action": "poweroff"}}"#,
            r#"{"return": {}, "id": ID}"#,
            r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-panic"}}"#,
        ])
        .await;
        assert_eq!(qmp.query_status().await.unwrap(), "running");
        qmp.system_powerdown().await.unwrap();
        server.await.unwrap();
        for expected in [
            VmmEvent::Reset { guest: true },
            VmmEvent::Powerdown,
            VmmEvent::GuestPanicked,
            VmmEvent::Shutdown {
                guest: true,
                reason: "guest-panic".into(),
            },
        ] {
            assert_eq!(events.recv().await, Some(expected));
        }
        assert_eq!(events.recv().await, None);
        assert!(matches!(qmp.stop().await, Err(QmpError::Closed)));
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_qemus_words_without_control_characters() {
        let (qmp, _events, server) = connected(&[
            "<quit",
            r#"{"id": ID, "error": {"class": "GenericError", "desc": "No\u001b[2J way"}}"#,
        ])
        .await;
        let refusal = qmp.quit().await.unwrap_err();
        assert_eq!(refusal.to_string(), "The VMM refused quit: No [2J way");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_to_another_command_is_not_taken() {
        let (qmp, _events, server) = connected(&[
            "<query-status",
            r#"{"return": {"status": "wrong"}, "id": 77}"#,
            r#"{"return": {"status": "wrong"}}"#,
            r#"{"return": {"status": "paused"}, "id": ID}"#,
        ])
        .await;
        assert_eq!(qmp.query_status().await.unwrap(), "paused");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_qmp_closes_the_connection() {
        for broken in [
            &["<stop", "nonsense"][..],
            &["<stop", GREETING],
            &["<stop", "[]"],
            &["<stop"],
        ] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let script = [&NEGOTIATION[..], broken].concat();
            tokio::join!(play(theirs, &script), async {
                let (qmp, mut events) = Qmp::over(ours).await.unwrap();
                let failure = qmp.stop().await.unwrap_err();
                assert!(matches!(failure, QmpError::Closed), "{broken:?}: {failure}");
                assert_eq!(events.recv().await, None);
            });
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_, failure) = tokio::join!(play(theirs, &[r#"{"event": "STOP"}"#]), Qmp::over(ours));
        assert!(matches!(failure, Err(QmpError::NotUnderstood)));
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_off() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let flood = async move {
            let (_read, mut write) = theirs.into_split();
            let block = [b'x'; 64 << 10];
            let mut sent = 0;
            // The client closes when it has read its limit.
            while write.write_all(&block).await.is_ok() {
                sent += block.len();
            }
            sent
        };
        let (sent, failure) = tokio::join!(flood, Qmp::over(ours));
        assert!(matches!(failure, Err(QmpError::Closed)));
        assert!(sent < 3 * MAX_LINE, "{sent}");
    }

    #[test]
    fn the_forwarded_port_is_found() {
        let text = "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[ESTABLISHED]  31       10.0.2.15  1022       127.0.0.1  1022     0     0\r\n  UDP[HOST_FORWARD]  9  127.0.0.1 53  10.0.2.15  1022     0     0\r\n  TCP[HOST_FORWARD]  12       127.0.0.1 38003       10.0.2.15  1022     0     0\r\n";
        assert_eq!(parse_forwarded(text, 1022), Some(38003));
        assert_eq!(parse_forwarded(text, 22), None);
        assert_eq!(parse_forwarded("", 22), None);
        assert_eq!(parse_forwarded("TCP[HOST_FORWARD] 1 x 99999 y 22", 22), None);
    }
}
