//! `banger image delete`.

use clap::Args;

use crate::client::Client;
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Delete images; those that a VM uses stay
///
/// Files of the store are removed; a registered file of yours is only forgotten. Fetched layers
/// stay for a later pull, until `banger image prune`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger image delete mine
  banger image rm alpine:3.20 docker.io/library/debian:12")]
pub(crate) struct Delete {
    /// Names of images, or their references
    #[arg(value_name = "IMAGE", required = true, add = completion::images())]
    names: Vec<String>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Delete {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&self.names, self.progress, async |name, _view| {
            let (_, image) = client.image(name).await?;
            image.delete().await?;
            Ok(format!("{name}: deleted"))
        })
        .await
    }
}
