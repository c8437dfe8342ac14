//! Finding a repository and reading what it says of itself.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Cancel;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::git::Git;
use crate::read;
use crate::refs::{self, Value};

/// Of `.git` and `commondir`, which hold one path.
const POINTER_LIMIT: usize = 8192;
/// Extensions that change nothing for a reader of objects, references and the index.
const EXTENSIONS: [&str; 6] = [
    "noop",
    "preciousobjects",
    "partialclone",
    "objectformat",
    "worktreeconfig",
    "relativeworktrees",
];

/// A repository with a work tree.
#[derive(Debug, Clone)]
pub struct Repository {
    work_tree: PathBuf,
    git_dir: PathBuf,
    common_dir: PathBuf,
    pub(crate) config: Config,
}

/// Where HEAD is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Without `refs/heads/`; `None` when it is detached.
    pub branch: Option<String>,
    pub commit: String,
}

impl Repository {
    /// Finds the repository that `path` (absolute) is in. Ownership is not asked for, as git
    /// does: nothing of what is found is run.
    ///
    /// # Errors
    /// When there is none, or one that cannot be used, each kind with its own error.
    pub fn discover(path: &Path) -> Result<Self> {
        let start = path.canonicalize().map_err(Error::io("open", path))?;
        for dir in start.ancestors() {
            if let Some(git_dir) = git_dir_of(dir)? {
                return Self::open(dir, git_dir);
            }
            if looks_like_git_dir(dir) {
                return Err(Error::Bare(dir.to_owned()));
            }
        }
        Err(Error::NotARepository(path.to_owned()))
    }

    /// Where HEAD of a known work tree is, without starting a process: what kind of repository
    /// it is was found out before.
    ///
    /// # Errors
    /// When it is none any more, or cannot be read.
    pub fn head_of(work_tree: &Path) -> Result<Head> {
        let git_dir = git_dir_of(work_tree)?.ok_or_else(|| Error::NotARepository(work_tree.to_owned()))?;
        let this = Self {
            work_tree: work_tree.to_owned(),
            common_dir: common_dir_of(&git_dir)?,
            git_dir,
            config: Config::default(),
        };
        this.head()
    }

    fn open(work_tree: &Path, git_dir: PathBuf) -> Result<Self> {
        let common_dir = common_dir_of(&git_dir)?;
        let config = Config::of_repository(&Git::find()?, &git_dir, &common_dir, &Cancel::new())?;
        let this = Self {
            work_tree: work_tree.to_owned(),
            git_dir,
            common_dir,
            config,
        };
        this.check()?;
        Ok(this)
    }

    fn check(&self) -> Result<()> {
        let unsupported = |what: String| {
            Err(Error::Unsupported {
                path: self.work_tree.clone(),
                what,
            })
        };
        if self.config.flag("core.bare") == Some(true) {
            return Err(Error::Bare(self.work_tree.clone()));
        }
        let refs = self.config.get("extensions.refstorage").unwrap_or("files");
        if !refs.eq_ignore_ascii_case("files") || self.common_dir.join("reftable").is_dir() {
            return unsupported("its references in reftables".to_owned());
        }
        if !matches!(self.object_format(), "sha1" | "sha256") {
            return unsupported("objects of an unknown format".to_owned());
        }
        let version = self.config.get("core.repositoryformatversion").unwrap_or("0");
        if !matches!(version.trim(), "0" | "1") {
            return unsupported(format!("a format of version {:?}", shortened(version)));
        }
        let known = |name: &str| EXTENSIONS.contains(&name) || matches!(name, "refstorage");
        let unknown = self.config.section("extensions").find(|name| !known(name));
        match unknown {
            Some(name) if version.trim() == "1" => {
                unsupported(format!("an extension called {:?}", shortened(name)))
            }
            _ => Ok(()),
        }
    }

    /// The canonical path of the directory that holds `.git`.
    pub fn work_tree(&self) -> &Path {
        &self.work_tree
    }

    /// What is this work tree's own: HEAD, the index.
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// What all work trees share: objects, references, the configuration.
    pub fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// `sha1` or `sha256`.
    pub fn object_format(&self) -> &str {
        self.config.get("extensions.objectformat").unwrap_or("sha1")
    }

