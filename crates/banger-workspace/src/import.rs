//! Commits out of a guest: a bundle that the guest made, taken into the repository's objects and
//! under `refs/banger/<vm>/`. The work tree, the index, the configuration and the hooks are left
//! alone. The guest is hostile: its objects are checked as git checks those of a stranger, and
//! what the bundle calls its references counts only where it was asked for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::Cancel;
use crate::error::{Error, Result};
use crate::git::Git;
use crate::refs::{self, Value, check_branch, is_name, is_object};
use crate::repository::Repository;
use crate::scratch::Scratch;

/// The largest bundle that is taken, in bytes.
pub const MAX_BUNDLE: u64 = 4 << 30;
/// Branches of one guest.
pub const MAX_BRANCHES: usize = 1000;
/// Work trees of a repository that are looked at for a branch that is checked out.
const MAX_WORK_TREES: usize = 10_000;
/// What is before the pack of a bundle, in bytes.
const HEAD_LIMIT: u64 = 4 << 20;
const BRANCHES: &str = "refs/heads/";

/// What is to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// The VM's name: a part of the references' names.
    pub vm: &'a str,
    /// A bundle that the guest wrote.
    pub bundle: &'a Path,
    /// A branch of the repository to make or to forward, to the first of `branches`.
    pub to: Option<&'a str>,
    /// The guest's branches without `refs/heads/`, the checked-out one first.
    pub branches: &'a [String],
    /// Also where a reference would lose commits.
    pub force: bool,
}

/// A reference that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub name: String,
    pub commit: String,
}

impl Import<'_> {
    /// Takes the bundle in: all references or none.
    ///
    /// # Errors
    /// [`Error::Hostile`] for a bundle that cannot be taken, [`Error::Rejected`] where commits
    /// would be lost, [`Error::CheckedOut`].
    pub fn run(&self, repository: &Repository, cancel: &Cancel) -> Result<Vec<Reference>> {
        if !is_name(self.vm) || self.vm.contains('/') {
            return Err(Error::BadBranch(self.vm.to_owned()));
        }
        if let Some(to) = self.to {
            check_branch(to)?;
            check_not_checked_out(repository, to)?;
        }
        let git = Git::find()?;
        let scratch = Scratch::importing(&git, repository, cancel)?;
        let bundle = Bundle::open(self.bundle, repository.object_format())?;
        let wanted = self.wanted(&bundle.heads)?;
        take(&scratch, bundle.pack, &wanted)?;
        let mut changes = Vec::new();
        for reference in wanted {
            changes.extend(self.change(repository, &scratch, reference)?);
        }
        update(&scratch, &changes)?;
        Ok(changes.into_iter().map(|change| change.reference).collect())
    }

    fn wanted(&self, offered: &BTreeMap<String, String>) -> Result<Vec<Reference>> {
        if self.branches.is_empty() || self.branches.len() > MAX_BRANCHES {
            return Err(Error::Hostile(format!("it has {} branches", self.branches.len())));
        }
        let commit_of = |branch: &String| {
            check_branch(branch)?;
            let missing = || Error::Hostile("it lacks a branch that it should have".to_owned());
            offered.get(branch).cloned().ok_or_else(missing)
        };
        let mut wanted = Vec::new();
        for branch in self.branches {
            wanted.push(Reference {
                name: format!("refs/banger/{}/{branch}", self.vm),
                commit: commit_of(branch)?,
            });
        }
        if let Some(to) = self.to {
            wanted.push(Reference {
                name: format!("{BRANCHES}{to}"),
                commit: commit_of(&self.branches[0])?,
            });
        }
        Ok(wanted)
    }

    /// What has to be done for a reference; nothing where it is there already.
    fn change(
        &self,
        repository: &Repository,
        scratch: &Scratch,
        reference: Reference,
    ) -> Result<Option<Change>> {
        let old = repository.resolve(&reference.name)?;
        let Some(old) = old else {
            return Ok(Some(Change { reference, old: None }));
        };
        if old == reference.commit {
            return Ok(None);
        }
        let own_branch = reference.name.starts_with(BRANCHES);
        // A branch of the owner's only ever goes forward; what was brought out can be replaced.
        if (own_branch || !self.force) && !is_ancestor(scratch, &old, &reference.commit)? {
            return Err(Error::Rejected {
                name: reference.name,
                can_force: !own_branch,
            });
        }
        Ok(Some(Change {
            reference,
            old: Some(old),
        }))
    }
}

struct Change {
    reference: Reference,
    old: Option<String>,
}

/// A bundle as gitformat-bundle(5) has it.
struct Bundle {
    /// Branches and their commits.
    heads: BTreeMap<String, String>,
    /// Stands where the pack begins.
    pack: File,
}

