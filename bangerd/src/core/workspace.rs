//! What a VM knows of the repository that is in it.

use std::path::PathBuf;
use std::sync::Arc;

use banger_bus::{Error, ErrorKind};
use banger_model::Workspace;
use tokio::sync::MutexGuard;

use super::machine::lock;
use super::vm::Vm;

impl Vm {
    pub(crate) fn workspace(&self) -> Option<Workspace> {
        lock(&self.record).workspace.clone()
    }

    /// Its workspace, for what needs one.
    ///
    /// # Errors
    /// `NoWorkspace`.
    pub(crate) fn expect_workspace(&self) -> Result<Workspace, Error> {
        self.workspace().ok_or_else(|| {
            let name = self.name();
            Error::new(ErrorKind::NoWorkspace, format!("VM {name} has no workspace"))
                .hint(format!("Give it one: `banger vm workspace prepare {name} PATH`."))
        })
    }

    /// The right to change the workspace. Stopping and deleting the VM need not wait for it.
    ///
    /// # Errors
    /// `Busy`.
    pub(crate) fn workspace_turn(&self) -> Result<MutexGuard<'_, ()>, Error> {
        self.at_workspace.try_lock().map_err(|_| {
            Error::new(
                ErrorKind::Busy,
                format!("The workspace of VM {} is being prepared already", self.name()),
            )
            .hint("Wait for it, or cancel it.")
        })
    }

    /// Where the record of the last sync is kept.
    pub(crate) fn workspace_record(&self) -> PathBuf {
        self.core().paths(self.id()).directory.join("workspace")
    }

    /// Notes what is in the guest now.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub(crate) async fn note_workspace(self: &Arc<Self>, workspace: Workspace) -> Result<(), Error> {
        self.change(|record| record.workspace = Some(workspace))
            .done()
            .await
    }
}
