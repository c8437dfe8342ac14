//! `banger image pull`.

use banger_bus::PullOptions;
use clap::Args;

use crate::client::{Client, done};
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Build or fetch images of the catalogue, and the kernels they ask for
///
/// See `banger image list --available`. Ctrl-C cancels, and leaves nothing half-made.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Names of the catalogue
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// A kernel instead of the catalogue's choice
    #[arg(long, value_name = "KERNEL", add = completion::kernels())]
    kernel_ref: Option<String>,
    /// Again, although it is there
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Pull {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let manager = client.manager().await?;
        let options = PullOptions {
            force: Some(self.force),
            kernel: self.kernel_ref,
            ..PullOptions::default()
        };
        each(&self.names, self.progress, async |name, view| {
            let call = manager.pull_image(name.to_owned(), options.clone());
            done(client.run_job(view, call).await?)?;
            Ok(format!("{name}: pulled"))
        })
        .await
    }
}
