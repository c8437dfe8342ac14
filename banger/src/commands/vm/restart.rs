//! `banger vm restart`.

use banger_bus::StopOptions;
use clap::Args;

use super::Names;
use crate::client::{Client, done};
use crate::commands::each;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Shut VMs down and start them again
#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    names: Names,
    /// Seconds that a guest has to shut down [default: 30]
    #[arg(long, short, value_name = "SECONDS")]
    timeout: Option<u32>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Restart {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&self.names.names, self.progress, async |name, view| {
            let vm = client.vm(name).await?;
            let options = StopOptions {
                timeout: self.timeout,
            };
            let call = vm.proxy.restart(options);
            done(client.run_job(view, call).await?)?;
            Ok(format!("{name}: running"))
        })
        .await
    }
}
