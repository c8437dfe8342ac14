//! What a repository is in the middle of: a merge and its kin come along, a rebase does not.

use crate::error::Result;
use crate::read;
use crate::refs::is_object;
use crate::repository::Repository;

/// Of a message that git has prepared.
const MESSAGE_LIMIT: usize = 1 << 20;
/// Of `MERGE_HEAD`: an octopus has few arms.
const HEADS: usize = 64;

/// Files that hold names of commits.
const COMMITS: [&str; 3] = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"];
const MESSAGES: [&str; 3] = ["MERGE_MSG", "MERGE_MODE", "SQUASH_MSG"];

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Names below `.git` and what they hold.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    /// Commits that they name.
    pub(crate) commits: Vec<String>,
    pub(crate) note: Option<String>,
}

pub(crate) fn of(repository: &Repository) -> Result<State> {
    let git_dir = repository.git_dir();
    let has = |name: &str| git_dir.join(name).is_dir();
    if has("rebase-merge") || has("rebase-apply") {
        return Ok(State {
            note: Some(
                "A rebase is going on: HEAD and the changes go in, the rest of the rebase does not."
                    .to_owned(),
            ),
            ..State::default()
        });
    }
    let mut state = State::default();
    for name in COMMITS {
        let Some(bytes) = read::own(git_dir, name, MESSAGE_LIMIT)? else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        let commits: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|line| is_object(line))
            .take(HEADS)
            .map(str::to_owned)
            .collect();
        if commits.is_empty() {
            continue;
        }
        state.files.push((name, (commits.join("\n") + "\n").into_bytes()));
        state.commits.extend(commits);
    }
    for name in MESSAGES {
        if let Some(bytes) = read::own(git_dir, name, MESSAGE_LIMIT)? {
            state.files.push((name, bytes));
        }
    }
    Ok(state)
}