impl Bundle {
    /// Reads what is before the pack. git itself is not asked: what it makes of a bundle's
    /// objects depends on its version, see [`take`].
    fn open(path: &Path, object_format: &str) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        if metadata.len() > MAX_BUNDLE {
            return Err(Error::Hostile(format!("it has more than {MAX_BUNDLE} bytes")));
        }
        let mut reader = BufReader::new(file.take(HEAD_LIMIT));
        let mut position = 0;
        let mut next = || -> Result<String> {
            let mut line = Vec::new();
            let length = reader
                .read_until(b'\n', &mut line)
                .map_err(Error::io("read", path))?;
            position += length as u64;
            if line.pop() != Some(b'\n') {
                return Err(no_bundle());
            }
            // Names that are no text are none of those that are asked for.
            Ok(String::from_utf8_lossy(&line).into_owned())
        };
        let version = next()?;
        if !matches!(version.as_str(), "# v2 git bundle" | "# v3 git bundle") {
            return Err(no_bundle());
        }
        let mut heads = BTreeMap::new();
        loop {
            let line = next()?;
            if line.is_empty() {
                break;
            }
            if let Some(capability) = line.strip_prefix('@') {
                if capability.strip_prefix("object-format=") != Some(object_format) {
                    return Err(Error::Hostile("it is of another kind of repository".to_owned()));
                }
            } else if !line.starts_with('-') {
                let (commit, name) = line.split_once(' ').ok_or_else(no_bundle)?;
                if let Some(branch) = name.strip_prefix(BRANCHES)
                    && is_object(commit)
                {
                    heads.insert(branch.to_owned(), commit.to_owned());
                }
            }
        }
        let mut pack = reader.into_inner().into_inner();
        pack.seek(SeekFrom::Start(position))
            .map_err(Error::io("read", path))?;
        Ok(Self { heads, pack })
    }
}

fn no_bundle() -> Error {
    Error::Hostile("it is no bundle of git's".to_owned())
}

/// Takes the objects, and no reference: each is checked as those of a stranger, and none may be
/// missing. `git fetch` from a bundle would be simpler, and checks nothing before git 2.46,
/// whatever `fetch.fsckObjects` says.
fn take(scratch: &Scratch, pack: File, wanted: &[Reference]) -> Result<()> {
    let taken = scratch
        .command([
            "index-pack",
            "--stdin",
            "--fix-thin",
            "--strict",
            "--fsck-objects",
        ])
        .input_file(pack)
        .status()?;
    if taken.code != Some(0) {
        return Err(Error::Hostile(reason(&taken.stderr)));
    }
    let commits: String = wanted
        .iter()
        .map(|reference| format!("{}\n", reference.commit))
        .collect();
    let connected = scratch
        .command(["rev-list", "--objects", "--stdin", "--not", "--all", "--quiet"])
        .input(commits.into_bytes())
        .status()?;
    if connected.code == Some(0) {
        return Ok(());
    }
    Err(Error::Hostile("objects are missing".to_owned()))
}

/// The first line that says something, without what a terminal would obey.
fn reason(text: &str) -> String {
    let line = text
        .lines()
        .find(|line| line.starts_with("error:") || line.starts_with("fatal:"));
    let line = line.unwrap_or("git refuses it");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn is_ancestor(scratch: &Scratch, old: &str, new: &str) -> Result<bool> {
    let done = scratch
        .command(["merge-base", "--is-ancestor", old, new])
        .status()?;
    Ok(done.code == Some(0))
}

/// Writes all references in one transaction, if nobody has changed them meanwhile.
fn update(scratch: &Scratch, changes: &[Change]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut lines = String::from("start\n");
    for Change { reference, old } in changes {
        let Reference { name, commit } = reference;
        match old {
            Some(old) => lines.push_str(&format!("update {name} {commit} {old}\n")),
            None => lines.push_str(&format!("create {name} {commit}\n")),
        }
    }
    lines.push_str("prepare\ncommit\n");
    scratch
        .command(["update-ref", "--stdin"])
        .config("core.logAllRefUpdates=false")
        .input(lines.into_bytes())
        .run()
        .map(drop)
}

/// A branch that some work tree has checked out would no longer be what its files are.
fn check_not_checked_out(repository: &Repository, branch: &str) -> Result<()> {
    let common = repository.common_dir();
    let name = format!("{BRANCHES}{branch}");
    let others = fs::read_dir(common.join("worktrees"));
    let others = others.into_iter().flatten().flatten().take(MAX_WORK_TREES);
    let mut dirs = vec![common.to_owned(), repository.git_dir().to_owned()];
    dirs.extend(others.map(|entry| entry.path()));
    for dir in dirs {
        if let Some(Value::Symbolic(head)) = refs::read_loose(&dir.join("HEAD"))?
            && head == name
        {
            return Err(Error::CheckedOut(branch.to_owned()));
        }
    }
    Ok(())
}
