use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use banger_bus::{ErrorKind, ExecOptions, JobOutcome};
use russh::keys::PrivateKey;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use super::super::Gone;
use super::super::fake::{FakeGuest, new_key};
use super::*;
use crate::core::progress::{Cancel, Silent};

/// A guest, and the way into it.
struct Rig {
    guest: FakeGuest,
    agent: Arc<Agent>,
}

/// A command that runs.
struct Running {
    outcome: JoinHandle<banger_bus::Result<JobOutcome>>,
    cancel: Cancel,
    requests: mpsc::Sender<ProcessRequest>,
    stdout: io::PipeReader,
    stderr: io::PipeReader,
}

async fn rig() -> Rig {
    let key = new_key();
    let guest = FakeGuest::start(&key).await;
    let agent = Agent::new(&guest.endpoint, Arc::new(key)).unwrap();
    Rig { guest, agent }
}

impl Rig {
    fn run(&self, script: &str, options: ExecOptions, stdin: OwnedFd) -> Running {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let command = Command::new(&argv, options, &Process::default()).unwrap();
        let (stdout, out) = io::pipe().unwrap();
        let (stderr, err) = io::pipe().unwrap();
        let cancel = Cancel::new();
        let ctx = JobContext::new(Arc::new(Silent), cancel.clone());
        let (requests, receiver) = mpsc::channel(4);
        let stdio = [stdin, out.into(), err.into()];
        let outcome = tokio::spawn(run(self.agent.clone(), ctx, receiver, command, stdio));
        Running {
            outcome,
            cancel,
            requests,
            stdout,
            stderr,
        }
    }

    fn start(&self, script: &str) -> Running {
        self.run(
            script,
            ExecOptions::default(),
            File::open("/dev/null").unwrap().into(),
        )
    }
}

async fn all(mut from: io::PipeReader) -> Vec<u8> {
    let read = move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map(|_| bytes)
    };
    spawn_blocking(read).await.unwrap().unwrap()
}

async fn signal_to(running: &Running, name: &str) {
    let (done, sent) = oneshot::channel();
    running
        .requests
        .send(ProcessRequest::Signal(name.to_owned(), done))
        .await
        .unwrap();
    sent.await.unwrap().unwrap();
}

#[tokio::test]
async fn streams_are_apart_and_the_status_is_the_commands() {
    let mut rig = rig().await;
    let options = ExecOptions {
        env: Some([("A".to_owned(), "b 'c'".to_owned())].into()),
        working_directory: Some("/tmp".to_owned()),
        ..ExecOptions::default()
    };
    let script = "printf \"out $A $BANGER_WORKDIR\"; echo err >&2; exit 7";
    let running = rig.run(script, options, File::open("/dev/null").unwrap().into());
    assert_eq!(all(running.stdout).await, b"out b 'c' /tmp");
    assert_eq!(all(running.stderr).await, b"err\n");
    let outcome = running.outcome.await.unwrap().unwrap();
    assert_eq!((outcome.exit_status, outcome.signal), (Some(7), None));
    // The next command needs no connection of its own.
    rig.start("exit 0").outcome.await.unwrap().unwrap();
    rig.guest.connections.recv().await.unwrap();
    assert!(rig.guest.connections.try_recv().is_err());
}

