//! What tests of workspaces do again and again. The VM is called `w`.

use std::path::Path;
use std::time::Duration;

use crate::repository::QUESTIONS;
use crate::rig::{Out, Rig, finished};
use crate::store::TOOLS;

/// A guest under emulation has to boot in it, too.
pub const LIMIT: Duration = Duration::from_secs(240);

/// `banger vm run` in a repository, with what the user is told.
pub async fn run(rig: &Rig, more: &[&str]) -> Out {
    let mut command = rig.command(["vm", "run", "--image", TOOLS, "--vcpu", "1", "--memory", "256M"]);
    finished(command.args(more), LIMIT).await
}

/// `banger vm workspace`.
pub async fn workspace(rig: &Rig, words: &[&str]) -> Out {
    let mut command = rig.command(["vm", "workspace"]);
    finished(command.args(words), LIMIT).await
}

/// A command in the workspace.
pub async fn exec(rig: &Rig, words: &[&str]) -> Out {
    rig.banger([&["vm", "exec", "w", "--"], words].concat()).await
}

/// Runs a script in the workspace.
pub async fn sh(rig: &Rig, script: &str) -> Out {
    exec(rig, &["sh", "-euc", script]).await
}

/// A VM `w`, without a workspace.
pub async fn create(rig: &Rig, more: &[&str]) {
    finished(&mut rig.new_vm("create", TOOLS, &[more, &["w"]].concat()), LIMIT)
        .await
        .ok();
}

/// git's answers about the repository are the same inside as outside.
///
/// # Panics
/// When they are not.
pub async fn assert_same_answers(rig: &Rig, repository: &Path) {
    for question in QUESTIONS {
        let host = rig.git(repository, question).await.ok();
        let guest = exec(rig, &[&["git"], question].concat()).await.ok();
        assert!(
            guest.stdout == host.stdout,
            "{question:?}\n--- host\n{}\n--- guest\n{}",
            host.text(),
            guest.text()
        );
    }
}

/// A path of the rig's.
///
/// # Panics
/// When it is no text, which those are.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the rig's paths are text")
}
