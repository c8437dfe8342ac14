//! `banger image tag`.

use clap::Args;

use crate::client::Client;
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// List an image under one more name
///
/// Both names share one file; each can be deleted without the other.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger image tag alpine:3.20 base                 a short name
  banger image tag debian-minimal before-upgrade    what a later pull does not replace")]
pub(crate) struct Tag {
    /// An image's name, or its reference
    #[arg(value_name = "IMAGE", add = completion::images())]
    image: String,
    /// The new name
    #[arg(value_name = "NAME", value_parser = super::name)]
    name: String,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Tag {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&[self.name], self.progress, async |name, _view| {
            let (_, image) = client.image(&self.image).await?;
            image.tag(name.to_owned()).await?;
            Ok(format!("{name}: tagged"))
        })
        .await
    }
}
