//! `banger image register`.

use std::path::PathBuf;

use banger_bus::RegisterOptions;
use clap::Args;

use crate::client::{Client, done};
use crate::commands::bundle::{absolute, absolute_option};
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::ProgressArgs;

/// List an ext4 file of yours as an image
///
/// The file stays where it is and is never written to; `banger image promote` copies it into
/// the store.
#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The image's name
    #[arg(
        value_name = "NAME",
        required_unless_present = "name_option",
        conflicts_with = "name_option"
    )]
    name: Option<String>,
    /// The same, as an option
    #[arg(long = "name", value_name = "NAME", id = "name_option", hide = true)]
    name_option: Option<String>,
    /// The root file system: an ext4 image
    #[arg(long, value_name = "FILE")]
    rootfs: PathBuf,
    /// A kernel of `banger kernel list` [default: the default kernel]
    #[arg(long, value_name = "KERNEL", conflicts_with_all = ["kernel", "modules"], add = completion::kernels())]
    kernel_ref: Option<String>,
    /// A kernel file to import for it: a vmlinux or a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// That kernel's modules, a directory as /lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Register {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let manager = client.manager().await?;
        let rootfs = absolute(&self.rootfs)?;
        let options = RegisterOptions {
            kernel: self.kernel_ref,
            kernel_file: absolute_option(self.kernel.as_deref())?,
            modules: absolute_option(self.modules.as_deref())?,
        };
        // One of the two is there: clap holds to it.
        let name = self.name.or(self.name_option).unwrap_or_default();
        each(&[name], self.progress, async |name, view| {
            let call = manager.register_image(name.to_owned(), rootfs.clone(), options.clone());
            done(client.run_job(view, call).await?)?;
            Ok(format!("{name}: registered"))
        })
        .await
    }
}
