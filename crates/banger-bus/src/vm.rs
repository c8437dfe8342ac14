//! `org.banger.VM`.

use std::collections::HashMap;
use std::sync::Arc;

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::wire::OwnedFd;
use zbus::{Connection, OwnedObjectPath};

use crate::api::{Caller, VmApi};
use crate::error::Result;
use crate::info::{ListeningPort, VmInfo};
use crate::options::{
    CopyOptions, DeleteOptions, ExecOptions, LogOptions, SetOptions, StartOptions, StopOptions,
    WorkspaceExportOptions, WorkspaceOptions,
};

/// A VM on the bus.
pub struct VmObject {
    pub api: Arc<dyn VmApi>,
}

#[zbus::interface(
    name = "org.banger.VM",
    proxy(default_service = "org.banger.Manager", visibility = "pub")
)]
impl VmObject {
    #[zbus(out_args("job"))]
    async fn start(
        &self,
        options: StartOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api.start(Caller::new(connection, &header), options).await
    }

    /// Asks the guest to shut down, and ends the VMM when the time is over.
    #[zbus(out_args("job"))]
    async fn stop(
        &self,
        options: StopOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api.stop(Caller::new(connection, &header), options).await
    }

    #[zbus(out_args("job"))]
    async fn restart(
        &self,
        options: StopOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api.restart(Caller::new(connection, &header), options).await
    }

    /// Ends the VMM at once.
    #[zbus(out_args("job"))]
    async fn kill(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api.kill(Caller::new(connection, &header)).await
    }

    #[zbus(out_args("job"))]
    async fn delete(
        &self,
        options: DeleteOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api.delete(Caller::new(connection, &header), options).await
    }

    /// Halts the virtual CPUs.
    async fn pause(&self) -> Result<()> {
        self.api.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.api.resume().await
    }

    /// Runs a command in the guest with the caller's own standard streams. The job's `Removed`
    /// has the exit status; `org.banger.Process` at the job's path takes signals and sizes. With
    /// a terminal everything goes to `stdout`.
    #[zbus(out_args("job"))]
    #[allow(clippy::too_many_arguments)]
    async fn exec(
        &self,
        argv: Vec<String>,
        options: ExecOptions,
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        let stdio = [stdin.into(), stdout.into(), stderr.into()];
        self.api
            .exec(Caller::new(connection, &header), argv, options, stdio)
            .await
    }

