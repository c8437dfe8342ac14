//! The control channel: what the guest says about itself, one line a message. The guest is
//! hostile: a line is bounded, and one that talks too much or nonsense is heard no longer.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_model::guest::{CONTROL_VSOCK_PORT, GuestMessage, HostMessage};
use banger_model::limits::MAX_GUEST_MESSAGE;
use banger_vmm::firecracker::{VSOCK_SOCKET, guest_socket};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use super::capability::VmPaths;

/// Messages that are heard on one connection: a guest says where it is once a boot.
const MAX_MESSAGES: u32 = 1000;
/// Lines that are not understood before the connection is given up.
const MAX_NONSENSE: u32 = 16;

/// How long a VMM may take to connect to its guest.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// `OK` and a port.
const MAX_DIAL_ANSWER: usize = 32;

/// The host's hearing side.
pub(crate) struct Ear {
    reader: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    heard: u32,
    nonsense: u32,
}

/// The host's speaking side.
pub(crate) struct Mouth(OwnedWriteHalf);

/// Where a guest's control channel is.
pub(crate) enum Line {
    /// A port of the VMM's, for as long as it runs.
    Port(PathBuf),
    /// Connections over vsock, of the guest when its agent starts, and of the host.
    Vsock {
        directory: PathBuf,
        listener: io::Result<UnixListener>,
    },
}

impl Line {
    /// That of a VM's run. Over vsock the guest can connect from now on.
    pub(crate) fn of(paths: &VmPaths, vsock: bool) -> Self {
        if !vsock {
            return Self::Port(paths.control());
        }
        let directory = paths.vmm_sockets();
        let path = directory.join(guest_socket(CONTROL_VSOCK_PORT));
        // An earlier daemon's; nobody listens on it any more.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).and_then(|listener| {
            // The directory's list lets the VMM connect, as far as the mode leaves it.
            std::fs::set_permissions(&path, Permissions::from_mode(0o660))?;
            Ok(listener)
        });
        Self::Vsock { directory, listener }
    }

    /// Connects, or waits for the guest to do it, and asks the guest to say again where it is.
    ///
    /// # Errors
    /// When there is no way to the guest.
    pub(crate) async fn connect(&self) -> io::Result<(Ear, Mouth)> {
        let stream = match self {
            Self::Port(path) => UnixStream::connect(path).await?,
            Self::Vsock { directory, listener } => match dial(&directory.join(VSOCK_SOCKET)).await {
                Ok(stream) => stream,
                // Its agent is about to start, and connects then.
                Err(_) => match listener {
                    Ok(listener) => listener.accept().await?.0,
                    Err(e) => return Err(e.kind().into()),
                },
            },
        };
        Ok(open(stream).await)
    }

    /// Whether another connection may follow one that has ended.
    pub(crate) fn connects_again(&self, ended: &Ear) -> bool {
        matches!(self, Self::Vsock { .. }) && !ended.is_given_up()
    }
}

/// Connects to the agent by the VMM's socket: a line with the port, answered by a line.
async fn dial(socket: &Path) -> io::Result<UnixStream> {
    let connected = async {
        let mut stream = UnixStream::connect(socket).await?;
        let wanted = format!("CONNECT {CONTROL_VSOCK_PORT}\n");
        stream.write_all(wanted.as_bytes()).await?;
        // Byte by byte: what follows is the guest's.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") && answer.len() < MAX_DIAL_ANSWER {
            answer.push(stream.read_u8().await?);
        }
        match answer.starts_with(b"OK ") && answer.ends_with(b"\n") {
            true => Ok(stream),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    };
    tokio::time::timeout(DIAL_LIMIT, connected).await?
}

async fn open(stream: UnixStream) -> (Ear, Mouth) {
    let (read, write) = stream.into_split();
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
    (ear, mouth)
}

