//! The tools that a repository names for mise, where the guest has it.

use std::sync::Arc;

use banger_model::Workspace;

use super::run;
use crate::core::progress::JobContext;
use crate::guest::Agent;

/// In the background of the guest: whoever opens a shell does not wait for a compiler.
const SCRIPT: &str = "mkdir -p /root/.cache/banger && cd \"$1\" || exit
    for file in mise.toml .mise.toml .tool-versions; do
        if [ -e \"$file\" ]; then
            mise trust -q --all </dev/null >/root/.cache/banger/mise.log 2>&1
            exec mise install --yes </dev/null >>/root/.cache/banger/mise.log 2>&1
        fi
    done";
/// What it says goes to its log.
const OUTPUT: u64 = 4096;

/// Installs what the workspace names, as well as that goes: what fails is in the log in the guest.
pub(crate) fn bootstrap(agent: Arc<Agent>, workspace: Workspace) {
    if !workspace.mise {
        return;
    }
    tokio::spawn(async move {
        let argv = ["sh", "-c", SCRIPT, "sh", &workspace.guest_path];
        let Ok(nowhere) = std::fs::File::create("/dev/null") else {
            return;
        };
        let done = run::to_file(&agent, &JobContext::silent(), &argv, "/", nowhere, OUTPUT).await;
        if let Err(error) = done {
            tracing::debug!(%error, "mise did not run");
        }
    });
}
