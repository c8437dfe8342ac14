//! What the daemon implements. No type of the transport appears here but the object path, so
//! the same implementation serves the session bus and the private socket.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use zbus::OwnedObjectPath;
use zbus::message::Header;
use zbus::{Connection, fdo, names::BusName};

use crate::error::Result;
use crate::info::{ImageInfo, JobInfo, KernelInfo, ListeningPort, VmInfo};
use crate::options::{
    CopyOptions, CreateOptions, DeleteOptions, ExecOptions, ExportOptions, ImportKernelOptions, LogOptions,
    PruneOptions, PullOptions, RegisterOptions, SetOptions, StartOptions, StopOptions,
    WorkspaceExportOptions, WorkspaceOptions,
};

/// Who called. A job that only he waits for ends when he leaves.
#[derive(Debug, Clone)]
pub struct Caller {
    connection: Connection,
    sender: Option<String>,
}

/// The path of a job that has been started.
pub type JobPath = OwnedObjectPath;

/// `org.banger.Manager`.
#[async_trait]
pub trait ManagerApi: Send + Sync + 'static {
    fn version(&self) -> String;
    fn commit(&self) -> String;
    /// `user` or `system`.
    fn mode(&self) -> String;
    async fn create_vm(&self, caller: Caller, name: String, options: CreateOptions) -> Result<JobPath>;
    async fn look_up_vm(&self, name: String) -> Result<OwnedObjectPath>;
    async fn pull_image(&self, caller: Caller, name: String, options: PullOptions) -> Result<JobPath>;
    async fn register_image(
        &self,
        caller: Caller,
        name: String,
        rootfs: String,
        options: RegisterOptions,
    ) -> Result<JobPath>;
    async fn look_up_image(&self, name: String) -> Result<OwnedObjectPath>;
    async fn prune_images(&self, caller: Caller, options: PruneOptions) -> Result<JobPath>;
    async fn pull_kernel(&self, caller: Caller, name: String, options: PullOptions) -> Result<JobPath>;
    async fn import_kernel(
        &self,
        caller: Caller,
        name: String,
        path: String,
        options: ImportKernelOptions,
    ) -> Result<JobPath>;
    async fn look_up_kernel(&self, name: String) -> Result<OwnedObjectPath>;
    /// `images` or `kernels` of the catalogue: name and description.
    async fn list_available(&self, kind: String) -> Result<Vec<(String, String)>>;
    /// The defaults of a new VM: key, value, where it came from.
    async fn defaults(&self) -> Result<Vec<(String, String, String)>>;
    async fn list_workspace(
        &self,
        caller: Caller,
        path: String,
        options: WorkspaceOptions,
        output: OwnedFd,
    ) -> Result<JobPath>;
}

