//! An image on the bus.

use std::os::unix::fs::MetadataExt;
use std::sync::Weak;

use async_trait::async_trait;
use banger_bus::api::{Caller, ImageApi, JobPath};
use banger_bus::{Error, ErrorKind, ExportOptions, ImageInfo, Result};
use banger_image::image::{Image, ImageKernel, Kind, Origin};
use zbus::OwnedObjectPath;

use super::library::Library;

/// One image and where its operations are.
pub(super) struct ImageEntry {
    pub(super) image: Image,
    pub(super) library: Weak<Library>,
}

/// What is told of an image. Looks at its file. Blocks.
fn info(image: &Image) -> ImageInfo {
    let used = std::fs::metadata(&image.rootfs).map_or(0, |found| found.blocks() * 512);
    let process = &image.config.process;
    ImageInfo {
        name: image.name.to_string(),
        kind: match image.kind {
            Kind::Managed => "managed",
            Kind::Registered => "registered",
        }
        .to_owned(),
        rootfs: image.rootfs.display().to_string(),
        kernel: match &image.kernel {
            ImageKernel::Reference(name) => name.to_string(),
            ImageKernel::Files { kernel, .. } => kernel.display().to_string(),
        },
        size_bytes: image.size,
        used_bytes: used,
        origin: match &image.origin {
            Origin::Recipe { mirror, recipe } => format!("recipe for {} from {mirror}", recipe.suite),
            Origin::Registered { rootfs } => format!("registered from {}", rootfs.display()),
            Origin::Oci { reference, .. } => reference.clone(),
            Origin::Bundle { url, .. } => format!("bundle {url}"),
        },
        digest: image
            .origin
            .digest()
            .map(|digest| digest.to_string())
            .unwrap_or_default(),
        reference: match &image.origin {
            Origin::Oci { reference, .. } => reference.clone(),
            _ => String::new(),
        },
        layers: match &image.origin {
            Origin::Oci { layers, .. } => layers.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        },
        env: image.config.env.clone(),
        user: process.user.clone().unwrap_or_default(),
        working_directory: process.working_directory.clone().unwrap_or_default(),
        entrypoint: process.entrypoint.clone(),
        command: process.command.clone(),
        labels: image.config.labels.clone(),
        created_us: image.created.saturating_mul(1_000_000),
    }
}

#[async_trait]
impl ImageApi for ImageEntry {
    fn info(&self) -> ImageInfo {
        info(&self.image)
    }

    async fn delete(&self) -> Result<()> {
        library(&self.library)?.delete_image(&self.image.name).await
    }

    async fn promote(&self, caller: Caller) -> Result<JobPath> {
        library(&self.library)?.promote(caller, &self.image.name).await
    }

    async fn tag(&self, name: String) -> Result<OwnedObjectPath> {
        library(&self.library)?.tag(&self.image.name, &name).await
    }

    async fn export(&self, caller: Caller, file: String, options: ExportOptions) -> Result<JobPath> {
        library(&self.library)?
            .export_image(caller, &self.image.name, file, options)
            .await
    }

    async fn publish(&self, caller: Caller, directory: String, options: ExportOptions) -> Result<JobPath> {
        library(&self.library)?
            .publish_image(caller, &self.image.name, directory, options)
            .await
    }
}

pub(super) fn library(library: &Weak<Library>) -> Result<std::sync::Arc<Library>> {
    library
        .upgrade()
        .ok_or_else(|| Error::new(ErrorKind::Failed, "The daemon is leaving"))
}
