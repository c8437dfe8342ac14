//! `banger kernel rm`.

use clap::Args;

use crate::client::Client;
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Delete kernels; those that a VM or an image uses stay
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Names of kernels
    #[arg(value_name = "NAME", required = true, add = completion::kernels())]
    names: Vec<String>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Rm {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&self.names, self.progress, async |name, _view| {
            let (_, kernel) = client.kernel(name).await?;
            kernel.delete().await?;
            Ok(format!("{name}: deleted"))
        })
        .await
    }
}
