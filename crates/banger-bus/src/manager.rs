//! `org.banger.Manager`.

use std::sync::Arc;

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::wire::OwnedFd;
use zbus::{Connection, ObjectPath, OwnedObjectPath};

use crate::api::{Caller, ManagerApi};
use crate::error::Result;
use crate::options::{
    CreateOptions, ImportKernelOptions, PruneOptions, PullOptions, RegisterOptions, WorkspaceOptions,
};

/// The manager on the bus.
pub struct ManagerObject {
    pub api: Arc<dyn ManagerApi>,
}

#[zbus::interface(
    name = "org.banger.Manager",
    proxy(
        default_service = "org.banger.Manager",
        default_path = "/org/banger/Manager",
        visibility = "pub"
    )
)]
impl ManagerObject {
    /// Makes a VM and, unless told otherwise, starts it. An empty name lets the daemon find one.
    #[zbus(out_args("job"))]
    async fn create_vm(
        &self,
        name: String,
        options: CreateOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .create_vm(Caller::new(connection, &header), name, options)
            .await
    }

    /// Finds a VM by its exact name, its id, or an unambiguous prefix of either.
    #[zbus(out_args("vm"))]
    async fn look_up_vm(&self, name: String) -> Result<OwnedObjectPath> {
        self.api.look_up_vm(name).await
    }

    /// Builds or fetches an image, and the kernel it asks for: one of the catalogue by its name,
    /// else one of an OCI registry by its reference, with docker's defaults for what it leaves out.
    #[zbus(out_args("job"))]
    async fn pull_image(
        &self,
        name: String,
        options: PullOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .pull_image(Caller::new(connection, &header), name, options)
            .await
    }

    /// Lists an ext4 file of the owner's (an absolute path) as an image; it stays where it is.
    #[zbus(out_args("job"))]
    async fn register_image(
        &self,
        name: String,
        rootfs: String,
        options: RegisterOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .register_image(Caller::new(connection, &header), name, rootfs, options)
            .await
    }

    /// Finds an image by its name, or by any form of the reference that it was pulled by.
    #[zbus(out_args("image"))]
    async fn look_up_image(&self, name: String) -> Result<OwnedObjectPath> {
        self.api.look_up_image(name).await
    }

    /// Removes images and fetched layers that nothing needs.
    #[zbus(out_args("job"))]
    async fn prune_images(
        &self,
        options: PruneOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .prune_images(Caller::new(connection, &header), options)
            .await
    }

    /// Fetches a kernel of the catalogue.
    #[zbus(out_args("job"))]
    async fn pull_kernel(
        &self,
        name: String,
        options: PullOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .pull_kernel(Caller::new(connection, &header), name, options)
            .await
    }

    /// Copies a kernel file (vmlinux or bzImage, an absolute path) into the store.
    #[zbus(out_args("job"))]
    async fn import_kernel(
        &self,
        name: String,
        path: String,
        options: ImportKernelOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .import_kernel(Caller::new(connection, &header), name, path, options)
            .await
    }

    #[zbus(out_args("kernel"))]
    async fn look_up_kernel(&self, name: String) -> Result<OwnedObjectPath> {
        self.api.look_up_kernel(name).await
    }

    /// Names and descriptions of what the catalogue offers: `images` or `kernels`.
    #[zbus(out_args("entries"))]
    async fn list_available(&self, kind: String) -> Result<Vec<(String, String)>> {
        self.api.list_available(kind).await
    }

    /// What a VM gets when nobody says otherwise: key, value, and where the value came from.
    #[zbus(out_args("defaults"))]
    async fn defaults(&self) -> Result<Vec<(String, String, String)>> {
        self.api.defaults().await
    }

    /// Writes what `PrepareWorkspace` would put into a guest to `output`: the files' paths below
    /// the repository, each ended by a NUL. The job's `Names` has notes for people.
    #[zbus(out_args("job"))]
    async fn list_workspace(
        &self,
        path: String,
        options: WorkspaceOptions,
        output: OwnedFd,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .list_workspace(Caller::new(connection, &header), path, options, output.into())
            .await
    }

    /// A job has ended, as its own `Removed` said; for clients that follow all of them.
    #[zbus(signal)]
    pub async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        result: &str,
    ) -> zbus::Result<()>;

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        self.api.version()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn commit(&self) -> String {
        self.api.commit()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn interface_version(&self) -> u32 {
        crate::INTERFACE_VERSION
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn mode(&self) -> String {
        self.api.mode()
    }
}
