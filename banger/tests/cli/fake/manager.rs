//! The manager: names say what happens.

use async_trait::async_trait;
use banger_bus::api::{Caller, JobPath, ManagerApi};
use banger_bus::{
    CreateOptions, Error, ErrorKind, ImportKernelOptions, PruneOptions, PullOptions, RegisterOptions, Result,
    path,
};
use zbus::OwnedObjectPath;

use super::Fake;
use super::image::not_here;
use super::job::Plan;
use super::vm::vm_id;

#[async_trait]
impl ManagerApi for Fake {
    fn version(&self) -> String {
        "0.0.1".to_owned()
    }

    fn commit(&self) -> String {
        "abc".to_owned()
    }

    fn mode(&self) -> String {
        "user".to_owned()
    }

    async fn create_vm(&self, caller: Caller, name: String, options: CreateOptions) -> Result<JobPath> {
        self.called(format!(
            "create {name} start={:?} vcpus={:?}",
            options.start, options.vcpus
        ));
        let plan = match name.as_str() {
            "taken" => {
                return Err(Error::new(ErrorKind::VmExists, "There is a VM \"taken\" already")
                    .hint("Choose another name"));
            }
            "slow" => Plan::UntilCancelled,
            "stuck" => Plan::Never,
            "boot-fails" => Plan::Fail(
                Error::new(
                    ErrorKind::BootFailed,
                    "The guest of \"boot-fails\" never became ready",
                ),
                Some(path::vm("boot-fails")),
            ),
            "no-space" => Plan::Fail(Error::new(ErrorKind::NoSpace, "No space").hint("Make some"), None),
            _ => Plan::Done(path::vm("a")),
        };
        self.job(&caller, "create", plan).await
    }

    async fn look_up_vm(&self, name: String) -> Result<OwnedObjectPath> {
        match name.as_str() {
            "a" | "b" | "boot-fails" => Ok(path::vm(&name)),
            id if id == vm_id("b") => Ok(path::vm("b")),
            id if id == vm_id("boot-fails") => Ok(path::vm("boot-fails")),
            _ => Err(
                Error::new(ErrorKind::NoSuchVm, format!("No VM is called {name:?}"))
                    .hint("`banger vm list -a` shows all"),
            ),
        }
    }

    async fn pull_image(&self, caller: Caller, name: String, options: PullOptions) -> Result<JobPath> {
        self.called(format!("pull {name} force={:?}", options.force));
        self.job(&caller, "pull-image", Plan::Done(path::image(&name)))
            .await
    }

    async fn register_image(
        &self,
        caller: Caller,
        name: String,
        rootfs: String,
        options: RegisterOptions,
    ) -> Result<JobPath> {
        self.called(format!("register {name} {rootfs} {:?}", options.kernel_file));
        self.job(&caller, "register", Plan::Done(path::image(&name)))
            .await
    }

    async fn look_up_image(&self, name: String) -> Result<OwnedObjectPath> {
        Ok(path::image(&name))
    }

    async fn prune_images(&self, _: Caller, _: PruneOptions) -> Result<JobPath> {
        not_here()
    }

    async fn pull_kernel(&self, caller: Caller, name: String, _: PullOptions) -> Result<JobPath> {
        self.job(&caller, "pull-kernel", Plan::Done(path::kernel(&name)))
            .await
    }

    async fn import_kernel(
        &self,
        caller: Caller,
        name: String,
        file: String,
        _: ImportKernelOptions,
    ) -> Result<JobPath> {
        self.called(format!("import {name} {file}"));
        self.job(&caller, "import-kernel", Plan::Done(path::kernel(&name)))
            .await
    }

    async fn look_up_kernel(&self, name: String) -> Result<OwnedObjectPath> {
        Ok(path::kernel(&name))
    }

    async fn list_available(&self, kind: String) -> Result<Vec<(String, String)>> {
        Ok(vec![("debian-minimal".to_owned(), format!("One of the {kind}"))])
    }

    async fn defaults(&self) -> Result<Vec<(String, String, String)>> {
        let row = |key: &str, value: &str| (key.to_owned(), value.to_owned(), "built in".to_owned());
        Ok(vec![
            row("vcpu", "4"),
            row("memory", "8G"),
            row("disk_size", "8G"),
        ])
    }
}
