//! `banger vm prune`.

use banger_bus::{DeleteOptions, VmInfo};
use banger_model::VmState;
use clap::Args;

use crate::client::{Client, done};
use crate::commands::{confirm, each};
use crate::error::Result;
use crate::output::{self, ProgressArgs};
use crate::parse::{self, Filter};

/// Delete every VM that does not run, and its disk
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Do not ask
    #[arg(long, short)]
    force: bool,
    /// Only print what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Only those with a label; may be repeated, all must fit
    #[arg(long, value_name = "label=KEY[=VALUE]", value_parser = parse::filter)]
    filter: Vec<Filter>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Prune {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let vms: Vec<VmInfo> = client
            .everything()
            .await?
            .vms
            .into_iter()
            .filter(|vm| vm.state == VmState::Stopped.as_str())
            .filter(|vm| self.filter.iter().all(|filter| filter.matches(&vm.labels)))
            .collect();
        if self.dry_run {
            return vms.iter().try_for_each(|vm| output::line(&vm.name));
        }
        if vms.is_empty() {
            output::note(if self.filter.is_empty() {
                "Every VM runs: nothing to delete"
            } else {
                "No stopped VM has such a label: nothing to delete"
            });
            return Ok(());
        }
        let names: Vec<String> = vms.iter().map(|vm| vm.name.clone()).collect();
        let question = format!(
            "Delete {} VM(s) and their disks: {}?",
            names.len(),
            names.join(", ")
        );
        if !self.force && !confirm(&question, "--force (-f)")? {
            output::note("Nothing was deleted");
            return Ok(());
        }
        each(&names, self.progress, async |name, view| {
            // By id: the name may have been given to another VM while the user thought.
            let id = vms
                .iter()
                .find(|vm| vm.name == name)
                .map_or(name, |vm| vm.id.as_str());
            let vm = client.vm(id).await?;
            // Never by force: one that was started meanwhile stays.
            let call = vm.proxy.delete(DeleteOptions::default());
            done(client.run_job(view, call).await?)?;
            Ok(format!("{name}: deleted"))
        })
        .await
    }
}
