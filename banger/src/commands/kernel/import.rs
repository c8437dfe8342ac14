//! `banger kernel import`.

use std::path::PathBuf;

use banger_bus::ImportKernelOptions;
use clap::Args;

use crate::client::{Client, done};
use crate::commands::bundle::{absolute, absolute_option};
use crate::commands::each;
use crate::error::Result;
use crate::output::ProgressArgs;

/// Copy a kernel of yours into the store
///
/// It is refused when a guest could not boot with it, and what a guest may miss is said.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The kernel's new name
    #[arg(value_name = "NAME")]
    name: String,
    /// A vmlinux or a bzImage
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its modules, a directory as /lib/modules/VERSION
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Its configuration, as /boot/config-VERSION
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Import {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let manager = client.manager().await?;
        let file = absolute(&self.file)?;
        let options = ImportKernelOptions {
            modules: absolute_option(self.modules.as_deref())?,
            config: absolute_option(self.config.as_deref())?,
        };
        each(&[self.name], self.progress, async |name, view| {
            let call = manager.import_kernel(name.to_owned(), file.clone(), options.clone());
            done(client.run_job(view, call).await?)?;
            Ok(format!("{name}: imported"))
        })
        .await
    }
}
