//! `banger kernel publish`.

use clap::Args;

use crate::client::{Client, done};
use crate::commands::bundle::{PublishArgs, written};
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Write a kernel as a bundle into a directory, and its entry into the catalogue there
///
/// See `banger image publish`; images and kernels may share a directory.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger kernel publish mine /srv/images
  banger kernel publish mine /srv/www/images --base-url https://example.org/images/")]
pub(crate) struct Publish {
    /// A kernel's name or alias
    #[arg(value_name = "KERNEL", add = completion::kernels())]
    kernel: String,
    #[command(flatten)]
    publish: PublishArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Publish {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&[self.kernel], self.progress, async |name, view| {
            let (path, kernel) = client.kernel(name).await?;
            let name = client.kernel_info(&path).await?.name;
            let call = kernel.publish(self.publish.directory()?, self.publish.options());
            let outcome = done(client.run_job(view, call).await?)?;
            Ok(written(&name, "published as", &outcome))
        })
        .await
    }
}
