//! `banger vm kill`.

use clap::Args;

use super::Names;
use crate::client::{Client, done};
use crate::commands::each;
use crate::error::Result;
use crate::output::ProgressArgs;

/// End VMs at once, as if their power was cut
///
/// What a guest has not written to its disk is lost.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Kill {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&self.names.names, self.progress, async |name, view| {
            let vm = client.vm(name).await?;
            let call = vm.proxy.kill();
            done(client.run_job(view, call).await?)?;
            Ok(format!("{name}: killed"))
        })
        .await
    }
}