/// `org.banger.VM`.
#[async_trait]
pub trait VmApi: Send + Sync + 'static {
    /// The state as it is now. Must not block.
    fn info(&self) -> VmInfo;
    async fn start(&self, caller: Caller, options: StartOptions) -> Result<JobPath>;
    async fn stop(&self, caller: Caller, options: StopOptions) -> Result<JobPath>;
    async fn restart(&self, caller: Caller, options: StopOptions) -> Result<JobPath>;
    async fn kill(&self, caller: Caller) -> Result<JobPath>;
    async fn delete(&self, caller: Caller, options: DeleteOptions) -> Result<JobPath>;
    async fn pause(&self) -> Result<()>;
    async fn resume(&self) -> Result<()>;
    async fn exec(
        &self,
        caller: Caller,
        argv: Vec<String>,
        options: ExecOptions,
        stdio: [OwnedFd; 3],
    ) -> Result<JobPath>;
    async fn open_log(&self, caller: Caller, options: LogOptions) -> Result<OwnedFd>;
    async fn prepare_workspace(
        &self,
        caller: Caller,
        path: String,
        options: WorkspaceOptions,
    ) -> Result<JobPath>;
    /// Whether the repository has moved on since, and its commit now (empty when that cannot be told).
    async fn check_workspace(&self) -> Result<(bool, String)>;
    async fn export_workspace(&self, caller: Caller, options: WorkspaceExportOptions) -> Result<JobPath>;
    async fn copy_in(
        &self,
        caller: Caller,
        source: String,
        target: String,
        options: CopyOptions,
    ) -> Result<JobPath>;
    async fn copy_out(
        &self,
        caller: Caller,
        source: String,
        target: String,
        options: CopyOptions,
    ) -> Result<JobPath>;
    async fn list_ports(&self) -> Result<Vec<ListeningPort>>;
    /// Key and value: numbers of the names that `org.banger.VM.Stats` lists.
    async fn stats(&self) -> Result<HashMap<String, u64>>;
    /// The port of the host, which the kernel chooses for 0.
    async fn publish_port(&self, guest: u16, host: u16) -> Result<u16>;
    async fn unpublish_port(&self, host: u16) -> Result<()>;
    /// The names of what takes effect with the next start.
    async fn set(&self, options: SetOptions) -> Result<Vec<String>>;
    async fn rename(&self, name: String) -> Result<()>;
}

/// `org.banger.Image`.
#[async_trait]
pub trait ImageApi: Send + Sync + 'static {
    fn info(&self) -> ImageInfo;
    async fn delete(&self) -> Result<()>;
    async fn promote(&self, caller: Caller) -> Result<JobPath>;
    async fn tag(&self, name: String) -> Result<OwnedObjectPath>;
    async fn export(&self, caller: Caller, file: String, options: ExportOptions) -> Result<JobPath>;
    async fn publish(&self, caller: Caller, directory: String, options: ExportOptions) -> Result<JobPath>;
}

/// `org.banger.Kernel`.
#[async_trait]
pub trait KernelApi: Send + Sync + 'static {
    fn info(&self) -> KernelInfo;
    async fn delete(&self) -> Result<()>;
    async fn export(&self, caller: Caller, file: String, options: ExportOptions) -> Result<JobPath>;
    async fn publish(&self, caller: Caller, directory: String, options: ExportOptions) -> Result<JobPath>;
}

/// `org.banger.Job`, and `org.banger.Process` for `exec`.
#[async_trait]
pub trait JobApi: Send + Sync + 'static {
    fn info(&self) -> JobInfo;
    fn cancel(&self);
    /// A signal of the POSIX set by its name without `SIG`, to a job that is a process.
    async fn signal(&self, name: String) -> Result<()>;
    async fn resize(&self, columns: u32, rows: u32) -> Result<()>;
}

impl Caller {
    pub(crate) fn new(connection: &Connection, header: &Header<'_>) -> Self {
        Self {
            connection: connection.clone(),
            sender: header.sender().map(ToString::to_string),
        }
    }

    /// The connection that he uses: the bus, or his own.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Resolves when the caller has left: its connection to the bus, or to us where there is no
    /// bus, is closed.
    pub async fn gone(self) {
        let Some(sender) = self.sender else {
            return self.connection.closed().await;
        };
        // An error means that the bus is gone, and the caller with it.
        let _ = bus_name_gone(&self.connection, &sender).await;
    }
}

/// Resolves when `sender`, a unique name, is not on the bus any more.
///
/// # Errors
/// When the bus is gone, or the name is none.
pub async fn bus_name_gone(connection: &Connection, sender: &str) -> zbus::Result<()> {
    use futures_util::StreamExt;
    let bus = fdo::DBusProxy::new(connection).await?;
    // Subscribe first, then ask: no window in between.
    let mut left = bus
        .receive_name_owner_changed_with_args(&[(0, sender), (2, "")])
        .await?;
    if bus.name_has_owner(BusName::try_from(sender)?).await? {
        left.next().await;
    }
    Ok(())
}
