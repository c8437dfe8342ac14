//! Whether a workspace is that of the repository's commit.

use std::path::Path;

use banger_bus::Result;
use banger_model::Workspace;
use banger_workspace::Repository;

use super::error::blocking;
use crate::core::progress::JobContext;

/// Whether the repository has moved on, and its commit; no commit where that cannot be told, as
/// when the repository is gone.
pub(crate) async fn check(workspace: &Workspace) -> Result<(bool, String)> {
    let path = workspace.host_path.clone();
    let ctx = JobContext::silent();
    let head = blocking(&ctx, move |_| Ok(Repository::head_of(Path::new(&path)).ok()));
    Ok(match head.await? {
        Some(head) => (head.commit != workspace.commit, head.commit),
        None => (false, String::new()),
    })
}
