//! Images and kernels for other names and other machines.

use std::path::Path;
use std::sync::Arc;

use banger_bus::api::{Caller, JobPath};
use banger_bus::{ExportOptions, JobOutcome, Result, path};
use banger_image::image::{Exported, Publish};
use banger_image::{image, kernel};
use banger_model::{ImageName, KernelName};
use zbus::OwnedObjectPath;

use super::super::error::About;
use super::{Library, absolute, invalid, name_for};
use crate::core::progress::JobContext;

impl Library {
    /// Lists an image under one more name.
    pub(crate) async fn tag(self: &Arc<Self>, name: &ImageName, new: &str) -> Result<OwnedObjectPath> {
        let new = name_for(new)?;
        // In one order, so that two who tag to and fro do not wait for each other.
        let mut turns = [format!("image {name}"), format!("image {new}")];
        turns.sort_unstable();
        let _first = self.turns.take(&turns[0], || {}).await;
        let _second = match turns[0] == turns[1] {
            true => None,
            false => Some(self.turns.take(&turns[1], || {}).await),
        };
        let (images, name) = (self.dirs.images(), name.clone());
        let tagged = self
            .blocking(&JobContext::silent(), About::Image, move |_, _| {
                image::tag(&images, &name, &new)
            })
            .await?;
        Ok(path::image(tagged.name.as_str()))
    }

    /// Writes an image as a bundle.
    pub(crate) async fn export_image(
        self: &Arc<Self>,
        caller: Caller,
        name: &ImageName,
        file: String,
        options: ExportOptions,
    ) -> Result<JobPath> {
        let force = for_export(&file, &options)?;
        let object = path::image(name.as_str());
        let (library, name) = (self.clone(), name.clone());
        self.jobs
            .start("export-image", caller, object, |ctx| async move {
                let images = library.dirs.images();
                let exported = library.blocking(&ctx, About::Image, move |ctx, cancel| {
                    image::export(&images, &name, Path::new(&file), force, ctx, cancel)
                });
                Ok(outcome(&exported.await?))
            })
            .await
    }

    /// Writes an image as a bundle into a directory, and into the catalogue there.
    pub(crate) async fn publish_image(
        self: &Arc<Self>,
        caller: Caller,
        name: &ImageName,
        directory: String,
        options: ExportOptions,
    ) -> Result<JobPath> {
        absolute(&directory)?;
        let object = path::image(name.as_str());
        let (library, name) = (self.clone(), name.clone());
        self.jobs
            .start("publish-image", caller, object, |ctx| async move {
                let images = library.dirs.images();
                let published = library.blocking(&ctx, About::Image, move |ctx, cancel| {
                    image::publish(&images, &name, &publish(&directory, &options), ctx, cancel)
                });
                Ok(outcome(&published.await?))
            })
            .await
    }

    /// Writes a kernel as a bundle.
    pub(crate) async fn export_kernel(
        self: &Arc<Self>,
        caller: Caller,
        name: &KernelName,
        file: String,
        options: ExportOptions,
    ) -> Result<JobPath> {
        let force = for_export(&file, &options)?;
        let object = path::kernel(name.as_str());
        let (library, name) = (self.clone(), name.clone());
        self.jobs
            .start("export-kernel", caller, object, |ctx| async move {
                let (_turn, _) = library.turn(&ctx, &format!("kernel {name}")).await?;
                let kernels = library.dirs.kernels();
                let exported = library.blocking(&ctx, About::Kernel, move |ctx, cancel| {
                    kernel::export(&kernels, &name, Path::new(&file), force, ctx, cancel)
                });
                Ok(outcome(&exported.await?))
            })
            .await
    }

    /// Writes a kernel as a bundle into a directory, and into the catalogue there.
    pub(crate) async fn publish_kernel(
        self: &Arc<Self>,
        caller: Caller,
        name: &KernelName,
        directory: String,
        options: ExportOptions,
    ) -> Result<JobPath> {
        absolute(&directory)?;
        let object = path::kernel(name.as_str());
        let (library, name) = (self.clone(), name.clone());
        self.jobs
            .start("publish-kernel", caller, object, |ctx| async move {
                let (_turn, _) = library.turn(&ctx, &format!("kernel {name}")).await?;
                let kernels = library.dirs.kernels();
                let published = library.blocking(&ctx, About::Kernel, move |ctx, cancel| {
                    kernel::publish(&kernels, &name, &publish(&directory, &options), ctx, cancel)
                });
                Ok(outcome(&published.await?))
            })
            .await
    }
}

fn for_export(file: &str, options: &ExportOptions) -> Result<bool> {
    absolute(file)?;
    if options.base_url.is_some() || options.description.is_some() {
        return Err(invalid(
            "The options BaseUrl and Description are for Publish".to_owned(),
        ));
    }
    Ok(options.force.unwrap_or(false))
}

fn publish<'a>(directory: &'a str, options: &'a ExportOptions) -> Publish<'a> {
    Publish {
        directory: Path::new(directory),
        base_url: options.base_url.as_deref(),
        description: options.description.as_deref(),
        force: options.force.unwrap_or(false),
    }
}

fn outcome(exported: &Exported) -> JobOutcome {
    JobOutcome {
        names: vec![exported.file.display().to_string()],
        bytes: Some(exported.bytes),
        digest: Some(exported.digest.to_string()),
        ..JobOutcome::done()
    }
}
