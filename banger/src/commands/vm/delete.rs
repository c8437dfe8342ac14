//! `banger vm delete`.

use banger_bus::DeleteOptions;
use clap::Args;

use super::Names;
use crate::client::{Client, done};
use crate::commands::each;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Delete VMs and their disks
#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    names: Names,
    /// Also when they run: they are killed first
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Delete {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&self.names.names, self.progress, async |name, view| {
            let vm = client.vm(name).await?;
            let options = DeleteOptions {
                force: Some(self.force),
            };
            let call = vm.proxy.delete(options);
            done(client.run_job(view, call).await?)?;
            Ok(format!("{name}: deleted"))
        })
        .await
    }
}
