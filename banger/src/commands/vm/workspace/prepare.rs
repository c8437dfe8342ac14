//! `banger vm workspace prepare`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::listing::{self, Form};
use super::{Place, WorkspaceArgs, notes, sync, tell};
use crate::client::Client;
use crate::commands::each;
use crate::completion;
use crate::error::Result;
use crate::output::{Progress, ProgressArgs};

/// Bring a repository into a VM that runs, or what has changed of it since
///
/// Only what changed travels. What was changed in the guest is not overwritten: it is listed, and
/// --force overwrites it. The repository is read, and nothing of it is run.
#[derive(Debug, Args)]
pub(crate) struct Prepare {
    /// A VM's name, id, or unambiguous prefix
    #[arg(value_name = "VM", add = completion::vms())]
    name: String,
    /// The repository, or a directory inside it
    #[arg(value_name = "PATH", value_hint = ValueHint::DirPath)]
    path: PathBuf,
    #[command(flatten)]
    workspace: WorkspaceArgs,
    /// Overwrite what was changed in the guest since
    #[arg(long, short)]
    force: bool,
    /// Print the files that would go in, a line each, and their mode; bring nothing
    #[arg(long)]
    dry_run: bool,
    /// End each name of --dry-run with a NUL, and quote nothing
    #[arg(long = "null", short = 'z', requires = "dry_run", conflicts_with = "json")]
    null: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Prepare {
    pub(crate) async fn run(self) -> Result<()> {
        let place = Place::find(&self.path)?;
        let client = Client::connect().await?;
        let options = self.workspace.options(self.force);
        let progress = Progress::new(self.progress);
        if self.dry_run {
            let form = match (self.progress.json, self.null) {
                (true, _) => Form::Json,
                (_, true) => Form::Null,
                _ => Form::Lines,
            };
            // The list is the one document then.
            let progress = if self.progress.json {
                Progress::Quiet
            } else {
                progress
            };
            return listing::show(&client, &place.directory, options, form, &progress).await;
        }
        each(&[self.name], self.progress, async |name, view| {
            let vm = client.vm(name).await?;
            let mut finished = sync(&client, &vm, place.directory.clone(), options.clone(), view).await?;
            tell(&notes(&finished), &progress);
            let path = client.vm_info(&vm).await?.workspace_path;
            finished.line = format!("{name}: the workspace is in {path}");
            Ok(finished)
        })
        .await
    }
}
