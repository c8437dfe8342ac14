//! `banger image publish`.

use clap::Args;

use crate::client::{Client, done};
use crate::commands::bundle::{PublishArgs, written};
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Write an image as a bundle into a directory, and its entry into the catalogue there
///
/// The directory can be served by any web server, or copied. Who puts its `catalog.toml` into
/// ~/.config/banger/catalog.d pulls the image by its name; size and digest are in the entry.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger image publish mine /srv/images
  banger image publish mine /srv/www/images --base-url https://example.org/images/")]
pub(crate) struct Publish {
    /// An image's name, or its reference
    #[arg(value_name = "IMAGE", add = completion::images())]
    image: String,
    #[command(flatten)]
    publish: PublishArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Publish {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&[self.image], self.progress, async |name, view| {
            let (path, image) = client.image(name).await?;
            let name = client.image_info(&path).await?.name;
            let call = image.publish(self.publish.directory()?, self.publish.options());
            let outcome = done(client.run_job(view, call).await?)?;
            Ok(written(&name, "published as", &outcome))
        })
        .await
    }
}
