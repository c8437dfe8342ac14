//! What is missing is fetched or built, each thing once however many wait for it.

use std::path::Path;
use std::sync::Arc;

use banger_bus::Result;
use banger_image::image::{self, ImageKernel};
use banger_image::oci::{self, Registry, RetryPolicy};
use banger_image::unpack::Unpacker;
use banger_image::{Mirrors, kernel};
use banger_model::{Dirs, ImageName, KernelName};
use tokio::sync::OwnedMutexGuard;

use super::super::error::{About, convert};
use super::super::offers;
use super::Library;
use crate::core::progress::{JobContext, cancelled};

/// Where Debian's security archive is, beside its main one.
const SECURITY: &str = "-security";

impl Library {
    /// Makes sure that an image is here, and the kernel that it asks for unless `own_kernel`
    /// says that it will not be used. When somebody pulls it already, waits for him.
    ///
    /// # Errors
    /// When it is neither here nor in the catalogue, or pulling fails.
    pub(crate) async fn ensure_image(
        self: &Arc<Self>,
        ctx: &JobContext,
        name: &ImageName,
        own_kernel: bool,
    ) -> Result<()> {
        self.image_pulled(ctx, name, None, false).await?;
        match self.kernel_of(name)? {
            Some(kernel) if !own_kernel => self.ensure_kernel(ctx, &kernel).await,
            _ => Ok(()),
        }
    }

    /// Makes sure that a kernel is here, by its name or alias.
    ///
    /// # Errors
    /// When it is neither here nor in the catalogue, or pulling fails.
    pub(crate) async fn ensure_kernel(self: &Arc<Self>, ctx: &JobContext, name: &KernelName) -> Result<()> {
        self.kernel_pulled(ctx, name, false).await.map(drop)
    }

    /// The kernel that an image asks for.
    pub(super) fn kernel_of(&self, name: &ImageName) -> Result<Option<KernelName>> {
        let image = image::load(&self.dirs.images(), name).map_err(|error| convert(&error, About::Image))?;
        Ok(match image.kernel {
            ImageKernel::Reference(kernel) => Some(kernel),
            ImageKernel::Files { .. } => None,
        })
    }

    pub(super) async fn image_pulled(
        self: &Arc<Self>,
        ctx: &JobContext,
        name: &ImageName,
        kernel: Option<&KernelName>,
        force: bool,
    ) -> Result<()> {
        let images = self.dirs.images();
        if !force && image::load(&images, name).is_ok() {
            return Ok(());
        }
        let (_turn, waited) = self.turn(ctx, &format!("image {name}")).await?;
        if (!force || waited) && image::load(&images, name).is_ok() {
            return Ok(());
        }
        let dirs = self.dirs.clone();
        let (mirrors, name, kernel) = (self.mirrors()?, name.clone(), kernel.cloned());
        self.blocking(ctx, About::Image, move |ctx, cancel| {
            let catalog = offers::read(&dirs)?;
            let pull = image::Pull {
                images: &images,
                entry: catalog.image(&name)?,
                kernel: kernel.as_ref(),
                mirrors: &mirrors,
                registry: registry(&dirs),
                unpacker: &Unpacker::this_program(),
            };
            image::pull(&pull, ctx, cancel)
        })
        .await
        .map(drop)
    }

    pub(super) async fn kernel_pulled(
        self: &Arc<Self>,
        ctx: &JobContext,
        name: &KernelName,
        force: bool,
    ) -> Result<KernelName> {
        let kernels = self.dirs.kernels();
        let here = |kernels: &Path| kernel::find(kernels, name).ok().map(|kernel| kernel.name);
        if let Some(here) = here(&kernels).filter(|_| !force) {
            return Ok(here);
        }
        let (_turn, waited) = self.turn(ctx, &format!("kernel {name}")).await?;
        if let Some(here) = here(&kernels).filter(|_| !force || waited) {
            return Ok(here);
        }
        let dirs = self.dirs.clone();
        let (mirrors, name) = (self.mirrors()?, name.clone());
        let kernel = self
            .blocking(ctx, About::Kernel, move |ctx, cancel| {
                let catalog = offers::read(&dirs)?;
                let pull = kernel::Pull {
                    kernels: &kernels,
                    cache: &dirs.cache,
                    entry: catalog.kernel(&name)?,
                    mirrors: &mirrors,
                    registry: registry(&dirs),
                    unpacker: &Unpacker::this_program(),
                };
                kernel::pull(&pull, ctx, cancel)
            })
            .await?;
        Ok(kernel.name)
    }

    async fn turn(&self, ctx: &JobContext, thing: &str) -> Result<(OwnedMutexGuard<()>, bool)> {
        tokio::select! {
            turn = self.turns.take(thing, || waiting(ctx)) => Ok(turn),
            () = ctx.cancelled() => Err(cancelled()),
        }
    }

    fn mirrors(&self) -> Result<Mirrors> {
        let config = self.config.read()?;
        Ok(config.debian_mirror.map_or_else(Mirrors::default, |url| {
            let debian = url.as_str().trim_end_matches('/').to_owned();
            Mirrors {
                security: format!("{debian}{SECURITY}"),
                debian,
            }
        }))
    }
}

fn registry(dirs: &Dirs) -> Registry<'_> {
    Registry {
        cache: &dirs.cache,
        cache_bytes: oci::cache::DEFAULT_BYTES,
        insecure: false,
        offline: false,
        retry: RetryPolicy::default(),
    }
}

pub(super) fn waiting(ctx: &JobContext) {
    ctx.stage("Waiting for another job that pulls the same");
}
