//! `banger vm start`.

use banger_bus::StartOptions;
use clap::Args;

use super::Names;
use crate::client::{Client, done};
use crate::commands::each;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Start VMs, and wait until they are ready
#[derive(Debug, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    names: Names,
    /// Seconds that a guest has to announce itself [default: 120, without KVM 600]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Start {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&self.names.names, self.progress, async |name, view| {
            let vm = client.vm(name).await?;
            let options = StartOptions {
                timeout: self.timeout,
            };
            let call = vm.proxy.start(options);
            done(client.run_job(view, call).await?)?;
            Ok(format!("{name}: running"))
        })
        .await
    }
}
