//! `org.banger.Image` and `org.banger.Kernel`.

use std::sync::Arc;

use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath};

use crate::api::{Caller, ImageApi, KernelApi};
use crate::error::Result;

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
