//! An image as a bundle.

use std::fs::File;
use std::path::Path;

use banger_model::ImageName;

use super::{Image, ImageKernel, Origin, check_rootfs, load};
use crate::Cancel;
use crate::bundle::{self, Content, Exported, ImageManifest, Manifest};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Writes an image as a bundle: to `file`, or when that is a directory into it under the name
/// that the content has. What exists is replaced when `force`. A kernel of the user's own does
/// not travel with it.
///
/// # Errors
/// [`Error::NoSuchImage`], [`Error::Replaceable`], [`Error::NoSpace`], [`Error::Cancelled`],
/// [`Error::Bundle`] when the file system cannot be read.
pub fn export(
    images: &Path,
    name: &ImageName,
    file: &Path,
    force: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    let source = Source::open(&load(images, name)?)?;
    bundle::export(&source.manifest, source.content(), file, force, progress, cancel)
}

/// What a bundle is made of.
pub(super) struct Source {
    pub(super) manifest: Manifest,
    rootfs: File,
    size: u64,
}

impl Source {
    pub(super) fn open(image: &Image) -> Result<Self> {
        // The user may have changed a registered file since.
        let found = check_rootfs(&image.rootfs)?;
        let rootfs = File::open(&image.rootfs).map_err(Error::io("open", &image.rootfs))?;
        let kernel = match &image.kernel {
            ImageKernel::Reference(kernel) => Some(kernel.clone()),
            ImageKernel::Files { .. } => None,
        };
        let manifest = Manifest::Image(ImageManifest {
            version: ImageManifest::VERSION,
            name: image.name.clone(),
            kernel,
            size: found.size(),
            content: (found.blocks - found.free_blocks) * u64::from(found.block_size),
            config: image.config.clone(),
            created: image.created,
            origin: describe(&image.origin),
        });
        Ok(Self {
            manifest,
            rootfs,
            size: found.size(),
        })
    }

    pub(super) fn content(&self) -> Content<'_> {
        Content::Image {
            rootfs: &self.rootfs,
            size: self.size,
        }
    }
}

/// For strangers: no path of this machine.
fn describe(origin: &Origin) -> String {
    match origin {
        Origin::Recipe { mirror, recipe } => format!("{} from {mirror}", recipe.suite),
        Origin::Registered { .. } => "a file".to_owned(),
        Origin::Oci {
            reference, manifest, ..
        } if reference.contains('@') => format!("{reference} ({manifest})"),
        Origin::Oci {
            reference, manifest, ..
        } => format!("{reference}@{manifest}"),
        Origin::Bundle { url, sha256 } if url.starts_with("file:") => format!("a bundle ({sha256})"),
        Origin::Bundle { url, sha256 } => format!("{url} ({sha256})"),
    }
}
