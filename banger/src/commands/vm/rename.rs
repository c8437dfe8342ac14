//! `banger vm rename`.

use banger_model::VmName;
use clap::Args;

use super::Name;
use crate::client::Client;
use crate::error::Result;
use crate::output;

/// Give a VM another name
///
/// NAME.vm follows at once, the host name inside the guest with its next start.
#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[command(flatten)]
    old: Name,
    /// The new name: 1 to 63 of a-z, 0-9 and '-'
    #[arg(value_name = "NEW")]
    new: VmName,
}

impl Rename {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let vm = client.vm(&self.old.name).await?;
        let before = client.vm_info(&vm).await?;
        vm.proxy.rename(self.new.to_string()).await?;
        output::line(&format!("{}: now {}", output::plain(&before.name), self.new))
    }
}
