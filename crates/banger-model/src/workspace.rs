//! The repository that is in a VM.

use serde::{Deserialize, Serialize};

/// Where a workspace is in a guest when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/root/repo";

/// What is known of a VM's workspace. Written when the guest has all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// The repository's work tree, or the copied directory: an absolute path of the host.
    pub host_path: String,
    /// An absolute path of the guest.
    pub guest_path: String,
    /// `shallow_overlay` or `full_copy`.
    pub mode: String,
    /// In hexadecimal digits; empty for a full copy of what has no commit.
    pub commit: String,
    /// The next sync does what the last one did.
    pub include_untracked: bool,
    /// The guest has mise, by which commands are run then.
    pub mise: bool,
}