impl Ear {
    /// The next message that makes sense; `None` at the end, or when the guest was given up.
    /// May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<GuestMessage> {
        while !self.is_given_up() {
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

    /// Whether it is heard no longer.
    fn is_given_up(&self) -> bool {
        self.heard >= MAX_MESSAGES || self.nonsense >= MAX_NONSENSE
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
        let (mut ear, _mouth) = Line::Port(path).connect().await.unwrap();
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
        let (_ear, _mouth) = Line::Port(path).connect().await.unwrap();
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

    fn line_over_vsock(runtime: &Path) -> (PathBuf, Line) {
        let paths = VmPaths {
            directory: runtime.to_owned(),
            runtime: runtime.to_owned(),
        };
        std::fs::create_dir_all(paths.vmm_sockets()).unwrap();
        (paths.vmm_sockets(), Line::of(&paths, true))
    }

    async fn says(stream: &mut UnixStream, message: &GuestMessage) {
        stream.write_all(&line(message)).await.unwrap();
    }

    #[tokio::test]
    async fn over_vsock_the_guest_connects_and_may_do_so_again() {
        let home = tempfile::tempdir().unwrap();
        let (sockets, line) = line_over_vsock(home.path());
        let guest = sockets.join("vsock.sock_1022");
        for stage in ["first", "restarted"] {
            let mut agent = UnixStream::connect(&guest).await.unwrap();
            says(&mut agent, &failed(stage)).await;
            let (mut ear, _mouth) = line.connect().await.unwrap();
            assert_eq!(ear.next().await, Some(failed(stage)));
            drop(agent);
            assert_eq!(ear.next().await, None);
            assert!(line.connects_again(&ear));
        }
        // A left-over of this daemon is not in the next one's way.
        drop(line);
        let (_, line) = line_over_vsock(home.path());
        let _agent = UnixStream::connect(&guest).await.unwrap();
        line.connect().await.unwrap();
    }

    #[tokio::test]
    async fn a_later_daemon_reaches_a_guest_that_runs() {
        let home = tempfile::tempdir().unwrap();
        let (sockets, line) = line_over_vsock(home.path());
        let vmm = UnixListener::bind(sockets.join(VSOCK_SOCKET)).unwrap();
        let served = tokio::spawn(async move {
            let (stream, _) = vmm.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut asked = String::new();
            stream.read_line(&mut asked).await.unwrap();
            assert_eq!(asked, "CONNECT 1022\n");
            // The guest's first words may come with the VMM's answer.
            let mut said = b"OK 1073741824\n".to_vec();
            said.extend(super::tests::line(&failed("x")));
            stream.write_all(&said).await.unwrap();
            asked.clear();
            stream.read_line(&mut asked).await.unwrap();
            asked
        });
        let (mut ear, _mouth) = line.connect().await.unwrap();
        assert_eq!(ear.next().await, Some(failed("x")));
        assert_eq!(served.await.unwrap(), "{\"request\":\"status\"}\n");
    }

    #[tokio::test]
    async fn a_guest_that_does_not_listen_yet_is_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let (sockets, line) = line_over_vsock(home.path());
        let vmm = UnixListener::bind(sockets.join(VSOCK_SOCKET)).unwrap();
        for nonsense in [&b""[..], b"NO\n", &[b'x'; 100]] {
            let (connected, _agent) = tokio::join!(line.connect(), async {
                let (mut stream, _) = vmm.accept().await.unwrap();
                stream.write_all(nonsense).await.unwrap();
                drop(stream);
                UnixStream::connect(sockets.join("vsock.sock_1022"))
                    .await
                    .unwrap()
            });
            connected.unwrap();
        }
    }

    #[tokio::test]
    async fn a_guest_that_was_given_up_does_not_come_back() {
        let home = tempfile::tempdir().unwrap();
        let (sockets, over) = line_over_vsock(home.path());
        let mut agent = UnixStream::connect(sockets.join("vsock.sock_1022"))
            .await
            .unwrap();
        let (mut ear, _mouth) = over.connect().await.unwrap();
        agent.write_all(&b"\n".repeat(100)).await.unwrap();
        assert_eq!(ear.next().await, None);
        assert!(!over.connects_again(&ear));
    }
}
