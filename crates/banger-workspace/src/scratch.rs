//! A GIT_DIR of our own that borrows a repository's objects and references.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Cancel;
use crate::error::{Error, Result};
use crate::git::{Command, Git, Reach};
use crate::read;
use crate::refs::is_object;
use crate::repository::Repository;

/// Of `shallow` and `objects/info/alternates`.
const LIST_LIMIT: usize = 16 << 20;
/// Of `info/exclude` and `info/attributes`.
const INFO_LIMIT: usize = 1 << 20;
/// How far alternates of alternates are followed; git's own limit.
const ALTERNATES_DEPTH: usize = 5;
const ALTERNATES: usize = 64;

/// A temporary directory that git takes for its repository. Its configuration, HEAD and hooks
/// are ours; it goes when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    git: Git,
    cancel: Cancel,
    reach: Reach,
    /// For import: the repository's own objects are written to.
    objects: Option<PathBuf>,
    /// Where the borrowed history ends, as the repository has it.
    pub(crate) shallow: Vec<String>,
}

impl Scratch {
    /// For reading: the repository cannot be changed by what runs in it.
    ///
    /// # Errors
    /// When it cannot be made, or the repository's lists cannot be read.
    pub fn reading(git: &Git, repository: &Repository, cancel: &Cancel) -> Result<Self> {
        let mut this = Self::make(git, repository, cancel)?;
        let objects = repository.common_dir().join("objects");
        this.write("objects/info/alternates", quoted(&objects).as_bytes())?;
        this.reach.readable.push(repository.work_tree().to_owned());
        Ok(this)
    }

    /// For import: new objects and references go into the repository itself.
    ///
    /// # Errors
    /// As there.
    pub fn importing(git: &Git, repository: &Repository, cancel: &Cancel) -> Result<Self> {
        let mut this = Self::make(git, repository, cancel)?;
        let common = repository.common_dir();
        let objects = common.join("objects");
        this.reach.writable.extend([objects.clone(), common.join("refs")]);
        this.objects = Some(objects);
        Ok(this)
    }

    fn make(git: &Git, repository: &Repository, cancel: &Cancel) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("banger-git-")
            .tempdir()
            .map_err(Error::io("make a directory in", std::env::temp_dir()))?;
        let common = repository.common_dir();
        let mut readable = vec![common.to_owned(), repository.git_dir().to_owned()];
        readable.extend(alternates(&common.join("objects"))?);
        let this = Self {
            reach: Reach {
                readable,
                writable: vec![dir.path().to_owned()],
            },
            dir,
            git: git.clone(),
            cancel: cancel.clone(),
            objects: None,
            shallow: shallow(common)?,
        };
        for name in ["objects/info", "objects/pack", "info", "empty"] {
            let path = this.path().join(name);
            fs::create_dir_all(&path).map_err(Error::io("make", path))?;
        }
        this.write("config", config(repository.object_format()).as_bytes())?;
        // No branch of the repository's is ever checked out here.
        this.write("HEAD", b"ref: refs/scratch/none\n")?;
        for name in ["refs", "packed-refs"] {
            let path = this.path().join(name);
            std::os::unix::fs::symlink(common.join(name), &path).map_err(Error::io("make", path))?;
        }
        for name in ["info/exclude", "info/attributes"] {
            if let Some(bytes) = read::own(common, name, INFO_LIMIT)? {
                this.write(name, &bytes)?;
            }
        }
        this.set_shallow(&this.shallow)?;
        Ok(this)
    }

    /// The directory; besides the repository git reads and writes below it alone.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A git command with this directory as its repository, in an empty work tree.
    pub fn command(&self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Command<'_> {
        let command = self
            .git
            .command(self.path(), &self.reach, &self.cancel, args)
            .within(&self.path().join("empty"))
            .env("HOME", self.path())
            .env("TMPDIR", self.path())
            .env("GIT_DIR", self.path());
        match &self.objects {
            Some(objects) => command.env("GIT_OBJECT_DIRECTORY", objects),
            None => command,
        }
    }

    /// Ends the history at these commits.
    pub(crate) fn set_shallow(&self, commits: &[String]) -> Result<()> {
        let mut commits: Vec<_> = commits.iter().map(String::as_str).collect();
        commits.sort_unstable();
        commits.dedup();
        let path = self.path().join("shallow");
        if commits.is_empty() {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
                _ => Ok(()),
            };
        }
        self.write("shallow", (commits.join("\n") + "\n").as_bytes())
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path().join(name);
        fs::write(&path, bytes).map_err(Error::io("write", path))
    }
}

/// The least that makes a directory a repository.
pub(crate) fn config(object_format: &str) -> String {
    let mut text = String::from("[core]\n\tbare = false\n");
    if object_format == "sha1" {
        text.push_str("\trepositoryformatversion = 0\n");
    } else {
        _ = write!(
            text,
            "\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = {object_format}\n[core]\n"
        );
    }
    text
}

fn shallow(common_dir: &Path) -> Result<Vec<String>> {
    let bytes = read::small(&common_dir.join("shallow"), LIST_LIMIT)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .lines()
        .filter(|line| is_object(line))
        .map(str::to_owned)
        .collect())
}

/// Object directories that a repository borrows from, and those that they borrow from.
fn alternates(objects: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut level = vec![objects.to_owned()];
    for _ in 0..ALTERNATES_DEPTH {
        let mut next = Vec::new();
        for dir in level {
            let bytes = read::small(&dir.join("info/alternates"), LIST_LIMIT)?.unwrap_or_default();
            let lines = bytes.split(|&b| b == b'\n');
            for line in lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")) {
                let path = dir.join(std::ffi::OsStr::from_bytes(line));
                if found.len() < ALTERNATES && !found.contains(&path) {
                    found.push(path.clone());
                    next.push(path);
                }
            }
        }
        level = next;
    }
    Ok(found)
}

/// A path as a line of `alternates`; a quoted one may hold every byte.
fn quoted(path: &Path) -> String {
    let mut line = String::from("\"");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b' '..=b'~' if byte != b'"' && byte != b'\\' => line.push(byte.into()),
            _ => _ = write!(line, "\\{byte:03o}"),
        }
    }
    line.push_str("\"\n");
    line
}
