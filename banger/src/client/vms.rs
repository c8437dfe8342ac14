//! One VM.

use banger_bus::{DeleteOptions, ErrorKind, JobOutcome, VmInfo, VmProxy};
use zbus::OwnedObjectPath;

use super::Client;
use super::job::done;
use crate::error::{Error, Result};
use crate::output::View;

/// A VM that has been found.
pub(crate) struct Vm {
    pub(crate) path: OwnedObjectPath,
    pub(crate) proxy: VmProxy<'static>,
}

impl Client {
    /// Finds a VM by name, id or prefix.
    pub(crate) async fn vm(&self, name: &str) -> Result<Vm> {
        let path = self.manager().await?.look_up_vm(name.to_owned()).await?;
        self.vm_at(path).await
    }

    pub(crate) async fn vm_at(&self, path: OwnedObjectPath) -> Result<Vm> {
        let proxy = VmProxy::new(self.connection(), path.clone()).await?;
        Ok(Vm { path, proxy })
    }

    /// The VM's state as it is now; `None` when it is gone.
    pub(crate) async fn vm_info(&self, vm: &Vm) -> Result<VmInfo> {
        Ok(VmInfo::from_properties(
            &self.properties(&vm.path, "org.banger.VM").await?,
        )?)
    }

    /// Deletes a VM, running or not. One that is gone already is deleted.
    pub(crate) async fn delete_vm(&self, vm: &Vm, view: View) -> Result<()> {
        let options = DeleteOptions { force: Some(true) };
        let outcome = self.run_job(view, vm.proxy.delete(options)).await.and_then(done);
        match outcome.map(|_: JobOutcome| ()) {
            Err(Error::Bus(e)) if e.kind == ErrorKind::NoSuchVm => Ok(()),
            other => other,
        }
    }
}
