//! What the owner has already: his files as images and kernels.

use std::path::Path;
use std::sync::Arc;

use banger_bus::api::{Caller, JobPath};
use banger_bus::{ImportKernelOptions, RegisterOptions, Result, path};
use banger_image::image::{self, ImageKernel, Register};
use banger_image::kernel::{self, Import, Kernel};
use banger_model::{ImageName, KernelName};

use super::super::error::About;
use super::{Library, absolute, done, invalid, name_for, parse, waiting};
use crate::core::progress::JobContext;
use crate::core::sources::DEFAULT_KERNEL;
use crate::jobs::no_object;

impl Library {
    /// Lists a file of the owner's as an image.
    pub(crate) async fn register(
        self: &Arc<Self>,
        caller: Caller,
        name: &str,
        rootfs: String,
        options: RegisterOptions,
    ) -> Result<JobPath> {
        let name = name_for(name)?;
        absolute(&rootfs)?;
        for path in [&options.kernel_file, &options.modules].into_iter().flatten() {
            absolute(path)?;
        }
        match (&options.kernel, &options.kernel_file, &options.modules) {
            (Some(_), Some(_), _) => {
                return Err(invalid(
                    "A kernel's name and a kernel's file: give one".to_owned(),
                ));
            }
            (_, None, Some(_)) => return Err(invalid("Modules without a kernel's file".to_owned())),
            _ => {}
        }
        let reference = options.kernel.as_deref().map(parse::<KernelName>).transpose()?;
        let library = self.clone();
        self.jobs
            .start(
                "register-image",
                caller,
                path::image(name.as_str()),
                |ctx| async move {
                    library
                        .registered(&ctx, &name, rootfs, reference, options)
                        .await?;
                    Ok(done(path::image(name.as_str())))
                },
            )
            .await
    }

    /// Copies a kernel into the store.
    pub(crate) async fn import_kernel(
        self: &Arc<Self>,
        caller: Caller,
        name: &str,
        file: String,
        options: ImportKernelOptions,
    ) -> Result<JobPath> {
        let name = match name {
            "" => None,
            name => Some(parse::<KernelName>(name)?),
        };
        absolute(&file)?;
        for path in [&options.modules, &options.config].into_iter().flatten() {
            absolute(path)?;
        }
        let library = self.clone();
        self.jobs
            .start("import-kernel", caller, no_object(), |ctx| async move {
                let kernel = library
                    .imported(&ctx, name, file, options.modules, options.config)
                    .await?;
                Ok(done(path::kernel(kernel.name.as_str())))
            })
            .await
    }

    /// Copies a registered image into the store.
    pub(crate) async fn promote(self: &Arc<Self>, caller: Caller, name: &ImageName) -> Result<JobPath> {
        let (library, name) = (self.clone(), name.clone());
        self.jobs
            .start(
                "promote-image",
                caller,
                path::image(name.as_str()),
                |ctx| async move {
                    let _turn = library
                        .turns
                        .take(&format!("image {name}"), || waiting(&ctx))
                        .await;
                    let (images, wanted) = (library.dirs.images(), name.clone());
                    library
                        .blocking(&ctx, About::Image, move |ctx, cancel| {
                            image::promote(&images, &wanted, ctx, cancel)
                        })
                        .await?;
                    Ok(done(path::image(name.as_str())))
                },
            )
            .await
    }

    async fn registered(
        self: &Arc<Self>,
        ctx: &JobContext,
        name: &ImageName,
        rootfs: String,
        reference: Option<KernelName>,
        options: RegisterOptions,
    ) -> Result<()> {
        let imported = match options.kernel_file {
            Some(file) => {
                // What an image's name has and a kernel's has not.
                let kernel = parse::<KernelName>(&name.as_str().replace([':', '/', '@'], "-"))?;
                Some(
                    self.imported(ctx, Some(kernel), file, options.modules, None)
                        .await?
                        .name,
                )
            }
            None => None,
        };
        let kernel = match imported.clone().or(reference) {
            Some(kernel) => kernel,
            None => parse(DEFAULT_KERNEL)?,
        };
        let (images, wanted) = (self.dirs.images(), name.clone());
        let registered = self
            .blocking(ctx, About::Image, move |_, _| {
                image::register(&Register {
                    images: &images,
                    name: wanted,
                    rootfs: rootfs.as_ref(),
                    kernel: ImageKernel::Reference(kernel),
                })
            })
            .await;
        if registered.is_err()
            && let Some(kernel) = imported
        {
            let kernels = self.dirs.kernels();
            // The first error is the one that counts; what stays is a kernel that can be deleted.
            let _ = self
                .blocking(&JobContext::silent(), About::Kernel, move |_, _| {
                    kernel::remove(&kernels, &kernel)
                })
                .await;
        }
        registered.map(drop)
    }

    async fn imported(
        self: &Arc<Self>,
        ctx: &JobContext,
        name: Option<KernelName>,
        file: String,
        modules: Option<String>,
        config: Option<String>,
    ) -> Result<Kernel> {
        ctx.stage("Importing the kernel");
        let kernels = self.dirs.kernels();
        self.blocking(ctx, About::Kernel, move |_, cancel| {
            kernel::import(
                &Import {
                    kernels: &kernels,
                    name: name.as_ref(),
                    kernel: file.as_ref(),
                    modules: modules.as_deref().map(Path::new),
                    config: config.as_deref().map(Path::new),
                },
                cancel,
            )
        })
        .await
    }
}
