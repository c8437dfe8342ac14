//! The root disk: a clone of the image, grown to the VM's size by the guest.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use async_trait::async_trait;
use banger_bus::{Error, ErrorKind};
use banger_image::disk::clone_root_disk;
use banger_model::{Size, VmId};

use super::{Capability, Doomed, Parts, Site, blocking, remove_file};
use crate::core::registry::Core;
use crate::core::{access, error};

pub(super) struct Disk;

#[async_trait]
impl Capability for Disk {
    /// Only before it is made: a VM keeps its disk when its image is gone.
    fn plan(&self, site: &Site<'_>) -> Result<(), Error> {
        if self.is_made(site.core, site.vm.id) {
            return Ok(());
        }
        let spec = &site.vm.spec;
        let image = site.core.sources().image(&spec.image)?;
        if spec.disk_bytes < image.rootfs_bytes {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "Cannot make a disk of {} from image {}, which has {}",
                    Size::from_bytes(spec.disk_bytes),
                    image.name,
                    Size::from_bytes(image.rootfs_bytes)
                ),
            )
            .hint("Ask for a larger disk."));
        }
        Ok(())
    }

    fn is_made(&self, core: &Core, id: VmId) -> bool {
        core.paths(id).root_disk().is_file()
    }

    async fn make(&self, site: &Site<'_>, _: &Parts) -> Result<(), Error> {
        // It appears whole or not at all.
        if self.is_made(site.core, site.vm.id) {
            return Ok(());
        }
        let target = site.core.paths(site.vm.id).root_disk();
        let sources = site.core.sources().clone();
        let (name, size) = (site.vm.spec.image.clone(), site.vm.spec.disk_bytes);
        let cancel = site.ctx.cancel().blocking().clone();
        blocking(move || {
            let image = sources.image(&name)?;
            let method =
                clone_root_disk(&image.rootfs, &target, size, &cancel).map_err(|e| error::image(&e))?;
            tracing::debug!(?method, image = %image.name, "Root disk made");
            Ok(())
        })
        .await
    }

    async fn unmake(&self, core: &Core, id: VmId, parts: &Parts) -> Result<(), Error> {
        let path = core.paths(id).root_disk();
        let held = File::open(&path).ok();
        remove_file(&path)?;
        parts.fill(|parts| parts.doomed = held.map(Doomed::new));
        Ok(())
    }

    async fn prepare(&self, site: &Site<'_>, parts: &Parts) -> Result<(), Error> {
        let path = site.core.paths(site.vm.id).root_disk();
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| error::io("open", &path, &e))?;
        // It was given more while it ran.
        lengthen(&disk, site.vm.spec.disk_bytes).map_err(|e| error::io("lengthen", &path, &e))?;
        parts.fill(|parts| parts.root_disk = Some(disk.into()));
        Ok(())
    }

    async fn cleanup(&self, core: &Core, id: VmId) -> Result<(), Error> {
        if core.kernel_and_slot(id).is_none() {
            return Ok(());
        }
        let path = core.paths(id).root_disk();
        blocking(move || access::take_back(&path, |_| false)).await
    }
}

/// Lengthens the root disk of a VM that does not run; its guest grows the file system. Blocks.
///
/// # Errors
/// When the disk is missing, or its file system cannot hold such a file.
pub(crate) fn grow(path: &Path, bytes: u64) -> Result<(), Error> {
    let disk = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|e| error::io("open", path, &e))?;
    lengthen(&disk, bytes).map_err(|e| error::io("lengthen", path, &e))
}

/// Never shortens: what is there stays. The new part takes no room until it is written to.
fn lengthen(disk: &File, bytes: u64) -> io::Result<()> {
    if disk.metadata()?.len() < bytes {
        disk.set_len(bytes)?;
    }
    Ok(())
}
