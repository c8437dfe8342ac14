//! `banger vm pause`.

use clap::Args;

use super::Names;
use crate::client::Client;
use crate::commands::each;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Halt the virtual CPUs of VMs; their memory stays
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Pause {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&self.names.names, self.progress, async |name, _view| {
            client.vm(name).await?.proxy.pause().await?;
            Ok(format!("{name}: paused"))
        })
        .await
    }
}
