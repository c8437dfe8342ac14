//! A directory of the host whose repository goes into a guest, and the VM that has it already.

use std::fs;
use std::path::Path;

use banger_bus::VmInfo;
use banger_model::VmState;

use crate::error::{Error, Result};

/// Where the user stands, and the repository around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directory that was named, absolute and without symbolic links.
    pub(crate) directory: String,
    /// The work tree's top; the directory itself where none is found, which the daemon judges.
    root: String,
}

impl Place {
    /// Looks at a directory. Whether the repository can be used is the daemon's to say.
    pub(crate) fn find(path: &Path) -> Result<Self> {
        let directory =
            fs::canonicalize(path).map_err(|e| Error::io(format!("Cannot use the directory {path:?}"), e))?;
        if !directory.is_dir() {
            return Err(Error::refused(
                format!("{path:?} is no directory"),
                "Name the repository, or a directory inside it; files go with `banger vm cp`",
            ));
        }
        let root = directory
            .ancestors()
            .find(|above| above.join(".git").symlink_metadata().is_ok())
            .unwrap_or(&directory);
        Ok(Self {
            root: text(root)?.to_owned(),
            directory: text(&directory)?.to_owned(),
        })
    }

    /// The VM that has it: of several the one that runs, then the youngest.
    pub(crate) fn vm<'a>(&self, vms: &'a [VmInfo], name: Option<&str>) -> Option<&'a VmInfo> {
        vms.iter()
            .filter(|vm| vm.workspace == self.root || vm.workspace == self.directory)
            .filter(|vm| name.is_none_or(|name| vm.name == name))
            .max_by_key(|vm| (vm.state == VmState::Running.as_str(), vm.created_us))
    }
}

/// A path of the host for the bus. Relative ones begin where the user stands; the rest stays as it
/// was written, a slash at its end too.
pub(crate) fn absolute(path: &Path) -> Result<String> {
    let here = std::env::current_dir().map_err(|e| Error::io("Cannot tell the current directory", e))?;
    text(&here.join(path)).map(str::to_owned)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::refused(
            format!("The path {path:?} is not UTF-8"),
            "D-Bus carries no other text: rename it, or go by a symbolic link's name to what is in it",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_repository_is_above_and_links_are_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(top.join("repo/sub/deep")).unwrap();
        fs::create_dir(top.join("repo/.git")).unwrap();
        symlink(top.join("repo/sub"), top.join("link")).unwrap();
        let place = Place::find(&top.join("link/deep")).unwrap();
        assert_eq!(place.directory, top.join("repo/sub/deep").to_str().unwrap());
        assert_eq!(place.root, top.join("repo").to_str().unwrap());
        // The file of a worktree counts too.
        fs::write(top.join("repo/sub/.git"), "gitdir: x").unwrap();
        let place = Place::find(&top.join("link/deep")).unwrap();
        assert_eq!(place.root, top.join("repo/sub").to_str().unwrap());
        for bad in [top.join("none"), top.join("repo/sub/.git")] {
            assert!(Place::find(&bad).is_err(), "{bad:?}");
        }
    }
}
