//! What goes into a guest, before anything is sent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Cancel;
use crate::error::{Error, Result};
use crate::full;
use crate::options::{Mode, Options};
use crate::overlay::Overlay;
use crate::repository::{self, Repository};
use crate::stat::Stat;

/// A workspace as it will be in the guest.
#[derive(Debug)]
pub struct Plan {
    /// The repository's work tree, or the directory of a full copy; canonical.
    pub root: PathBuf,
    pub mode: Mode,
    /// Empty for a full copy of what has no commit.
    pub commit: String,
    /// `None` when HEAD will be detached.
    pub branch: Option<String>,
    /// Sentences for people: what stays out, and why.
    pub notes: Vec<String>,
    pub(crate) overlay: Option<Overlay>,
    /// Where the files are read from.
    pub(crate) files_root: PathBuf,
    pub(crate) files: BTreeMap<PathBuf, Stat>,
}

impl Plan {
    /// Looks at everything that goes in and reads none of the files. `path` (absolute) is
    /// anywhere in the repository; a full copy takes any directory.
    ///
    /// # Errors
    /// When the repository cannot be used, each kind with its own error.
    pub fn new(path: &Path, options: &Options, cancel: &Cancel) -> Result<Self> {
        match options.mode {
            Mode::ShallowOverlay => Self::overlay(path, options, cancel),
            Mode::FullCopy => Self::full_copy(path, options, cancel),
        }
    }

    fn overlay(path: &Path, options: &Options, cancel: &Cancel) -> Result<Self> {
        let mut overlay = Overlay::new(path, options, cancel)?;
        Ok(Self {
            root: overlay.repository.work_tree().to_owned(),
            mode: Mode::ShallowOverlay,
            commit: overlay.head.commit.clone(),
            branch: overlay.head.branch.clone(),
            notes: std::mem::take(&mut overlay.notes),
            files_root: overlay.files_root.clone(),
            files: std::mem::take(&mut overlay.files),
            overlay: Some(overlay),
        })
    }

    fn full_copy(path: &Path, options: &Options, cancel: &Cancel) -> Result<Self> {
        if options.branch.is_some() || options.from.is_some() {
            return Err(Error::NotInFullCopy);
        }
        let root = repository::root_of(path)?;
        // What a guest can make of it is for its own git to say.
        let head = Repository::discover(path).and_then(|repository| repository.head());
        let (branch, commit) = head.map_or_else(|_| (None, String::new()), |head| (head.branch, head.commit));
        let mut listing = full::list(&root, cancel)?;
        if root.join(".git").is_file() {
            listing.notes.push(
                "`.git` is a file that points to a directory elsewhere: no history goes in.".to_owned(),
            );
        }
        Ok(Self {
            files_root: root.clone(),
            root,
            mode: Mode::FullCopy,
            commit,
            branch,
            notes: listing.notes,
            overlay: None,
            files: listing.files,
        })
    }

    /// The paths of the files that go in, in order, relative to the root.
    pub fn list(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }
}
