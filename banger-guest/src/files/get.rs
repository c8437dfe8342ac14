//! Sending a file or a directory of the guest.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use banger_files::{Packer, Root};
use banger_model::agent::{Failure, FailureKind};

use super::answer::Refusal;

pub(super) fn get(path: &str, follow: bool, name: &str, output: impl Write) -> Result<(), Refusal> {
    let wanted = Path::new(path);
    let failed = |error: io::Error| Refusal::file("read", wanted, &error);
    // Where the name is the path's own, the directories above it may be links all the same.
    let path = if follow || wanted.file_name().is_none() {
        fs::canonicalize(wanted).map_err(failed)?
    } else {
        resolved(wanted).map_err(failed)?
    };
    let meta = fs::symlink_metadata(&path).map_err(failed)?;
    if name.is_empty() && !meta.is_dir() {
        return Err(Refusal::Told(Failure {
            kind: FailureKind::Conflict,
            path: wanted.to_string_lossy().into_owned(),
            message: format!("Not a directory: {wanted:?}"),
        }));
    }
    let (directory, below) = if meta.is_dir() {
        (path.as_path(), Path::new(""))
    } else {
        (
            path.parent().unwrap_or(Path::new("/")),
            path.file_name().map_or(Path::new(""), Path::new),
        )
    };
    let root = Root::open(directory).map_err(failed)?;
    let mut packer = Packer::new(output, |_| Ok(()));
    packer.tree(&root, below, Path::new(name))?;
    packer.finish()?.0.flush()?;
    Ok(())
}

/// The path with its directories resolved, and its last component as it is.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let parent = fs::canonicalize(path.parent().unwrap_or(Path::new("/")))?;
    Ok(path.file_name().map_or(parent.clone(), |name| parent.join(name)))
}
