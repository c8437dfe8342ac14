//! What is missing is fetched or built, each thing once however many wait for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use banger_bus::{Error, ErrorKind, Result};
use banger_image::image::{self, Image, ImageKernel, PullReference};
use banger_image::{Cancel, kernel};
use banger_model::{ImageName, KernelName};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard};

use super::super::error::About;
use super::super::offers;
use super::fetcher::Fetcher;
use super::plan::{Plan, Wish};
use super::tally::{Fetched, Tally};
use super::{Library, parse};
use crate::core::progress::{JobContext, cancelled};
use crate::core::sources::{DEFAULT_KERNEL, find_image};

impl Library {
    /// Makes sure that an image is here, and the kernel that it asks for unless `own_kernel`
    /// says that it will not be used. When somebody pulls it already, waits for him. Returns
    /// the name that it has here.
    ///
    /// # Errors
    /// When it is neither here nor can be had, or pulling fails.
    pub(crate) async fn ensure_image(
        self: &Arc<Self>,
        ctx: &JobContext,
        name: &ImageName,
        own_kernel: bool,
    ) -> Result<ImageName> {
        let wish = Wish::default();
        let image = match find_image(&self.dirs.images(), name) {
            Ok(image) => image,
            Err(_) => {
                let plan = Plan::new(&self.dirs, name.as_str(), &wish)?;
                self.image_pulled(ctx, name.as_str(), &plan, &wish).await?.0
            }
        };
        if let ImageKernel::Reference(kernel) = &image.kernel
            && !own_kernel
        {
            self.ensure_kernel(ctx, kernel).await?;
        }
        Ok(image.name)
    }

    /// Makes sure that a kernel is here, by its name or alias.
    ///
    /// # Errors
    /// When it is neither here nor in the catalogue, or pulling fails.
    pub(crate) async fn ensure_kernel(self: &Arc<Self>, ctx: &JobContext, name: &KernelName) -> Result<()> {
        self.kernel_pulled(ctx, name, false).await.map(drop)
    }

    /// The kernel that goes with an image that was just pulled.
    pub(super) async fn kernel_for(
        self: &Arc<Self>,
        ctx: &JobContext,
        image: &Image,
        plan: &Plan,
        wish: &Wish,
    ) -> Result<()> {
        let ImageKernel::Reference(kernel) = &image.kernel else {
            return Ok(());
        };
        if wish.offline && kernel::find(&self.dirs.kernels(), kernel).is_err() {
            return Err(Error::new(
                ErrorKind::NoSuchKernel,
                format!(
                    "The kernel {kernel} of {} is not here, and only the network has it",
                    image.name
                ),
            )
            .hint(format!("Fetch it: `banger kernel pull {kernel}`.")));
        }
        // The kernel that many images share is not what somebody wants anew for one of them.
        let force = wish.force && matches!(plan, Plan::Entry(_));
        self.kernel_pulled(ctx, kernel, force).await.map(drop)
    }

    /// The image, and what was fetched for it.
    pub(super) async fn image_pulled(
        self: &Arc<Self>,
        ctx: &JobContext,
        asked: &str,
        plan: &Plan,
        wish: &Wish,
    ) -> Result<(Image, Fetched)> {
        let images = self.dirs.images();
        let here = || image::load(&images, plan.name());
        let satisfied = plan.is_satisfied() && !wish.force;
        if satisfied && let Ok(image) = here() {
            return Ok((image, Fetched::default()));
        }
        let (_turn, waited) = self.turn(ctx, &format!("image {}", plan.name())).await?;
        if let Ok(image) = here() {
            if satisfied || waited {
                return Ok((image, Fetched::default()));
            }
            if !wish.force {
                plan.may_replace(&image)?;
            }
        }
        let _filling = self.filling(ctx).await?;
        let fetcher = self.fetcher()?.with(wish.insecure, wish.offline);
        let started = Instant::now();
        let (own, kernel, force) = (plan.clone(), wish.kernel.clone(), wish.force);
        let default = parse::<KernelName>(DEFAULT_KERNEL)?;
        let pulled = self
            .working(ctx, move |ctx, cancel| {
                let tally = Tally::new(ctx);
                let kernel = kernel.as_ref();
                let image = pull(&own, &fetcher, (kernel, &default), force, &tally, cancel)?;
                Ok((image, tally.fetched()))
            })
            .await?;
        let (image, fetched) = pulled.map_err(|error| plan.error(asked, &error))?;
        log(&image, asked, fetched.bytes, started);
        Ok((image, fetched))
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
        let _filling = self.filling(ctx).await?;
        let (fetcher, name) = (self.fetcher()?, name.clone());
        let kernel = self
            .blocking(ctx, About::Kernel, move |ctx, cancel| {
                let catalog = offers::read(&fetcher.dirs)?;
                let pull = kernel::Pull {
                    kernels: &kernels,
                    cache: &fetcher.dirs.cache,
                    entry: catalog.kernel(&name)?,
                    mirrors: &fetcher.mirrors,
                    registry: fetcher.registry(),
                    unpacker: &fetcher.unpacker,
                };
                kernel::pull(&pull, ctx, cancel)
            })
            .await?;
        Ok(kernel.name)
    }

    pub(super) async fn turn(&self, ctx: &JobContext, thing: &str) -> Result<(OwnedMutexGuard<()>, bool)> {
        tokio::select! {
            turn = self.turns.take(thing, || waiting(ctx)) => Ok(turn),
            () = ctx.cancelled() => Err(cancelled()),
        }
    }

    /// What is in the cache stays there meanwhile.
    async fn filling(&self, ctx: &JobContext) -> Result<OwnedRwLockReadGuard<()>> {
        tokio::select! {
            guard = self.cache.clone().read_owned() => Ok(guard),
            () = ctx.cancelled() => Err(cancelled()),
        }
    }
}

pub(super) fn waiting(ctx: &JobContext) {
    ctx.stage("Waiting for another job that pulls the same");
}

/// `kernels` are the one that was wished, and the one for images that name none.
fn pull(
    plan: &Plan,
    fetcher: &Fetcher,
    kernels: (Option<&KernelName>, &KernelName),
    force: bool,
    progress: &Tally<'_>,
    cancel: &Cancel,
) -> banger_image::Result<Image> {
    let images = fetcher.dirs.images();
    let (wished, default) = kernels;
    match plan {
        Plan::Entry(entry) => {
            let pull = image::Pull {
                images: &images,
                entry,
                kernel: wished,
                mirrors: &fetcher.mirrors,
                registry: fetcher.registry(),
                unpacker: &fetcher.unpacker,
                force,
            };
            image::pull(&pull, progress, cancel)
        }
        Plan::Reference(reference, name) => {
            let pull = PullReference {
                images: &images,
                reference,
                name,
                kernel: wished.unwrap_or(default),
                registry: fetcher.registry(),
                unpacker: &fetcher.unpacker,
                force,
            };
            image::pull_reference(&pull, progress, cancel)
        }
    }
}

fn log(image: &Image, asked: &str, fetched: u64, started: Instant) {
    let digest = image.origin.digest().map(tracing::field::display);
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        reference = asked,
        image = %image.name,
        digest,
        fetched,
        content = image.content,
        milliseconds,
        "Image pulled"
    );
}
