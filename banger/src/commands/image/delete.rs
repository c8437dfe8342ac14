//! `banger image delete`.

use clap::Args;

use crate::client::Client;
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Delete images; those that a VM uses stay
///
/// Files of the store are removed; a registered file of yours is only forgotten.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Names of images
    #[arg(value_name = "NAME", required = true, add = completion::images())]
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