    /// Where HEAD is; reads files only.
    ///
    /// # Errors
    /// [`Error::Empty`] when its branch has no commit yet.
    pub fn head(&self) -> Result<Head> {
        let path = self.git_dir.join("HEAD");
        let damaged = |what: &str| Error::Damaged {
            path: path.clone(),
            what: what.to_owned(),
        };
        match refs::read_loose(&path)?.ok_or_else(|| damaged("it is missing"))? {
            Value::Commit(commit) => Ok(Head { branch: None, commit }),
            Value::Symbolic(name) => {
                let commit = self.resolve(&name)?;
                let commit = commit.ok_or_else(|| Error::Empty(self.work_tree.clone()))?;
                let branch = name.strip_prefix("refs/heads/").map(str::to_owned);
                Ok(Head { branch, commit })
            }
        }
    }

    /// What a full name of a reference stands for; reads files only.
    ///
    /// # Errors
    /// When its file cannot be read or holds something else.
    pub fn resolve(&self, name: &str) -> Result<Option<String>> {
        refs::resolve(&self.common_dir, name)
    }

    /// Whether git would look for the files elsewhere. A repository's word is not enough to read
    /// another directory.
    pub(crate) fn names_another_work_tree(&self) -> bool {
        let named = self
            .config
            .get("core.worktree")
            .map(|path| self.git_dir.join(path));
        named.is_some_and(|path| path.canonicalize().ok().as_ref() != Some(&self.work_tree))
    }

    /// Whether objects may be missing by intent.
    pub(crate) fn is_partial(&self) -> bool {
        self.config.get("extensions.partialclone").is_some()
            || self.config.names().any(|name| {
                name.starts_with("remote.")
                    && (name.ends_with(".promisor") || name.ends_with(".partialclonefilter"))
            })
    }
}

/// The directory that a full copy takes: the one with `.git`, a bare repository, or `path` itself.
pub(crate) fn root_of(path: &Path) -> Result<PathBuf> {
    let start = path.canonicalize().map_err(Error::io("open", path))?;
    if !start.is_dir() {
        return Err(Error::NotARepository(start));
    }
    let has_git =
        |dir: &&Path| std::fs::symlink_metadata(dir.join(".git")).is_ok() || looks_like_git_dir(dir);
    let found = start.ancestors().find(has_git).map(Path::to_owned);
    Ok(found.unwrap_or(start))
}

/// The directory that `dir/.git` is or points to, when it is one of git's.
fn git_dir_of(dir: &Path) -> Result<Option<PathBuf>> {
    let path = dir.join(".git");
    let Ok(metadata) = std::fs::metadata(&path) else {
        return Ok(None);
    };
    if metadata.is_dir() {
        return Ok(looks_like_git_dir(&path).then_some(path));
    }
    let Some(target) = pointer(&path, "gitdir:")? else {
        return Ok(None);
    };
    let git_dir = dir.join(target);
    if git_dir.join("HEAD").is_file() {
        return Ok(Some(git_dir));
    }
    Err(Error::Damaged {
        path,
        what: "it points to a directory that is no repository".to_owned(),
    })
}

fn common_dir_of(git_dir: &Path) -> Result<PathBuf> {
    let target = pointer(&git_dir.join("commondir"), "")?;
    let common_dir = target.map_or_else(|| git_dir.to_owned(), |target| git_dir.join(target));
    if common_dir.join("objects").is_dir() {
        return common_dir.canonicalize().map_err(Error::io("open", common_dir));
    }
    Err(Error::Damaged {
        path: git_dir.to_owned(),
        what: "it has no objects".to_owned(),
    })
}

/// The one path that a file holds.
fn pointer(path: &Path, prefix: &str) -> Result<Option<PathBuf>> {
    let Some(bytes) = read::small(path, POINTER_LIMIT)? else {
        return Ok(None);
    };
    let Some(rest) = bytes.strip_prefix(prefix.as_bytes()) else {
        return Ok(None);
    };
    let target = rest.trim_ascii();
    let fine = !target.is_empty() && !target.contains(&0);
    Ok(fine.then(|| PathBuf::from(std::ffi::OsStr::from_bytes(target))))
}

/// git's own test, as far as it asks for names.
fn looks_like_git_dir(dir: &Path) -> bool {
    let has_head = std::fs::symlink_metadata(dir.join("HEAD")).is_ok_and(|m| !m.is_dir());
    has_head && (dir.join("commondir").is_file() || dir.join("objects").is_dir() && dir.join("refs").is_dir())
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}
