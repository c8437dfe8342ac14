//! What a VM is made of, part by part. A part knows how to make itself for the VM's life and
//! to ready itself for a run, and how to undo both; the life cycle knows none of them by name.

pub(crate) mod archives;
mod boot;
mod channels;
mod console;
mod console_copy;
mod directory;
mod disk;
pub(crate) mod guest_program;
mod keys;
mod network;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;

use async_trait::async_trait;
use banger_bus::Error;
use banger_model::VmId;
use banger_store::VmRecord;
use banger_vmm::{ConsoleSink, Network as Connection};

use super::engine::Chosen;
use super::progress::JobContext;
use super::registry::Core;

pub(crate) use console::{tail, watch as watch_console};
pub(crate) use directory::remove_tree;
pub(crate) use disk::grow as grow_disk;
pub(crate) use network::{mac_of, mac_text};

/// The parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The VM's directory, and the directory of its sockets while it runs.
    Directory,
    /// Its host key.
    Keys,
    /// Its root disk.
    Disk,
    /// Kernel, command line and initramfs, which carries its identity.
    Boot,
    /// Where its serial console and its VMM's own words go.
    Console,
    Network,
    /// The sockets of its control channel and its monitor.
    Channels,
}

/// What a part sees of the VM that it belongs to.
pub(crate) struct Site<'a> {
    pub core: &'a Core,
    pub vm: &'a VmRecord,
    pub ctx: &'a JobContext,
}

impl Site<'_> {
    /// What will run it, once its network is prepared.
    pub(crate) async fn chosen(&self) -> Result<Chosen, Error> {
        let engines = self.core.engines();
        engines.choose(self.vm.spec.engine, self.vm.slot.is_some()).await
    }
}

/// What the parts hand to the VMM; each fills in its own.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<Slots>);

/// All of it by name.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    pub kernel: Option<File>,
    pub initrd: Option<OwnedFd>,
    pub root_disk: Option<OwnedFd>,
    pub console: Option<ConsoleSink>,
    pub stderr: Option<OwnedFd>,
    pub network: Option<Connection>,
    pub control: Option<OwnedFd>,
    pub monitor: Option<OwnedFd>,
    /// Where the VMM makes its sockets itself.
    pub directory: Option<OwnedFd>,
    /// The host's public key, once it is made.
    pub host_key: Option<String>,
    /// The last hold of a file that was removed.
    pub doomed: Option<Doomed>,
}

/// A file without a name. Its blocks are freed by the last close, which for a disk takes long
/// and holds up everything else in its file system: it is closed when the work is done, while
/// nobody waits.
#[derive(Debug)]
pub(crate) struct Doomed(Option<File>);

impl Doomed {
    pub(crate) fn new(file: File) -> Self {
        Self(Some(file))
    }

    /// Gives the file to whoever wants to close it himself.
    pub(crate) fn into_file(mut self) -> Option<File> {
        self.0.take()
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        let file = self.0.take();
        // Without a runtime the daemon ends, and the kernel closes it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(file));
        }
    }
}

/// One part. All of it can be done twice: after a crash nobody knows whether it was done.
#[async_trait]
pub(crate) trait Capability: Send + Sync {
    /// Finds out whether it can work, and changes nothing.
    fn plan(&self, _: &Site<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Whether its lasting part exists.
    fn is_made(&self, _: &Core, _: VmId) -> bool {
        true
    }

    /// Makes its lasting part.
    async fn make(&self, _: &Site<'_>, _: &Parts) -> Result<(), Error> {
        Ok(())
    }

    /// Removes its lasting part.
    async fn unmake(&self, _: &Core, _: VmId, _: &Parts) -> Result<(), Error> {
        Ok(())
    }

    /// Readies it for a run.
    async fn prepare(&self, _: &Site<'_>, _: &Parts) -> Result<(), Error> {
        Ok(())
    }

    /// Removes what a run leaves.
    async fn cleanup(&self, _: &Core, _: VmId) -> Result<(), Error> {
        Ok(())
    }
}

impl Kind {
    /// The lasting parts: what stands together is made side by side, each row needs those before.
    pub(crate) const MAKE: &'static [&'static [Self]] = &[&[Self::Directory], &[Self::Keys, Self::Disk]];
    /// The parts of a run, the same way.
    pub(crate) const PREPARE: &'static [&'static [Self]] = &[
        // What the guest and its VMM are told depends on the network. It goes last again.
        &[Self::Directory, Self::Network],
        &[Self::Disk, Self::Boot, Self::Console, Self::Channels],
    ];

    /// For the names of fail points and log lines.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Keys => "keys",
            Self::Disk => "disk",
            Self::Boot => "boot",
            Self::Console => "console",
            Self::Network => "network",
            Self::Channels => "channels",
        }
    }

    /// For people, after "its".
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Keys => "host key",
            Self::Disk => "root disk",
            Self::Boot => "kernel",
            Self::Console => "console",
            Self::Network => "network",
            Self::Channels => "control sockets",
        }
    }

    pub(crate) fn capability(self) -> &'static dyn Capability {
        match self {
            Self::Directory => &directory::Directory,
            Self::Keys => &keys::Keys,
            Self::Disk => &disk::Disk,
            Self::Boot => &boot::Boot,
            Self::Console => &console::ConsoleOutput,
            Self::Network => &network::Network,
            Self::Channels => &channels::Channels,
        }
    }
}

impl Parts {
    pub(crate) fn fill(&self, fill: impl FnOnce(&mut Slots)) {
        fill(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    pub(crate) fn take(&self) -> Slots {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Does blocking work where it holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(super::error::failed("Host work ended unexpectedly", &e)),
    }
}

/// Removes a file; that it is gone already is what was wanted.
pub(crate) fn remove_file(path: &std::path::Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(super::error::io("remove", path, &e)),
    }
}

/// The paths of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmPaths {
    /// Below the state directory: what lasts.
    pub directory: PathBuf,
    /// Below the runtime directory: sockets.
    pub runtime: PathBuf,
}

impl VmPaths {
    pub(crate) fn new(dirs: &banger_model::Dirs, id: VmId) -> Self {
        let id = id.to_string();
        Self {
            directory: dirs.vms().join(&id),
            runtime: dirs.runtime.join("vms").join(&id),
        }
    }

    pub(crate) fn root_disk(&self) -> PathBuf {
        self.directory.join("root.ext4")
    }

    pub(crate) fn host_key(&self) -> PathBuf {
        self.directory.join("host_key")
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// What was moved out of [`Self::console`].
    pub(crate) fn old_console(&self) -> PathBuf {
        self.directory.join("console.log.1")
    }

    /// The VMM's own words in its last run.
    pub(crate) fn vmm_log(&self) -> PathBuf {
        self.directory.join("vmm.log")
    }

    pub(crate) fn old_vmm_log(&self) -> PathBuf {
        self.directory.join("vmm.log.1")
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    pub(crate) fn monitor(&self) -> PathBuf {
        self.runtime.join("monitor.sock")
    }

    /// Where Firecracker makes its sockets.
    pub(crate) fn vmm_sockets(&self) -> PathBuf {
        self.runtime.join("vmm")
    }

    /// A link to [`Self::directory`]: says to whom the runtime directory belongs.
    pub(crate) fn owner_link(&self) -> PathBuf {
        self.runtime.join("state")
    }
}
