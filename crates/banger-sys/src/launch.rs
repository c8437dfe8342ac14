//! Launching a confined program that outlives its launcher's parent.
//!
//! The parent starts a fresh, single-threaded process of its own binary (`vmm-launch`) with
//! one socket as its standard input, and sends the specification and the descriptors over it.
//! That process confines itself, says that it is ready, and waits: the parent has time to put
//! it into its scope. Released, it executes the program; the socket closes by that, which tells
//! the parent that it worked. So every failure up to the program's first instruction has a
//! text, and no code runs between fork and exec in a copy of the threaded parent.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, send, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

pub use crate::confine::run_launcher;
use crate::landlock::{Confinement, Enforcement};
use crate::pidfd::{Pidfd, register};

/// The launcher's exit status when the program was not started.
pub const LAUNCH_FAILED: u8 = 125;
/// The largest specification, in bytes as JSON: well below what one message of a unix socket
/// holds.
pub const MAX_SPEC_BYTES: usize = 96 << 10;
/// The most descriptors that one message of a unix socket carries (unix(7), SCM_RIGHTS).
pub const MAX_DESCRIPTORS: usize = 253;
/// The highest number that a descriptor of the program may have.
pub const MAX_TARGET: RawFd = 900;

/// The program to run, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSpec {
    /// An absolute path.
    pub program: PathBuf,
    /// Without the program's own name.
    pub arguments: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub environment: Vec<(String, String)>,
    pub limits: Limits,
    pub confinement: Confinement,
    /// A filter that refuses what no VMM needs; `None`: only the program's own.
    pub system_calls: Option<SystemCalls>,
    /// Whom to become; `None`: who the parent is.
    pub identity: Option<Identity>,
}

/// What the filter of system calls leaves open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemCalls {
    /// Whether unix sockets may be made and connected. Others never; those that the program
    /// got stay usable.
    pub unix_sockets: bool,
}

/// A user that the program runs as, and nothing else does. To become him the parent needs
/// CAP_SETUID and CAP_SETGID; with CAP_SETPCAP too the program's bounding set is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

/// Limits for the program. Core dumps are always off: they would hold the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest file that it may write, in bytes.
    pub file_bytes: u64,
    pub open_files: u64,
    /// Which process the kernel prefers to kill when memory runs out, -1000 to 1000; only
    /// raising needs no privilege.
    pub oom_score_adj: i16,
}

/// How to start the launcher: a program whose entry calls [`run_launcher`].
#[derive(Debug, Clone)]
pub struct Launcher {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

/// A launched process before its program runs. However it ends, it stays a zombie until
/// [`Pidfd::exited`] was awaited.
#[derive(Debug)]
pub struct Launched {
    pub pid: u32,
    pub pidfd: Pidfd,
    pub barrier: Barrier,
}

/// Where the launched process waits. Dropped, the process ends without running its program.
#[derive(Debug)]
pub struct Barrier {
    socket: AsyncFd<OwnedFd>,
    ready: Option<Enforcement>,
}

/// Why a program was not launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("Cannot start the launcher {program:?}")]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Cannot speak to the launcher")]
    Socket(#[source] io::Error),
    #[error("The launch specification has {bytes} bytes (at most {MAX_SPEC_BYTES})")]
    TooLarge { bytes: usize },
    #[error("Cannot pass {count} descriptors (1 to {MAX_DESCRIPTORS})")]
    Descriptors { count: usize },
    #[error("Cannot pass descriptor {0} (0 to {MAX_TARGET}, each once)")]
    Target(RawFd),
    #[error("No program is launched as root or as nobody in particular ({0})")]
    Identity(u32),
    /// The launcher's own words.
    #[error("The launcher failed: {0}")]
    Failed(String),
    #[error("The launcher ended before it started the program")]
    Ended,
}

/// What the launcher tells its parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    Ready(Enforcement),
    Failed(String),
}

/// The first message to the launcher; the descriptors travel with it, in the same order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    pub(crate) spec: LaunchSpec,
    pub(crate) targets: Vec<RawFd>,
}

/// The one byte that opens the barrier.
pub(crate) const GO: &[u8] = b"g";

impl Launcher {
    /// This very program (even when its file was replaced meanwhile) with the subcommand
    /// `vmm-launch`.
    pub fn this_program() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            arguments: vec!["vmm-launch".into()],
        }
    }
}

