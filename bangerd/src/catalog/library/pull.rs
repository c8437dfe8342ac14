//! Pulls as jobs.

use std::sync::Arc;

use banger_bus::api::{Caller, JobPath};
use banger_bus::{JobOutcome, PullOptions, Result, path};
use banger_model::KernelName;

use super::plan::{Plan, Wish};
use super::{Library, done, invalid, parse};
use crate::jobs::no_object;

impl Library {
    /// Pulls an image of the catalogue or of a registry, and the kernel that it asks for.
    pub(crate) async fn pull_image(
        self: &Arc<Self>,
        caller: Caller,
        name: &str,
        options: PullOptions,
    ) -> Result<JobPath> {
        let wish = Wish::new(&options)?;
        let plan = Plan::new(&self.dirs, name, &wish)?;
        let (library, asked) = (self.clone(), name.to_owned());
        self.jobs
            .start(
                "pull-image",
                caller,
                path::image(plan.name().as_str()),
                |ctx| async move {
                    let (image, fetched) = library.image_pulled(&ctx, &asked, &plan, &wish).await?;
                    library.kernel_for(&ctx, &image, &plan, &wish).await?;
                    Ok(JobOutcome {
                        names: fetched.names,
                        bytes: Some(fetched.bytes),
                        ..done(path::image(image.name.as_str()))
                    })
                },
            )
            .await
    }

    /// Pulls a kernel of the catalogue.
    pub(crate) async fn pull_kernel(
        self: &Arc<Self>,
        caller: Caller,
        name: &str,
        options: PullOptions,
    ) -> Result<JobPath> {
        let name = parse::<KernelName>(name)?;
        let PullOptions {
            force,
            kernel: None,
            name: None,
            insecure: None | Some(false),
            offline: None | Some(false),
        } = options
        else {
            return Err(invalid(
                "The options Kernel, Name, Insecure and Offline are for images".to_owned(),
            ));
        };
        let force = force.unwrap_or(false);
        let library = self.clone();
        self.jobs
            .start("pull-kernel", caller, no_object(), |ctx| async move {
                let kernel = library.kernel_pulled(&ctx, &name, force).await?;
                Ok(done(path::kernel(kernel.as_str())))
            })
            .await
    }
}