    /// The serial console's text, as a descriptor to read until its end.
    #[zbus(out_args("log"))]
    async fn open_log(
        &self,
        options: LogOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedFd> {
        self.api
            .open_log(Caller::new(connection, &header), options)
            .await
            .map(OwnedFd::from)
    }

    /// Puts the git repository that encloses a directory of the owner's (an absolute path) into
    /// the guest, or what has changed in it since. What was changed in the guest is not
    /// overwritten. The job's `Names` has notes for people.
    #[zbus(out_args("job"))]
    async fn prepare_workspace(
        &self,
        path: String,
        options: WorkspaceOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .prepare_workspace(Caller::new(connection, &header), path, options)
            .await
    }

    /// Whether the repository has another commit than the workspace was made from, and which;
    /// an empty commit when that cannot be told.
    #[zbus(out_args("stale", "commit"))]
    async fn check_workspace(&self) -> Result<(bool, String)> {
        self.api.check_workspace().await
    }

    /// Brings out what was made in the workspace. The repository's work tree, configuration and
    /// hooks are left alone. The job's `Names` has the references or the file that were written.
    #[zbus(out_args("job"))]
    async fn export_workspace(
        &self,
        options: WorkspaceExportOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .export_workspace(Caller::new(connection, &header), options)
            .await
    }

    /// Copies a file or a directory of the owner's (an absolute path) into the guest: into
    /// `target` where that is a directory, else to it, as cp(1) does. A relative target begins
    /// at the user's home.
    #[zbus(out_args("job"))]
    async fn copy_in(
        &self,
        source: String,
        target: String,
        options: CopyOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .copy_in(Caller::new(connection, &header), source, target, options)
            .await
    }

    /// Copies a file or a directory of the guest to the owner's `target` (an absolute path).
    #[zbus(out_args("job"))]
    async fn copy_out(
        &self,
        source: String,
        target: String,
        options: CopyOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .copy_out(Caller::new(connection, &header), source, target, options)
            .await
    }

    /// What listens in the guest: protocol, address, port, process id, process name, command
    /// line, and `http`, `https` or nothing. All of it is the guest's word.
    #[zbus(out_args("ports"))]
    async fn list_ports(&self) -> Result<Vec<ListeningPort>> {
        self.api.list_ports().await
    }

    /// Figures of now. Of the VMM: `CpuUSec`, `MemoryBytes`, `MemoryMaxBytes`, `ReadBytes`,
    /// `WrittenBytes`, and, in hundredths of a percent over 10 s, `CpuPressure`, `MemoryPressure`,
    /// `IoPressure`. Of the guest, by its own word: `GuestMemoryBytes`, `GuestAvailableBytes`.
    /// Of the host: `DiskUsedBytes`, and `TimeUSec`, the monotonic clock. What cannot be told is missing.
    #[zbus(out_args("figures"))]
    async fn stats(&self) -> Result<HashMap<String, u64>> {
        self.api.stats().await
    }

    /// Takes connections to a port of the host's loopback (127.0.0.1) to a port of the guest;
    /// the kernel chooses the host's for 0. It is undone by `UnpublishPort` or with the VM.
    #[zbus(out_args("host"))]
    async fn publish_port(&self, guest: u16, host: u16) -> Result<u16> {
        self.api.publish_port(guest, host).await
    }

    async fn unpublish_port(&self, host: u16) -> Result<()> {
        self.api.unpublish_port(host).await
    }

    /// Changes what it is made of. `later` has the names of what takes effect with its next start.
    #[zbus(out_args("later"))]
    async fn set(&self, options: SetOptions) -> Result<Vec<String>> {
        self.api.set(options).await
    }

    /// Gives it another name; the guest's host name follows with the next start.
    async fn rename(&self, name: String) -> Result<()> {
        self.api.rename(name).await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.api.info().id
    }

    #[zbus(property)]
    fn name(&self) -> String {
        self.api.info().name
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.api.info().state
    }

    #[zbus(property)]
    fn stop_reason(&self) -> String {
        self.api.info().stop_reason
    }

    #[zbus(property)]
    fn state_detail(&self) -> String {
        self.api.info().state_detail
    }

    #[zbus(property)]
    fn image(&self) -> String {
        self.api.info().image
    }

    #[zbus(property)]
    fn kernel(&self) -> String {
        self.api.info().kernel
    }

    #[zbus(property)]
    fn engine(&self) -> String {
        self.api.info().engine
    }

    #[zbus(property)]
    fn accelerator(&self) -> String {
        self.api.info().accelerator
    }

    #[zbus(property)]
    fn vcpus(&self) -> u32 {
        self.api.info().vcpus
    }

    #[zbus(property, name = "MemoryMiB")]
    fn memory_mib(&self) -> u64 {
        self.api.info().memory_mib
    }

    #[zbus(property)]
    fn disk_bytes(&self) -> u64 {
        self.api.info().disk_bytes
    }

    #[zbus(property)]
    fn network(&self) -> String {
        self.api.info().network
    }

    #[zbus(property)]
    fn labels(&self) -> HashMap<String, String> {
        self.api.info().labels.into_iter().collect()
    }

    #[zbus(property)]
    fn address(&self) -> String {
        self.api.info().address
    }

    #[zbus(property)]
    fn ssh_port(&self) -> u32 {
        self.api.info().ssh_port
    }

    #[zbus(property)]
    fn host_key(&self) -> String {
        self.api.info().host_key
    }

    #[zbus(property)]
    fn pid(&self) -> u32 {
        self.api.info().pid
    }

    #[zbus(property)]
    fn unit(&self) -> String {
        self.api.info().unit
    }

    #[zbus(property)]
    fn directory(&self) -> String {
        self.api.info().directory
    }

    #[zbus(property)]
    fn init(&self) -> String {
        self.api.info().init
    }

    #[zbus(property)]
    fn workspace(&self) -> String {
        self.api.info().workspace
    }

    #[zbus(property)]
    fn workspace_path(&self) -> String {
        self.api.info().workspace_path
    }

    #[zbus(property)]
    fn workspace_commit(&self) -> String {
        self.api.info().workspace_commit
    }

    #[zbus(property)]
    fn workspace_mode(&self) -> String {
        self.api.info().workspace_mode
    }

    #[zbus(property)]
    fn published_ports(&self) -> Vec<(u16, u16)> {
        self.api.info().published_ports
    }

    #[zbus(property, name = "CreatedUSec")]
    fn created_us(&self) -> u64 {
        self.api.info().created_us
    }

    #[zbus(property, name = "StartedUSec")]
    fn started_us(&self) -> u64 {
        self.api.info().started_us
    }

    #[zbus(property, name = "ReadyUSec")]
    fn ready_us(&self) -> u64 {
        self.api.info().ready_us
    }
}

impl VmObject {
    /// Sends `PropertiesChanged` for what differs between two states.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn emit_changes(
        &self,
        before: &VmInfo,
        after: &VmInfo,
        emitter: &SignalEmitter<'_>,
    ) -> zbus::Result<()> {
        macro_rules! changed {
            ($($field:ident => $signal:ident),+ $(,)?) => {
                $(if before.$field != after.$field {
                    self.$signal(emitter).await?;
                })+
            };
        }
        changed!(
            name => name_changed,
            stop_reason => stop_reason_changed,
            state_detail => state_detail_changed,
            image => image_changed,
            kernel => kernel_changed,
            engine => engine_changed,
            accelerator => accelerator_changed,
            vcpus => vcpus_changed,
            memory_mib => memory_mi_b_changed,
            disk_bytes => disk_bytes_changed,
            network => network_changed,
            labels => labels_changed,
            address => address_changed,
            ssh_port => ssh_port_changed,
            host_key => host_key_changed,
            pid => pid_changed,
            unit => unit_changed,
            directory => directory_changed,
            init => init_changed,
            workspace => workspace_changed,
            workspace_path => workspace_path_changed,
            workspace_commit => workspace_commit_changed,
            workspace_mode => workspace_mode_changed,
            published_ports => published_ports_changed,
            created_us => created_u_sec_changed,
            started_us => started_u_sec_changed,
            ready_us => ready_u_sec_changed,
            // Last: who waits for a state finds everything else already told.
            state => state_changed,
        );
        Ok(())
    }
}
