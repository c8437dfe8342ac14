//! `banger kernel pull`.

use banger_bus::PullOptions;
use clap::Args;

use crate::client::{Client, done};
use crate::commands::each;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Fetch kernels of the catalogue
///
/// See `banger kernel list --available`. Ctrl-C cancels, and leaves nothing half-made.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Names of the catalogue
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
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
            ..PullOptions::default()
        };
        each(&self.names, self.progress, async |name, view| {
            let call = manager.pull_kernel(name.to_owned(), options.clone());
            done(client.run_job(view, call).await?)?;
            Ok(format!("{name}: pulled"))
        })
        .await
    }
}
