//! `banger kernel …`.

pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod publish;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod show;

use banger_bus::{KernelInfo, KernelProxy};
use zbus::OwnedObjectPath;

use crate::client::Client;
use crate::error::Result;

impl Client {
    /// Finds a kernel by its name or an alias.
    async fn kernel(&self, name: &str) -> Result<(OwnedObjectPath, KernelProxy<'static>)> {
        let path = self.manager().await?.look_up_kernel(name.to_owned()).await?;
        let proxy = KernelProxy::new(self.connection(), path.clone()).await?;
        Ok((path, proxy))
    }

    /// What is known of a kernel.
    async fn kernel_info(&self, path: &OwnedObjectPath) -> Result<KernelInfo> {
        Ok(KernelInfo::from_properties(
            &self.properties(path, "org.banger.Kernel").await?,
        )?)
    }
}
