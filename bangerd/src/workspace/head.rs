//! Where HEAD is in a guest's workspace, read without its git.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use banger_bus::{Error, ErrorKind, Result};
use banger_files::{Root, Rules};
use banger_model::agent::{Look, Request};
use banger_workspace::Head;

use crate::core::progress::JobContext;
use crate::guest::Agent;
use crate::guest::files;

/// A small file of a guest's `.git`, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Whether HEAD is where it was put: on that branch, and the branch at that commit.
pub(super) async fn is_at(
    agent: &Arc<Agent>,
    ctx: &JobContext,
    workspace: &str,
    wanted: &Head,
) -> Result<bool> {
    let git = Git {
        agent,
        ctx,
        directory: format!("{workspace}/.git"),
    };
    let head = git.read("HEAD").await?;
    let Some(branch) = &wanted.branch else {
        return Ok(head.is_some_and(|head| head.trim() == wanted.commit));
    };
    let name = format!("refs/heads/{branch}");
    if head.is_none_or(|head| head.trim() != format!("ref: {name}")) {
        return Ok(false);
    }
    if let Some(commit) = git.read(&name).await? {
        return Ok(commit.trim() == wanted.commit);
    }
    let packed = git.read("packed-refs").await?.unwrap_or_default();
    let line = format!("{} {name}", wanted.commit);
    Ok(packed.lines().any(|other| other == line))
}

struct Git<'a> {
    agent: &'a Arc<Agent>,
    ctx: &'a JobContext,
    directory: String,
}

impl Git<'_> {
    async fn read(&self, name: &str) -> Result<Option<String>> {
        let path = format!("{}/{name}", self.directory);
        let look = Request::Look {
            path: path.clone(),
            follow: true,
        };
        let there: Look = files::ask(self.agent, &look).await?;
        if there.found.is_none() {
            return Ok(None);
        }
        let failed = |e: std::io::Error| Error::new(ErrorKind::Failed, format!("Cannot read {path:?}: {e}"));
        let here = tempfile::tempdir().map_err(failed)?;
        let rules = Rules {
            max_bytes: MAX_FILE,
            max_entries: 1,
            ..Rules::hostile()
        };
        let request = Request::Get {
            path: path.clone(),
            follow: true,
            name: "file".to_owned(),
        };
        let root = Root::open(here.path()).map_err(failed)?;
        files::get(self.agent, &request, root, rules, self.ctx).await?;
        let bytes = fs::read(Path::new(here.path()).join("file")).unwrap_or_default();
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}