/// Starts the launcher. `fds` are the program's descriptors with the numbers that it will
/// have; 0, 1 and 2 are /dev/null unless given. Needs a tokio runtime.
///
/// # Errors
/// When the process cannot be started or the specification is too large. What goes wrong
/// later is told by the [`Barrier`].
pub fn spawn(
    launcher: &Launcher,
    spec: &LaunchSpec,
    fds: Vec<(OwnedFd, RawFd)>,
) -> Result<Launched, LaunchError> {
    let targets: Vec<RawFd> = fds.iter().map(|(_, target)| *target).collect();
    check_targets(&targets)?;
    if let Some(identity) = &spec.identity {
        check_identity(identity)?;
    }
    let order = Order {
        spec: spec.clone(),
        targets,
    };
    let order = serde_json::to_vec(&order).map_err(|e| LaunchError::Socket(e.into()))?;
    if order.len() > MAX_SPEC_BYTES {
        return Err(LaunchError::TooLarge { bytes: order.len() });
    }
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| LaunchError::Socket(e.into()))?;
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|(fd, _)| fd.as_fd()).collect();
    send_order(&ours, &order, &borrowed).map_err(LaunchError::Socket)?;
    let socket = register(ours).map_err(LaunchError::Socket)?;
    start(launcher, theirs, socket)
}

fn check_targets(targets: &[RawFd]) -> Result<(), LaunchError> {
    if targets.is_empty() || targets.len() > MAX_DESCRIPTORS {
        let count = targets.len();
        return Err(LaunchError::Descriptors { count });
    }
    for (index, target) in targets.iter().enumerate() {
        if !(0..=MAX_TARGET).contains(target) || targets[..index].contains(target) {
            return Err(LaunchError::Target(*target));
        }
    }
    Ok(())
}

/// 0 is root; of setresuid(2) and setresgid(2), -1 means "as it was".
fn check_identity(identity: &Identity) -> Result<(), LaunchError> {
    let Identity { uid, gid, groups } = identity;
    match [uid, gid]
        .into_iter()
        .chain(groups)
        .find(|id| matches!(**id, 0 | u32::MAX))
    {
        Some(id) => Err(LaunchError::Identity(*id)),
        None => Ok(()),
    }
}

fn send_order(socket: &OwnedFd, order: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        socket,
        &[IoSlice::new(order)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn start(launcher: &Launcher, theirs: OwnedFd, socket: AsyncFd<OwnedFd>) -> Result<Launched, LaunchError> {
    let error = |source| LaunchError::Start {
        program: launcher.program.clone(),
        source,
    };
    // No pre_exec closure: with one, the standard library forks, which copies the page tables
    // of the whole daemon.
    let mut child = Command::new(&launcher.program)
        .args(&launcher.arguments)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(error)?;
    let pid = child.id();
    let pidfd = Pidfd::open(pid).map_err(|e| {
        // A process that cannot be watched must not stay.
        let _ = child.kill();
        let _ = child.wait();
        error(e)
    })?;
    let barrier = Barrier { socket, ready: None };
    Ok(Launched { pid, pidfd, barrier })
}

impl Barrier {
    /// Waits until the process has confined itself, and says how well. May be called again.
    ///
    /// # Errors
    /// The launcher's own words when it failed.
    pub async fn ready(&mut self) -> Result<Enforcement, LaunchError> {
        if let Some(enforcement) = self.ready {
            return Ok(enforcement);
        }
        match self.receive().await? {
            Some(Report::Ready(enforcement)) => {
                self.ready = Some(enforcement);
                Ok(enforcement)
            }
            Some(Report::Failed(text)) => Err(LaunchError::Failed(text)),
            None => Err(LaunchError::Ended),
        }
    }

    /// Lets the process become its program, and returns when it has.
    ///
    /// # Errors
    /// When the program cannot be executed; the process has ended then.
    pub async fn release(mut self) -> Result<(), LaunchError> {
        self.ready().await?;
        // One byte always fits into a buffer that is empty.
        send(self.socket.get_ref(), GO, SendFlags::NOSIGNAL).map_err(|e| LaunchError::Socket(e.into()))?;
        match self.receive().await? {
            // The socket is closed by execve(2), and by nothing else but the process's death.
            None => Ok(()),
            Some(Report::Failed(text)) => Err(LaunchError::Failed(text)),
            Some(Report::Ready(_)) => Err(LaunchError::Ended),
        }
    }

    /// `None` at the end of the stream.
    async fn receive(&self) -> Result<Option<Report>, LaunchError> {
        let mut buffer = vec![0; 8 << 10];
        loop {
            let mut guard = self.socket.readable().await.map_err(LaunchError::Socket)?;
            match recv(guard.get_inner(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Ok((length, _)) => {
                    return serde_json::from_slice(&buffer[..length])
                        .map(Some)
                        .map_err(|e| LaunchError::Socket(e.into()));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(LaunchError::Socket(e.into())),
            }
        }
    }
}
