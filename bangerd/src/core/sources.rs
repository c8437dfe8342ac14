//! Where VMs come from: images and kernels by name, as files.

use std::path::{Path, PathBuf};

use banger_bus::{Error, ErrorKind};
use banger_image::image::{self, Image, ImageKernel};
use banger_image::kernel::{self, Kernel};
use banger_image::oci::Reference;
use banger_model::{Dirs, ImageConfig, ImageName, KernelName};

use super::error;

/// The catalogue's name of the kernel that is used where nobody chose one.
pub(crate) const DEFAULT_KERNEL: &str = "debian-6.1";

/// What an image is to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageFiles {
    pub name: ImageName,
    /// A raw ext4 file system.
    pub rootfs: PathBuf,
    pub rootfs_bytes: u64,
    /// The kernel that it asks for: a name or an alias.
    pub kernel: Option<KernelName>,
    /// What its author says about the processes in it.
    pub config: ImageConfig,
}

/// What a kernel is to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelFiles {
    pub name: KernelName,
    pub vmlinux: PathBuf,
    /// The content of its `lib/modules/<version>`.
    pub modules: Option<PathBuf>,
}

/// The stores of images and kernels. All calls block.
pub(crate) trait Sources: Send + Sync + 'static {
    /// An image by its name, or by another form of the reference that is its name.
    ///
    /// # Errors
    /// `NoSuchImage`, and what is wrong with it.
    fn image(&self, name: &ImageName) -> Result<ImageFiles, Error>;

    /// A kernel by its name or alias.
    ///
    /// # Errors
    /// `NoSuchKernel`, and what is wrong with it.
    fn kernel(&self, name: &KernelName) -> Result<KernelFiles, Error>;

    /// The kernel for images that ask for none.
    ///
    /// # Errors
    /// `NoSuchKernel` when there is none at all.
    fn default_kernel(&self) -> Result<KernelFiles, Error>;
}

/// The owner's stores on the disk.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    images: PathBuf,
    kernels: PathBuf,
}

impl Stores {
    pub(crate) fn new(dirs: &Dirs) -> Self {
        Self {
            images: dirs.images(),
            kernels: dirs.kernels(),
        }
    }
}

/// The image of a store that a name means: the one that is called so, else the one whose name is
/// the short form of the same reference, as `alpine:latest` is of `docker.io/library/alpine`.
///
/// # Errors
/// When there is none, or it is damaged.
pub(crate) fn find_image(images: &Path, name: &ImageName) -> banger_image::Result<Image> {
    match (image::load(images, name), name.as_str().parse::<Reference>()) {
        (Err(none @ banger_image::Error::NoSuchImage(_)), Ok(reference)) => {
            match image::load(images, &reference.familiar()) {
                Err(banger_image::Error::NoSuchImage(_)) => Err(none),
                found => found,
            }
        }
        (found, _) => found,
    }
}

impl Sources for Stores {
    fn image(&self, name: &ImageName) -> Result<ImageFiles, Error> {
        let image = find_image(&self.images, name).map_err(|e| error::image(&e))?;
        let kernel = match image.kernel {
            ImageKernel::Reference(kernel) => Some(kernel),
            // The daemon imports such a kernel when it registers the image.
            ImageKernel::Files { .. } => None,
        };
        let rootfs_bytes = image
            .rootfs
            .metadata()
            .map_err(|e| error::io("read the image", &image.rootfs, &e))?
            .len();
        Ok(ImageFiles {
            name: image.name,
            rootfs: image.rootfs,
            rootfs_bytes,
            kernel,
            config: image.config,
        })
    }

    fn kernel(&self, name: &KernelName) -> Result<KernelFiles, Error> {
        kernel::find(&self.kernels, name)
            .map(KernelFiles::from)
            .map_err(|e| error::image(&e))
    }

    fn default_kernel(&self) -> Result<KernelFiles, Error> {
        let kernels = kernel::list(&self.kernels).map_err(|e| error::image(&e))?;
        let newest = |a: &&Kernel, b: &&Kernel| a.created.cmp(&b.created);
        let default = kernels
            .iter()
            .filter(|kernel| kernel.aliases.iter().any(|alias| alias == DEFAULT_KERNEL))
            .max_by(newest)
            .or(kernels.iter().max_by(newest))
            .cloned();
        default.map(KernelFiles::from).ok_or_else(|| {
            Error::new(ErrorKind::NoSuchKernel, "There is no kernel here")
                .hint(format!("Fetch one: `banger kernel pull {DEFAULT_KERNEL}`."))
        })
    }
}

impl From<Kernel> for KernelFiles {
    fn from(kernel: Kernel) -> Self {
        Self {
            vmlinux: kernel.vmlinux(),
            modules: kernel.modules(),
            name: kernel.name,
        }
    }
}
