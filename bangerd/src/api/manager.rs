//! `org.banger.Manager`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use banger_bus::api::{Caller, JobPath, ManagerApi};
use banger_bus::{
    CreateOptions, ImportKernelOptions, JobOutcome, PruneOptions, PullOptions, RegisterOptions, Result,
    WorkspaceOptions, path,
};
use banger_model::{Config, Dirs};
use zbus::OwnedObjectPath;

use super::services::Services;
use crate::config::default_image;
use crate::core::defaults::{Defaults, Host};
use crate::core::{Core, CreateRequest};
use crate::jobs::no_object;
use crate::workspace;

/// The manager on the bus.
pub(crate) struct Manager {
    services: Arc<Services>,
    core: Arc<Core>,
    dirs: Dirs,
}

impl Manager {
    pub(crate) fn new(services: Arc<Services>, core: Arc<Core>, dirs: Dirs) -> Self {
        Self { services, core, dirs }
    }
}

#[async_trait]
impl ManagerApi for Manager {
    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn commit(&self) -> String {
        env!("BANGER_COMMIT").to_owned()
    }

    fn mode(&self) -> String {
        let mode = if self.core.is_system_mode() {
            "system"
        } else {
            "user"
        };
        mode.to_owned()
    }

    async fn create_vm(&self, caller: Caller, name: String, options: CreateOptions) -> Result<JobPath> {
        let core = self.core.clone();
        let config = self.services.config.read()?;
        self.services.key()?;
        let mut request = request(&name, &options, &config)?;
        let (start, pull) = (options.start.unwrap_or(true), options.pull.unwrap_or(false));
        let library = self.services.library.clone();
        self.services
            .jobs
            .start("create", caller, no_object(), |ctx| async move {
                if pull {
                    let own_kernel = request.kernel.is_some();
                    request.image = library.ensure_image(&ctx, &request.image, own_kernel).await?;
                    if let Some(kernel) = &request.kernel {
                        library.ensure_kernel(&ctx, kernel).await?;
                    }
                }
                let vm = core.create(request, start, None, &ctx).await?;
                Ok(JobOutcome {
                    object: Some(path::vm(&vm.id().to_string())),
                    ..JobOutcome::done()
                })
            })
            .await
    }

    async fn look_up_vm(&self, name: String) -> Result<OwnedObjectPath> {
        let vm = self.core.look_up(&name)?;
        Ok(path::vm(&vm.id().to_string()))
    }

    async fn pull_image(&self, caller: Caller, name: String, options: PullOptions) -> Result<JobPath> {
        self.services.config.read()?;
        self.services.library.pull_image(caller, &name, options).await
    }

    async fn register_image(
        &self,
        caller: Caller,
        name: String,
        rootfs: String,
        options: RegisterOptions,
    ) -> Result<JobPath> {
        self.services
            .library
            .register(caller, &name, rootfs, options)
            .await
    }

    async fn look_up_image(&self, name: String) -> Result<OwnedObjectPath> {
        self.services.library.look_up_image(&name)
    }

    async fn prune_images(&self, caller: Caller, options: PruneOptions) -> Result<JobPath> {
        self.services.library.prune(caller, options).await
    }

    async fn pull_kernel(&self, caller: Caller, name: String, options: PullOptions) -> Result<JobPath> {
        self.services.config.read()?;
        self.services.library.pull_kernel(caller, &name, options).await
    }

    async fn import_kernel(
        &self,
        caller: Caller,
        name: String,
        path: String,
        options: ImportKernelOptions,
    ) -> Result<JobPath> {
        self.services
            .library
            .import_kernel(caller, &name, path, options)
            .await
    }

    async fn look_up_kernel(&self, name: String) -> Result<OwnedObjectPath> {
        self.services.library.look_up_kernel(&name)
    }

    async fn list_available(&self, kind: String) -> Result<Vec<(String, String)>> {
        self.services.library.available(&kind)
    }

    async fn list_workspace(
        &self,
        caller: Caller,
        path: String,
        options: WorkspaceOptions,
        output: OwnedFd,
    ) -> Result<JobPath> {
        let request = workspace::Request::new(path, options)?;
        self.services
            .jobs
            .start("list-workspace", caller, no_object(), |ctx| async move {
                workspace::list(request, output, &ctx).await
            })
            .await
    }

    async fn defaults(&self) -> Result<Vec<(String, String, String)>> {
        Ok(rows(&self.services.config.read()?, &self.dirs))
    }
}

/// The configuration as it is now counts, not as it was when the daemon started.
fn request(name: &str, options: &CreateOptions, config: &Config) -> Result<CreateRequest> {
    let request = CreateRequest::new(name, options, config)?;
    let defaults = &config.vm_defaults;
    Ok(CreateRequest {
        vcpus: request.vcpus.or(defaults.vcpu),
        memory_mib: request
            .memory_mib
            .or(defaults.memory.map(|memory| memory.0.mib())),
        disk_bytes: request
            .disk_bytes
            .or(defaults.disk_size.map(|disk| disk.0.bytes())),
        ..request
    })
}

/// The defaults of a new VM: key, value and source.
pub(crate) fn rows(config: &Config, dirs: &Dirs) -> Vec<(String, String, String)> {
    let (image, source) = default_image(config);
    let (engine, engine_source) = match config.engine {
        Some(engine) => (engine, "engine"),
        None => (banger_model::EngineChoice::Auto, "built in"),
    };
    let mut rows = vec![
        ("image".to_owned(), image.to_string(), source.to_owned()),
        (
            "engine".to_owned(),
            engine.as_str().to_owned(),
            engine_source.to_owned(),
        ),
    ];
    rows.extend(Defaults::new(&config.vm_defaults, Host::of(&dirs.state)).rows());
    rows
}
