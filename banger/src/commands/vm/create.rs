//! `banger vm create`.

use clap::Args;

use super::spec::SpecArgs;
use crate::client::{Client, done};
use crate::commands::each;
use crate::error::{Error, Result};
use crate::output::ProgressArgs;

/// Make VMs, start them, and wait until they are ready
///
/// Whatever is missing is pulled first: the image and its kernel. Ctrl-C cancels, and leaves
/// nothing behind. Prints the name of each VM.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Names of the new VMs: 1 to 63 of a-z, 0-9 and '-'; banger finds one when there is none
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only make them
    #[arg(long)]
    no_start: bool,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Create {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let manager = client.manager().await?;
        let options = self.spec.options(!self.no_start);
        let unnamed = [String::new()];
        let names = if self.names.is_empty() {
            &unnamed[..]
        } else {
            &self.names
        };
        each(names, self.progress, async |name, view| {
            let call = manager.create_vm(name.to_owned(), options.clone());
            let outcome = done(client.run_job(view, call).await?)?;
            let path = outcome
                .object
                .ok_or_else(|| Error::Refused("The daemon does not say what it has made".to_owned()))?;
            let vm = client.vm_at(path).await?;
            Ok(client.vm_info(&vm).await?.name)
        })
        .await
    }
}
