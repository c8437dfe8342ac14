//! `banger image promote`.

use clap::Args;

use crate::client::{Client, done};
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Copy registered images into the store
#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// Names of registered images
    #[arg(value_name = "NAME", required = true, add = completion::images())]
    names: Vec<String>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Promote {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&self.names, self.progress, async |name, view| {
            let (_, image) = client.image(name).await?;
            done(client.run_job(view, image.promote()).await?)?;
            Ok(format!("{name}: promoted"))
        })
        .await
    }
}
