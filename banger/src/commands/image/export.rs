//! `banger image export`.

use clap::Args;

use crate::client::{Client, done};
use crate::commands::bundle::{ExportArgs, written};
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Write an image as a bundle: one file that holds everything about it
///
/// A bundle is a tar archive, compressed with zstd, of `manifest.json` and `rootfs.ext4`.
/// `banger image publish` writes one with its entry for a catalogue.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger image export alpine:3.20 --bundle          writes alpine-3.20.tar.zst
  banger image export mine -o /srv/mine.tar.zst -f  replaces that file")]
pub(crate) struct Export {
    /// An image's name, or its reference
    #[arg(value_name = "IMAGE", add = completion::images())]
    image: String,
    /// As a bundle, which is the default
    #[arg(long)]
    bundle: bool,
    #[command(flatten)]
    export: ExportArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Export {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&[self.image], self.progress, async |name, view| {
            let (path, image) = client.image(name).await?;
            let name = client.image_info(&path).await?.name;
            let call = image.export(self.export.file(&name)?, self.export.options());
            let outcome = done(client.run_job(view, call).await?)?;
            Ok(written(&name, "exported to", &outcome))
        })
        .await
    }
}
