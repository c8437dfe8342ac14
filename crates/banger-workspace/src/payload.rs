//! What is sent: everything the first time, what changed later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::Cancel;
use crate::error::{Error, Result};
use crate::guest_dir::{self, Made};
use crate::manifest::Manifest;
use crate::options::Mode;
use crate::overlay::Overlay;
use crate::plan::Plan;
use crate::repository::Head;
use crate::scratch::Scratch;
use crate::stat::{Kind, Stat};

/// What makes a guest's workspace equal to a plan. The files that were made for it live as
/// long as this.
#[derive(Debug)]
pub struct Payload {
    /// To be sent in this order.
    pub parts: Vec<Part>,
    /// Paths to be removed first, relative to the workspace, what is deepest first.
    pub remove: Vec<PathBuf>,
    /// What the guest must be like, or something of its own would be lost.
    pub expected: Expected,
    /// What the guest has afterwards.
    pub manifest: Manifest,
    _made: Option<(TempDir, Arc<Scratch>)>,
}

/// Paths below one directory of the host, which are those below the workspace too. Each is one
/// entry by itself: directories are not walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub root: PathBuf,
    pub paths: Vec<PathBuf>,
}

/// What nobody in the guest may have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// HEAD must be on this branch, and the branch at this commit; or HEAD at the commit itself.
    pub head: Option<Head>,
    /// Paths, and what must be there.
    pub files: Vec<(PathBuf, Option<Stat>)>,
    /// Those that may be gone: they would be removed.
    removed: BTreeSet<PathBuf>,
    /// Those that may be directories: they are emptied, or there are such.
    directories: BTreeSet<PathBuf>,
}

impl Plan {
    /// Makes what is to be sent to a guest that has what `previous` says, or nothing. A guest
    /// with a workspace of another mode must be given a new directory, and `None`.
    ///
    /// # Errors
    /// When objects are missing or cannot be packed.
    pub fn payload(&self, previous: Option<&Manifest>, cancel: &Cancel) -> Result<Payload> {
        cancel.check()?;
        let previous = previous.filter(|previous| previous.mode == self.mode);
        let mut payload = self.files(previous);
        if let Some(overlay) = &self.overlay {
            payload.add_git(overlay, previous)?;
        }
        payload.remove.sort_by(|a, b| b.cmp(a));
        if previous.is_some() && !payload.is_empty() {
            payload.expected.head = previous.and_then(|previous| previous.head.clone());
        }
        Ok(payload)
    }

    /// The files alone.
    fn files(&self, previous: Option<&Manifest>) -> Payload {
        let mut expected = Expected::default();
        let known = |path: &Path| previous.and_then(|previous| previous.files.get(path)).copied();
        let changed = self
            .files
            .iter()
            .filter(|(path, stat)| known(path) != Some(**stat));
        let paths: Vec<_> = changed.map(|(path, _)| path.clone()).collect();
        if let Some(previous) = previous {
            for path in &paths {
                expected.add(self.mode, path, known(path));
                if previous.has_below(path) || self.files[path].kind == Kind::Directory {
                    expected.directories.insert(path.clone());
                }
            }
        }
        let gone = previous.iter().flat_map(|previous| &previous.files);
        let gone: Vec<_> = gone.filter(|(path, _)| !self.files.contains_key(*path)).collect();
        for (path, stat) in &gone {
            expected.add(self.mode, path, Some(**stat));
            expected.removed.insert((*path).clone());
        }
        let head = (!self.commit.is_empty()).then(|| Head {
            branch: self.branch.clone(),
            commit: self.commit.clone(),
        });
        Payload {
            remove: gone.into_iter().map(|(path, _)| path.clone()).collect(),
            parts: vec![Part {
                root: self.files_root.clone(),
                paths,
            }],
            expected,
            manifest: Manifest {
                mode: self.mode,
                head,
                shallow: Vec::new(),
                objects: Vec::new(),
                git_files: Default::default(),
                files: self.files.clone(),
            },
            _made: None,
        }
    }
}

impl Payload {
    /// What was changed in the guest, of all that would be overwritten. `found` is what the guest
    /// has, in the order of [`Expected::files`]. What is there already, as after a sync that broke
    /// off, is no loss.
    pub fn conflicts(&self, found: &[Option<Stat>]) -> Vec<PathBuf> {
        let unknown = std::iter::repeat(&None);
        let there: BTreeMap<_, _> = self
            .expected
            .files
            .iter()
            .map(|(path, _)| path.as_path())
            .zip(found.iter().chain(unknown))
            .collect();
        let is_there = |path: &PathBuf| {
            let wanted = self.manifest.files.get(path);
            let found = there.get(path.as_path()).and_then(|found| found.as_ref());
            wanted
                .zip(found)
                .is_some_and(|(wanted, found)| is_same(wanted, found))
        };
        let mut conflicts = self.expected.conflicts(found);
        conflicts.retain(|path| !is_there(path));
        conflicts
    }

