//! The store of images: built from recipes, made of the layers of a registry, unpacked from
//! bundles, or registered where they are.
//!
//! An image is a directory `<images>/<name>`, with '+' for each '/' of its name. It has `image.json`,
//! and `rootfs.ext4` when the image is managed. A registered image's files belong to the user and
//! stay where they are.

mod bundle;
mod export;
mod oci;
mod publish;
mod pull;
mod register;
mod tag;
#[cfg(test)]
mod testing;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use banger_model::{ImageConfig, ImageName, KernelName};
use serde::{Deserialize, Serialize};

pub use export::export;
pub use oci::{PullReference, pull_reference};
pub use publish::publish;
pub use pull::{Pull, pull};
pub use register::{Register, promote, register};
pub use tag::tag;

pub use crate::bundle::{Exported, Publish};
use crate::catalog::Recipe;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ext4::Superblock;
use crate::store;

const METADATA: &str = "image.json";
const ROOTFS: &str = "rootfs.ext4";

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub name: ImageName,
    pub kind: Kind,
    /// The root file system. Of a managed image it is set when the image is loaded.
    #[serde(default)]
    pub rootfs: PathBuf,
    pub kernel: ImageKernel,
    /// Bytes of the file system, below which a VM's disk cannot be.
    pub size: u64,
    /// Bytes that are in use in it.
    pub content: u64,
    pub origin: Origin,
    /// What it says about the processes in it.
    #[serde(default)]
    pub config: ImageConfig,
    /// Seconds since 1970.
    pub created: u64,
    /// Where the image's own files are.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// Whose files an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The store's: deleted with the image.
    Managed,
    /// The user's: never touched.
    Registered,
}

/// What the VMs of an image boot unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageKernel {
    /// A kernel of the store, by its name or one of the catalogue.
    Reference(KernelName),
    /// Files of the user. The kernel is an ELF file or a bzImage.
    Files {
        kernel: PathBuf,
        initrd: Option<PathBuf>,
        /// A `lib/modules/<version>`.
        modules: Option<PathBuf>,
    },
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Origin {
    Recipe {
        mirror: String,
        recipe: Recipe,
    },
    Registered {
        rootfs: PathBuf,
    },
    /// A registry's image.
    Oci {
        /// In its full form, as `docker.io/library/alpine:3.20`.
        reference: String,
        /// Of the manifest for this machine's architecture.
        manifest: Digest,
        /// Compressed, as they were fetched; the lowest first.
        layers: Vec<Digest>,
    },
    /// An image that was exported, here or elsewhere.
    Bundle {
        /// Where it was fetched from.
        url: String,
        /// Of the bundle.
        sha256: Digest,
    },
}

impl Origin {
    /// The digest of what was fetched.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Oci { manifest, .. } => Some(*manifest),
            Self::Bundle { sha256, .. } => Some(*sha256),
            Self::Recipe { .. } | Self::Registered { .. } => None,
        }
    }
}

/// All images by their names. A damaged one is left out, with a warning in the log.
///
/// # Errors
/// When the store cannot be read.
pub fn list(images: &Path) -> Result<Vec<Image>> {
    let mut found = Vec::new();
    for name in store::names(images)? {
        let Ok(name) = ImageName::from_file_name(&name) else {
            continue;
        };
        match load(images, &name) {
            Ok(image) => found.push(image),
            Err(error) => tracing::warn!(%name, %error, "Skipping a damaged image"),
        }
    }
    Ok(found)
}

/// One image. Whether a registered one's file is still there shows when it is used.
///
/// # Errors
/// [`Error::NoSuchImage`], [`Error::Damaged`].
pub fn load(images: &Path, name: &ImageName) -> Result<Image> {
    let dir = directory(images, name);
    let image: Option<Image> = store::read_metadata(&dir, METADATA)?;
    let mut image = image.ok_or_else(|| Error::NoSuchImage(name.to_string()))?;
    image.dir = dir;
    let damaged = |reason: &str| Error::Damaged {
        path: directory(images, name),
        reason: reason.to_owned(),
    };
    if image.name != *name {
        return Err(damaged("it has another image's name"));
    }
    if image.kind == Kind::Managed {
        image.rootfs = image.dir.join(ROOTFS);
        let bytes = fs::metadata(&image.rootfs).map_or(0, |found| found.len());
        if bytes < image.size {
            return Err(damaged("its file system is missing or cut off"));
        }
    }
    Ok(image)
}

/// Removes an image; a registered one's files stay. Whether a VM uses it is the caller's to
/// know.
///
/// # Errors
/// [`Error::NoSuchImage`], or when it cannot be removed.
pub fn delete(images: &Path, name: &ImageName) -> Result<()> {
    store::remove(images, &name.file_name())?
        .then_some(())
        .ok_or_else(|| Error::NoSuchImage(name.to_string()))
}

/// Where an image is, or will be.
fn directory(images: &Path, name: &ImageName) -> PathBuf {
    images.join(name.file_name())
}

/// Removes what interrupted builds left. Returns how many.
///
/// # Errors
/// When the store cannot be read.
pub fn sweep(images: &Path) -> Result<usize> {
    store::sweep(images)
}

/// Checks that a file is an ext4 file system that a guest can mount.
///
/// # Errors
/// [`Error::NotAFile`], [`Error::Superblock`].
pub fn check_rootfs(path: &Path) -> Result<Superblock> {
    let found = fs::metadata(path).map_err(Error::io("open", path))?;
    if !found.is_file() {
        return Err(Error::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    Superblock::read(&file).map_err(|source| Error::Superblock {
        path: path.to_owned(),
        source,
    })
}
