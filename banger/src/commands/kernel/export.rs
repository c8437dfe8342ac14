//! `banger kernel export`.

use clap::Args;

use crate::client::{Client, done};
use crate::commands::bundle::{ExportArgs, written};
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Write a kernel and its modules as a bundle: one file that holds everything about it
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger kernel export debian-6.1                   writes a file of the kernel's name here
  banger kernel export debian-6.1 -o kernel.tar.zst")]
pub(crate) struct Export {
    /// A kernel's name or alias
    #[arg(value_name = "KERNEL", add = completion::kernels())]
    kernel: String,
    #[command(flatten)]
    export: ExportArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Export {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        each(&[self.kernel], self.progress, async |name, view| {
            let (path, kernel) = client.kernel(name).await?;
            let name = client.kernel_info(&path).await?.name;
            let call = kernel.export(self.export.file(&name)?, self.export.options());
            let outcome = done(client.run_job(view, call).await?)?;
            Ok(written(&name, "exported to", &outcome))
        })
        .await
    }
}
