//! What is asked for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use crate::config::Owner;

/// How a repository gets into a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The commit as a shallow clone, and the tracked files as they are in the work tree.
    #[default]
    ShallowOverlay,
    /// The directory as it is, `.git` and all.
    FullCopy,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::ShallowOverlay => "shallow_overlay",
            Self::FullCopy => "full_copy",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mode of a workspace: shallow_overlay, full_copy")]
pub struct BadMode(String);

impl FromStr for Mode {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Self, BadMode> {
        [Self::ShallowOverlay, Self::FullCopy]
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| BadMode(text.to_owned()))
    }
}

/// What goes in, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub mode: Mode,
    /// Also what git does not track and does not ignore.
    pub include_untracked: bool,
    /// Put HEAD on a branch of this name.
    pub branch: Option<String>,
    /// A commit instead of HEAD; what is not committed stays out then.
    pub from: Option<String>,
    /// Whose name, address and general ignore patterns count.
    pub owner: Owner,
}
