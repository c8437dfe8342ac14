//! The engines that are installed, each asked for its version once as long as it stays the same
//! file.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, LaunchEngine};
use banger_model::Slot;
use banger_sys::landlock::{FileAccess, FileRule};
use banger_sys::launch::{LaunchError, LaunchSpec, Launcher, spawn};
use banger_vmm::EngineKind;
use banger_vmm::firecracker::{self, FirecrackerError};
use banger_vmm::probe::{self, ProbeError};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Mutex;

use crate::journal::chain;
use crate::launch_thread::LaunchThread;

/// How long an engine may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// What it may have open: mostly its libraries, one after the other.
const OPEN_FILES: u64 = 64;
/// What is read of it, in bytes.
const MAX_VERSION: u64 = 4096;
/// In debug builds: a program to be used as whichever engine is asked for.
#[cfg(debug_assertions)]
pub(crate) const TEST_ENGINE: &str = "BANGER_TEST_ENGINE";

/// Why an engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error(transparent)]
    Qemu(#[from] ProbeError),
    #[error(transparent)]
    Firecracker(#[from] FirecrackerError),
    #[error("Cannot ask {binary:?} for its version")]
    Ask {
        binary: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Cannot ask {binary:?} for its version")]
    Launch {
        binary: PathBuf,
        #[source]
        source: LaunchError,
    },
}

/// What was found. Who looks for an engine waits for whoever looks for it already.
#[derive(Default)]
pub(crate) struct Engines {
    qemu: Mutex<Option<Found>>,
    firecracker: Mutex<Option<Found>>,
}

struct Found {
    binary: PathBuf,
    file: FileState,
    engine: EngineKind,
}

/// Of a file that nobody but root can change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Engines {
    /// The installed engine. Its version it says as the slot's user, confined as a VMM.
    ///
    /// # Errors
    /// When there is none, somebody else than root can change it, or it is too old.
    pub(crate) async fn find(
        &self,
        engine: LaunchEngine,
        thread: &LaunchThread,
        slot: Slot,
    ) -> Result<EngineKind, EngineError> {
        let binary = place(engine)?;
        let file = FileState::of(&binary).map_err(|source| EngineError::Ask {
            binary: binary.clone(),
            source,
        })?;
        let known = match engine {
            LaunchEngine::Qemu => &self.qemu,
            LaunchEngine::Firecracker => &self.firecracker,
        };
        let mut known = known.lock().await;
        if let Some(found) = known.as_ref()
            && found.binary == binary
            && found.file == file
        {
            return Ok(found.engine.clone());
        }
        let text = version(&binary, thread, slot).await?;
        let engine = match engine {
            LaunchEngine::Qemu => EngineKind::Qemu(probe::judge(binary.clone(), &text)?),
            LaunchEngine::Firecracker => EngineKind::Firecracker(firecracker::judge(&binary, &text)?),
        };
        *known = Some(Found {
            binary,
            file,
            engine: engine.clone(),
        });
        Ok(engine)
    }
}

impl FileState {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl From<EngineError> for HelperError {
    fn from(error: EngineError) -> Self {
        Self::new(ErrorKind::EngineUnavailable, chain(&error))
    }
}

fn place(engine: LaunchEngine) -> Result<PathBuf, EngineError> {
    #[cfg(debug_assertions)]
    if let Some(program) = std::env::var_os(TEST_ENGINE) {
        return Ok(program.into());
    }
    Ok(match engine {
        LaunchEngine::Qemu => probe::system_qemu()?,
        LaunchEngine::Firecracker => firecracker::place()?,
    })
}

async fn version(binary: &Path, thread: &LaunchThread, slot: Slot) -> Result<String, EngineError> {
    let ask = |source: io::Error| EngineError::Ask {
        binary: binary.to_owned(),
        source,
    };
    let launch = |source| EngineError::Launch {
        binary: binary.to_owned(),
        source,
    };
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| ask(e.into()))?;
    let spec = version_spec(binary, slot);
    let fds: Vec<(OwnedFd, i32)> = vec![(write, 1)];
    let launched = thread
        .run(move || spawn(&Launcher::this_program(), &spec, fds))
        .await;
    let launched = launched.map_err(ask)?.map_err(launch)?;
    let asking = async {
        launched.barrier.release().await.map_err(launch)?;
        let mut text = String::new();
        let mut output = Receiver::from_owned_fd(read).map_err(ask)?.take(MAX_VERSION);
        output.read_to_string(&mut text).await.map_err(ask)?;
        Ok(text)
    };
    let answer = tokio::time::timeout(VERSION_LIMIT, asking).await;
    // One that stays is a program of root's, in this service: it ends with the service.
    let _ = tokio::time::timeout(VERSION_LIMIT, launched.pidfd.exited()).await;
    answer.unwrap_or_else(|_| Err(ask(io::ErrorKind::TimedOut.into())))
}

fn version_spec(binary: &Path, slot: Slot) -> LaunchSpec {
    let mut spec = super::reader(
        binary,
        vec!["--version".to_owned()],
        &["/etc/ld.so.cache", "/proc/self", "/dev/urandom"],
        OPEN_FILES,
    );
    spec.confinement
        .files
        .push(FileRule::path("/dev/null", FileAccess::Write));
    spec.identity = Some(super::identity(slot, Vec::new()));
    spec
}
