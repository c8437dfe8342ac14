//! `banger vm resume`.

use clap::Args;

use super::Names;
use crate::client::Client;
use crate::commands::each;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Let paused VMs go on
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Resume {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&self.names.names, self.progress, async |name, _view| {
            client.vm(name).await?.proxy.resume().await?;
            Ok(format!("{name}: running"))
        })
        .await
    }
}
