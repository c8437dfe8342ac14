//! `banger vm workspace show`.

use clap::Args;
use serde::Serialize;

use crate::client::Client;
use crate::completion;
use crate::error::{Error, Result};
use crate::output::{self, Style, Table, Tone};

/// Show which repository a VM has, and whether it has moved on since
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A VM's name, id, or unambiguous prefix
    #[arg(value_name = "VM", add = completion::vms())]
    name: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    vm: &'a str,
    /// The repository on the host.
    workspace: &'a str,
    guest_path: &'a str,
    mode: &'a str,
    /// What it was made from.
    commit: &'a str,
    /// The repository's now; empty when that cannot be told.
    host_commit: String,
    stale: bool,
}

impl Show {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let vm = client.vm(&self.name).await?;
        let info = client.vm_info(&vm).await?;
        if info.workspace.is_empty() {
            return Err(none(&info.name));
        }
        let (stale, host_commit) = vm.proxy.check_workspace().await.unwrap_or_default();
        let shown = Shown {
            vm: &info.name,
            workspace: &info.workspace,
            guest_path: &info.workspace_path,
            mode: &info.workspace_mode,
            commit: &info.workspace_commit,
            host_commit,
            stale,
        };
        if self.json {
            return output::json(&shown);
        }
        output::data(shown.table().render(Style::stdout()).as_bytes())
    }
}

impl Shown<'_> {
    fn table(&self) -> Table {
        let mut table = Table::default();
        table.row(["vm", self.vm]);
        table.row(["repository", self.workspace]);
        table.row(["in the guest", self.guest_path]);
        table.row(["mode", self.mode]);
        table.row(["commit", self.commit]);
        let (word, tone) = match (self.stale, self.host_commit.as_str()) {
            (_, "") => ("not known: the repository cannot be read", Some(Tone::Warn)),
            (true, commit) => (commit, Some(Tone::Warn)),
            (false, _) => ("the same", Some(Tone::Good)),
        };
        table.row(["commit on the host", word]).tone(1, tone);
        table
    }
}

/// A VM without a workspace cannot do what was asked.
pub(in crate::commands::vm) fn none(name: &str) -> Error {
    Error::refused(
        format!("The VM {name} has no workspace"),
        &format!("Bring one with `banger vm workspace prepare {name} PATH`"),
    )
}
