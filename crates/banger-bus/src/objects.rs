//! `org.banger.Image` and `org.banger.Kernel`.

use std::collections::HashMap;
use std::sync::Arc;

use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath};

use crate::api::{Caller, ImageApi, KernelApi};
use crate::error::Result;
use crate::options::ExportOptions;

/// An image on the bus.
pub struct ImageObject {
    pub api: Arc<dyn ImageApi>,
}

/// A kernel on the bus.
pub struct KernelObject {
    pub api: Arc<dyn KernelApi>,
}

#[zbus::interface(
    name = "org.banger.Image",
    proxy(default_service = "org.banger.Manager", visibility = "pub")
)]
impl ImageObject {
    /// Removes it from the list, and its files where they are the store's. Refused while a VM uses it.
    async fn delete(&self) -> Result<()> {
        self.api.delete().await
    }

    /// Copies a registered image into the store.
    #[zbus(out_args("job"))]
    async fn promote(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api.promote(Caller::new(connection, &header)).await
    }

    /// Lists the same image under one more name, and shares its file.
    #[zbus(out_args("image"))]
    async fn tag(&self, name: String) -> Result<OwnedObjectPath> {
        self.api.tag(name).await
    }

    /// Writes the image as a bundle to a new file (an absolute path).
    #[zbus(out_args("job"))]
    async fn export(
        &self,
        file: String,
        options: ExportOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .export(Caller::new(connection, &header), file, options)
            .await
    }

    /// Writes the image as a bundle, named by its content, into a directory (an absolute path),
    /// and its entry into the directory's `catalog.toml`.
    #[zbus(out_args("job"))]
    async fn publish(
        &self,
        directory: String,
        options: ExportOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .publish(Caller::new(connection, &header), directory, options)
            .await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.api.info().name
    }

    #[zbus(property)]
    fn kind(&self) -> String {
        self.api.info().kind
    }

    #[zbus(property)]
    fn rootfs(&self) -> String {
        self.api.info().rootfs
    }

    #[zbus(property)]
    fn kernel(&self) -> String {
        self.api.info().kernel
    }

    #[zbus(property)]
    fn size_bytes(&self) -> u64 {
        self.api.info().size_bytes
    }

    #[zbus(property)]
    fn used_bytes(&self) -> u64 {
        self.api.info().used_bytes
    }

    #[zbus(property)]
    fn origin(&self) -> String {
        self.api.info().origin
    }

    #[zbus(property)]
    fn digest(&self) -> String {
        self.api.info().digest
    }

    #[zbus(property)]
    fn reference(&self) -> String {
        self.api.info().reference
    }

    #[zbus(property)]
    fn layers(&self) -> Vec<String> {
        self.api.info().layers
    }

    #[zbus(property)]
    fn env(&self) -> HashMap<String, String> {
        self.api.info().env.into_iter().collect()
    }

    #[zbus(property)]
    fn user(&self) -> String {
        self.api.info().user
    }

    #[zbus(property)]
    fn working_directory(&self) -> String {
        self.api.info().working_directory
    }

    #[zbus(property)]
    fn entrypoint(&self) -> Vec<String> {
        self.api.info().entrypoint
    }

    #[zbus(property)]
    fn command(&self) -> Vec<String> {
        self.api.info().command
    }

    #[zbus(property)]
    fn labels(&self) -> HashMap<String, String> {
        self.api.info().labels.into_iter().collect()
    }

    #[zbus(property, name = "CreatedUSec")]
    fn created_us(&self) -> u64 {
        self.api.info().created_us
    }
}

#[zbus::interface(
    name = "org.banger.Kernel",
    proxy(default_service = "org.banger.Manager", visibility = "pub")
)]
impl KernelObject {
    /// Removes it from the store. Refused while a VM or an image uses it.
    async fn delete(&self) -> Result<()> {
        self.api.delete().await
    }

    /// Writes the kernel and its modules as a bundle to a new file (an absolute path).
    #[zbus(out_args("job"))]
    async fn export(
        &self,
        file: String,
        options: ExportOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .export(Caller::new(connection, &header), file, options)
            .await
    }

    /// Writes the kernel as a bundle, named by its content, into a directory (an absolute path),
    /// and its entry into the directory's `catalog.toml`.
    #[zbus(out_args("job"))]
    async fn publish(
        &self,
        directory: String,
        options: ExportOptions,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath> {
        self.api
            .publish(Caller::new(connection, &header), directory, options)
            .await
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        self.api.info().name
    }

    #[zbus(property)]
    fn version(&self) -> String {
        self.api.info().version
    }

    #[zbus(property)]
    fn aliases(&self) -> Vec<String> {
        self.api.info().aliases
    }

    #[zbus(property)]
    fn path(&self) -> String {
        self.api.info().path
    }

    #[zbus(property)]
    fn origin(&self) -> String {
        self.api.info().origin
    }

    #[zbus(property)]
    fn digest(&self) -> String {
        self.api.info().digest
    }

    #[zbus(property)]
    fn warnings(&self) -> Vec<String> {
        self.api.info().warnings
    }

    #[zbus(property)]
    fn size_bytes(&self) -> u64 {
        self.api.info().size_bytes
    }

    #[zbus(property, name = "CreatedUSec")]
    fn created_us(&self) -> u64 {
        self.api.info().created_us
    }
}
