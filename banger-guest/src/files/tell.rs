//! Answers that are one small document.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use banger_model::agent::{Kind, Look, Stat, Which};

use super::answer::Refusal;
use super::bad;

/// Where the agent's sessions look for programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn look(path: &str, follow: bool) -> Result<Look, Refusal> {
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(bad("The path is not absolute"));
    }
    let found = if follow {
        fs::metadata(path)
    } else {
        fs::symlink_metadata(path)
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok(Look {
        found: found.ok().map(|meta| stat_of(&meta)),
        parent: parent.is_dir(),
    })
}

pub(super) fn which(program: &str) -> Which {
    let is_name = !program.is_empty() && !program.contains(['/', '\0']);
    let path = PATH
        .split(':')
        .filter(|_| is_name)
        .map(|directory| format!("{directory}/{program}"))
        .find(|path| {
            fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        });
    Which { path }
}

/// In the words of the contract.
fn stat_of(meta: &fs::Metadata) -> Stat {
    let kind = meta.file_type();
    Stat {
        kind: match () {
            () if kind.is_file() => Kind::File,
            () if kind.is_dir() => Kind::Directory,
            () if kind.is_symlink() => Kind::Symlink,
            () => Kind::Other,
        },
        mode: meta.mode() & 0o7777,
        size: meta.size(),
        mtime_ns: meta
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(meta.mtime_nsec()),
    }
}
