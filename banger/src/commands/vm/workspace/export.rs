//! `banger vm workspace export`.

use std::path::{Path, PathBuf};

use banger_bus::WorkspaceExportOptions;
use clap::{Args, ValueHint};

use super::absolute;
use crate::client::{Client, done};
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::{Finished, ProgressArgs};

/// Bring out what was made in a VM's workspace
///
/// Without a target the guest's branches come back as refs/banger/VM/BRANCH of the repository.
/// Its work tree, index, configuration and hooks are left alone, and a branch that is checked out
/// too. What the guest sends is checked before it is taken.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  banger vm workspace export a && git log banger/a/main
  banger vm workspace export a --to topic
  banger vm workspace export a --patch changes.diff")]
pub(crate) struct Export {
    /// A VM's name, id, or unambiguous prefix
    #[arg(value_name = "VM", add = completion::vms())]
    name: String,
    /// Also make or forward this branch of the repository
    #[arg(long, value_name = "BRANCH", conflicts_with_all = ["patch", "dir"])]
    to: Option<String>,
    /// Write what differs, committed or not, as a patch to this new file, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "dir", value_hint = ValueHint::FilePath)]
    patch: Option<PathBuf>,
    /// Write the workspace's files to this new directory, and nothing else
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Also where the guest has rewritten what was brought out before
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Export {
    pub(crate) async fn run(self) -> Result<()> {
        let path = |path: &Option<PathBuf>| path.as_deref().map(Path::new).map(absolute).transpose();
        let options = WorkspaceExportOptions {
            to: self.to.clone(),
            patch: path(&self.patch)?,
            directory: path(&self.dir)?,
            force: self.force.then_some(true),
        };
        let client = Client::connect().await?;
        each(&[self.name], self.progress, async |name, view| {
            let vm = client.vm(name).await?;
            let call = vm.proxy.export_workspace(options.clone());
            let outcome = done(client.run_job(view, call).await?)?;
            let line = match outcome.names.as_slice() {
                [] => format!("{name}: nothing new"),
                names => format!("{name}: {}", names.join(", ")),
            };
            Ok(Finished::from(line).with("names", outcome.names))
        })
        .await
    }
}