    /// Whether the guest has everything already.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.parts.iter().all(|part| part.paths.is_empty())
    }

    fn add_git(&mut self, overlay: &Overlay, previous: Option<&Manifest>) -> Result<()> {
        let dir = tempfile::Builder::new()
            .prefix("guest-")
            .tempdir_in(overlay.scratch.path())
            .map_err(Error::io("make a directory in", overlay.scratch.path()))?;
        let made = guest_dir::make(overlay, dir.path(), previous)?;
        let Made {
            mut directories,
            packs,
            files,
            remove,
            new_refs,
            git_files,
            shallow,
        } = made;
        let part = |paths| Part {
            root: dir.path().to_owned(),
            paths,
        };
        directories.extend(packs);
        self.parts.insert(0, part(directories));
        self.parts.push(part(files));
        self.remove.extend(remove);
        self.expected
            .files
            .extend(new_refs.into_iter().map(|path| (path, None)));
        self.manifest.git_files = git_files;
        self.manifest.shallow = shallow;
        let kept = previous.iter().flat_map(|previous| &previous.objects);
        let objects: BTreeSet<_> = kept
            .chain(&overlay.objects)
            .chain(&overlay.state.commits)
            .cloned()
            .collect();
        self.manifest.objects = objects.into_iter().collect();
        self._made = Some((dir, Arc::clone(&overlay.scratch)));
        Ok(())
    }
}

impl Manifest {
    /// Corrects what is known of a file that changed (`None`: vanished) while it was sent.
    pub fn record(&mut self, path: &Path, stat: Option<Stat>) {
        match stat {
            Some(stat) if self.files.contains_key(path) => _ = self.files.insert(path.to_owned(), stat),
            Some(_) => {}
            None => _ = self.files.remove(path),
        }
    }
}

impl Expected {
    fn add(&mut self, mode: Mode, path: &Path, stat: Option<Stat>) {
        // What git keeps there changes with every command; the branch is what counts.
        if mode == Mode::FullCopy && path.starts_with(".git") {
            return;
        }
        self.files.push((path.to_owned(), stat));
    }

    /// What was changed in the guest, of all that would be overwritten. `found` is what the
    /// guest has, in the order of `files`.
    pub fn conflicts(&self, found: &[Option<Stat>]) -> Vec<PathBuf> {
        let missing = std::iter::repeat(&None);
        let pairs = self.files.iter().zip(found.iter().chain(missing));
        pairs
            .filter(|((path, expected), found)| !self.is_fine(path, expected.as_ref(), found.as_ref()))
            .map(|((path, _), _)| path.clone())
            .collect()
    }

    fn is_fine(&self, path: &Path, expected: Option<&Stat>, found: Option<&Stat>) -> bool {
        match (expected, found) {
            (None, None) => true,
            (Some(_), None) => self.removed.contains(path),
            (None, Some(found)) => found.kind == Kind::Directory && self.directories.contains(path),
            (Some(expected), Some(found)) => is_same(expected, found),
        }
    }
}

/// Links are made anew, and not every file system keeps their times; of permissions only the
/// right to execute is git's.
fn is_same(expected: &Stat, found: &Stat) -> bool {
    let executable = |stat: &Stat| stat.mode & 0o100 != 0;
    expected.kind == found.kind
        && match expected.kind {
            Kind::Directory => true,
            Kind::Symlink => expected.size == found.size,
            Kind::File => {
                expected.size == found.size
                    && expected.mtime_ns == found.mtime_ns
                    && executable(expected) == executable(found)
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: u64) -> Stat {
        Stat {
            kind: Kind::File,
            mode: 0o644,
            size,
            mtime_ns: 5,
        }
    }

    #[test]
    fn what_the_guest_changed_is_a_conflict() {
        let path = PathBuf::from;
        let expected = Expected {
            head: None,
            files: vec![
                (path("same"), Some(file(1))),
                (path("changed"), Some(file(1))),
                (path("new"), None),
                (path("made"), None),
                (path("gone"), Some(file(1))),
                (path("deleted"), Some(file(1))),
                (path("dir"), None),
            ],
            removed: BTreeSet::from([path("gone")]),
            directories: BTreeSet::from([path("dir")]),
        };
        let directory = Stat {
            kind: Kind::Directory,
            ..file(0)
        };
        let found = [
            Some(Stat {
                mode: 0o600,
                ..file(1)
            }),
            Some(file(2)),
            None,
            Some(file(1)),
            None,
            None,
            Some(directory),
        ];
        let conflicts = expected.conflicts(&found);
        assert_eq!(conflicts, [path("changed"), path("made"), path("deleted")]);
    }
}
