//! `banger vm workspace …`: a repository of the host in a guest.

mod export;
pub(super) mod listing;
mod place;
mod prepare;
mod show;

use banger_bus::WorkspaceOptions;
use clap::{Args, Subcommand};

use crate::client::{Client, Vm, done};
use crate::error::Result;
use crate::output::{self, Finished, Progress, View};

pub(super) use place::{Place, absolute};
pub(super) use show::none;

/// What goes in when nobody says otherwise.
pub(super) const SHALLOW: &str = "shallow_overlay";

#[derive(Debug, Subcommand)]
pub(crate) enum Workspace {
    Prepare(prepare::Prepare),
    Export(export::Export),
    Show(show::Show),
}

/// What of a repository goes into a guest.
#[derive(Debug, Clone, Args)]
pub(super) struct WorkspaceArgs {
    /// Work on a new branch of this name in the guest
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    /// Start that branch at this commit; what is not committed stays out then
    #[arg(long, value_name = "REF", requires = "branch")]
    from: Option<String>,
    /// Also files that git does not track, but never those that it ignores
    #[arg(long)]
    include_untracked: bool,
    /// How it goes in: the commit as a shallow clone and the tracked files over it, or the directory as it is, `.git` and all [default: shallow_overlay]
    #[arg(long, value_name = "MODE", value_parser = [SHALLOW, "full_copy"])]
    mode: Option<String>,
    /// Where it goes in the guest [default: /root/repo, or where it is already]
    #[arg(long, value_name = "DIR", value_parser = super::exec::absolute)]
    guest_path: Option<String>,
}

impl Workspace {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Prepare(prepare) => prepare.run().await,
            Self::Export(export) => export.run().await,
            Self::Show(show) => show.run().await,
        }
    }
}

impl WorkspaceArgs {
    pub(super) fn options(&self, force: bool) -> WorkspaceOptions {
        WorkspaceOptions {
            guest_path: self.guest_path.clone(),
            mode: self.mode.clone(),
            include_untracked: self.include_untracked.then_some(true),
            branch: self.branch.clone(),
            from: self.from.clone(),
            force: force.then_some(true),
        }
    }
}

/// Brings a repository into a guest, or what has changed of it; gives what is to be told.
pub(super) async fn sync(
    client: &Client,
    vm: &Vm,
    directory: String,
    options: WorkspaceOptions,
    view: View,
) -> Result<Finished> {
    let call = vm.proxy.prepare_workspace(directory, options);
    // Boxed: a job's future is large, and this one is part of larger ones.
    let outcome = done(Box::pin(client.run_job(view, call)).await?)?;
    let finished = Finished::default().with("notes", outcome.names.clone());
    Ok(match outcome.bytes {
        Some(bytes) => finished.with("bytes", bytes),
        None => finished,
    })
}

/// Tells people the notes of a job.
pub(super) fn tell(notes: &[String], progress: &Progress) {
    if matches!(progress, Progress::Quiet | Progress::Json) {
        return;
    }
    for note in notes {
        progress.note(&output::plain(note));
    }
}

/// The notes that [`sync`] has kept for programs.
pub(super) fn notes(finished: &Finished) -> Vec<String> {
    let notes = finished.details.get("notes").and_then(|notes| notes.as_array());
    notes
        .into_iter()
        .flatten()
        .filter_map(|note| note.as_str().map(str::to_owned))
        .collect()
}