#[tokio::test]
async fn input_of_every_byte_goes_through_whole() {
    let rig = rig().await;
    let bytes: Vec<u8> = (0..5_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let running = rig.run("cat", ExecOptions::default(), file.into());
    assert!(all(running.stdout).await == bytes);
    assert_eq!(running.outcome.await.unwrap().unwrap().exit_status, Some(0));
}

#[tokio::test]
async fn a_signal_passes_output_that_nobody_reads() {
    let rig = rig().await;
    let mut running = rig.start("echo y; echo up >&2; exec yes");
    let mut up = [0; 3];
    running = spawn_blocking(move || {
        running.stderr.read_exact(&mut up).unwrap();
        running
    })
    .await
    .unwrap();
    signal_to(&running, "TERM").await;
    let mut rig = rig;
    let status = rig.guest.ended.recv().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    assert!(!all(running.stdout).await.is_empty());
    // This server tells no signals: the end without a status is the connection's.
    assert_eq!(
        running.outcome.await.unwrap().unwrap_err().kind,
        ErrorKind::GuestUnreachable
    );
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_writer() {
    let mut rig = rig().await;
    let running = rig.start("exec yes");
    let mut stdout = running.stdout;
    spawn_blocking(move || stdout.read_exact(&mut [0; 2]).unwrap())
        .await
        .unwrap();
    let status = rig.guest.ended.recv().await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(13));
    running.outcome.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn one_that_does_not_read_holds_up_nobody() {
    let rig = rig().await;
    let stuck = rig.start("exec yes");
    rig.start("exit 0").outcome.await.unwrap().unwrap();
    stuck.cancel.cancel();
    assert_eq!(
        stuck.outcome.await.unwrap().unwrap_err().kind,
        ErrorKind::Cancelled
    );
}

#[tokio::test]
async fn cancelling_closes_the_channel_and_lets_go_of_the_streams() {
    let rig = rig().await;
    let (stdin, _writer) = io::pipe().unwrap();
    let running = rig.run("echo up; exec sleep 1000", ExecOptions::default(), stdin.into());
    let mut stdout = running.stdout;
    stdout = spawn_blocking(move || {
        stdout.read_exact(&mut [0; 3]).unwrap();
        stdout
    })
    .await
    .unwrap();
    running.cancel.cancel();
    assert_eq!(
        running.outcome.await.unwrap().unwrap_err().kind,
        ErrorKind::Cancelled
    );
    // Their end shows that no descriptor of the caller's stays open.
    assert!(all(stdout).await.is_empty());
}

/// On the bridge a guest whose VMM is killed ends no connection.
#[tokio::test]
async fn a_command_ends_with_its_vm_which_ends_no_connection() {
    let rig = rig().await;
    let running = rig.start("echo up; exec sleep 1000");
    let mut stdout = running.stdout;
    stdout = spawn_blocking(move || {
        stdout.read_exact(&mut [0; 3]).unwrap();
        stdout
    })
    .await
    .unwrap();
    rig.agent.hang_up(Gone::Ended);
    let error = running.outcome.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::GuestUnreachable);
    assert!(error.message.contains("VM ended"), "{error}");
    assert!(all(stdout).await.is_empty());
}

#[tokio::test]
async fn who_is_not_the_guest_is_refused() {
    let (key, other) = (new_key(), new_key());
    let guest = FakeGuest::start(&key).await;
    let mut endpoint = guest.endpoint.clone();
    endpoint.host_key = other.public_key().to_openssh().unwrap();
    let refusal = async |agent: Arc<Agent>| banger_bus::Error::from(agent.warm().await.unwrap_err());
    let error = refusal(Agent::new(&endpoint, Arc::new(key)).unwrap()).await;
    assert_eq!(error.kind, ErrorKind::GuestUnreachable);
    assert!(error.message.contains("another host key"), "{error}");
    let error = refusal(Agent::new(&guest.endpoint, Arc::<PrivateKey>::new(other)).unwrap()).await;
    assert!(error.message.contains("refused the owner's key"), "{error}");
    endpoint.host_key = "ssh-ed25519 nonsense".to_owned();
    assert!(Agent::new(&endpoint, Arc::new(new_key())).is_err());
}

#[tokio::test]
async fn a_refused_command_is_not_executable() {
    let rig = rig().await;
    let running = rig.start("refuse-me");
    assert_eq!(
        running.outcome.await.unwrap().unwrap_err().kind,
        ErrorKind::NotExecutable
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let argv = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let shell = || ExecOptions {
        shell: Some(true),
        ..ExecOptions::default()
    };
    let image = Process::default();
    let with = |options: ExecOptions| Command::new(&argv(&["true"]), options, &image);
    let invalid = ErrorKind::InvalidArgument;
    for (result, kind) in [
        (Command::new(&[], ExecOptions::default(), &image), invalid),
        (Command::new(&argv(&["a"]), shell(), &image), invalid),
        (
            Command::new(&argv(&["a\0"]), ExecOptions::default(), &image),
            invalid,
        ),
        (
            Command::new(&argv(&["a"; 5000]), ExecOptions::default(), &image),
            ErrorKind::LimitExceeded,
        ),
        (
            Command::new(&["x".repeat(1 << 20)], ExecOptions::default(), &image),
            ErrorKind::LimitExceeded,
        ),
        (
            with(ExecOptions {
                working_directory: Some("tmp".into()),
                ..Default::default()
            }),
            invalid,
        ),
        (
            with(ExecOptions {
                terminal_size: Some((0, 24)),
                ..Default::default()
            }),
            invalid,
        ),
        (
            with(ExecOptions {
                terminal_size: Some((80, 1 << 16)),
                ..Default::default()
            }),
            invalid,
        ),
        (
            with(ExecOptions {
                terminal_size: Some((80, 24)),
                term: Some("a b".into()),
                ..Default::default()
            }),
            invalid,
        ),
        (
            with(ExecOptions {
                user: Some("a b".into()),
                ..Default::default()
            }),
            invalid,
        ),
        (
            with(ExecOptions {
                env: Some([("1".to_owned(), String::new())].into()),
                ..Default::default()
            }),
            invalid,
        ),
    ] {
        assert_eq!(result.unwrap_err().kind, kind);
    }
    assert_eq!(Command::new(&[], shell(), &image).unwrap().line, None);
}

/// Runs a command whose line and variables are `expected`.
fn runs(command: &Command, line: Option<&str>, variables: &[(&str, &str)]) {
    assert_eq!(command.line.as_deref(), line);
    let found: Vec<_> = command
        .env
        .iter()
        .filter(|(name, _)| name != WORDS_VARIABLE)
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(found, variables);
}

#[test]
fn the_image_says_what_the_caller_does_not() {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let image = Process {
        user: Some("app:app".to_owned()),
        working_directory: Some("/srv".to_owned()),
        entrypoint: words(&["/init", "-v"]),
        command: words(&["serve"]),
    };
    let new = |argv: &[&str], options| Command::new(&words(argv), options, &image).unwrap();
    let entrypoint = || ExecOptions {
        entrypoint: Some(true),
        ..ExecOptions::default()
    };
    let images = [
        (WORKDIR_VARIABLE, "/srv"),
        (MAKE_WORKDIR_VARIABLE, "1"),
        (USER_VARIABLE, "app:app"),
    ];
    runs(&new(&["id"], ExecOptions::default()), Some("'id'"), &images);
    let shell = ExecOptions {
        shell: Some(true),
        ..ExecOptions::default()
    };
    runs(&new(&[], shell), None, &images);
    runs(&new(&[], entrypoint()), Some("'/init' '-v' 'serve'"), &images);
    runs(&new(&["x"], entrypoint()), Some("'/init' '-v' 'x'"), &images);
    let own = ExecOptions {
        user: Some("0".to_owned()),
        working_directory: Some("/tmp".to_owned()),
        ..ExecOptions::default()
    };
    // Where the caller wants to be must be there already.
    let owners = [(WORKDIR_VARIABLE, "/tmp"), (USER_VARIABLE, "0")];
    runs(&new(&["id"], own), Some("'id'"), &owners);

    let bare = Process::default();
    let command = Command::new(&words(&["id"]), entrypoint(), &bare).unwrap();
    runs(&command, Some("'id'"), &[(USER_VARIABLE, "root")]);
    for options in [
        entrypoint(),
        ExecOptions {
            shell: Some(true),
            ..entrypoint()
        },
    ] {
        let error = Command::new(&[], options, &bare).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        assert!(error.message.contains("entrypoint"), "{error}");
    }
}

#[tokio::test]
async fn a_guest_opens_no_channels() {
    let mut rig = rig().await;
    rig.start(": open-channels").outcome.await.unwrap().unwrap();
    assert_eq!(rig.guest.opened.recv().await, Some([false; 7]));
}
