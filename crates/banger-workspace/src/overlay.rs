//! The commit as a shallow clone, and the files of the work tree over it: what belongs to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Cancel;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::git::Git;
use crate::index::{self, Entry};
use crate::options::Options;
use crate::refs;
use crate::repository::{Head, Repository};
use crate::scratch::Scratch;
use crate::stat::{Found, Kind, Lookup, Stat};
use crate::state::{self, State};
use crate::tree;

/// How many names a note has.
const NAMED: usize = 5;

/// What is needed to make the guest's `.git` and to list its files.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub(crate) repository: Repository,
    pub(crate) scratch: Arc<Scratch>,
    /// Where the guest's HEAD will be.
    pub(crate) head: Head,
    pub(crate) state: State,
    pub(crate) owner: Config,
    /// Whether the scratch has an index for the guest.
    pub(crate) has_index: bool,
    /// What the index has beyond the commit.
    pub(crate) objects: Vec<String>,
    /// Where the files are.
    pub(crate) files_root: PathBuf,
    pub(crate) files: BTreeMap<PathBuf, Stat>,
    pub(crate) notes: Vec<String>,
}

impl Overlay {
    pub(crate) fn new(path: &Path, options: &Options, cancel: &Cancel) -> Result<Self> {
        if let Some(branch) = &options.branch {
            refs::check_branch(branch)?;
        }
        let git = Git::find()?;
        let repository = Repository::discover(path)?;
        let head = repository.head()?;
        let scratch = Arc::new(Scratch::reading(&git, &repository, cancel)?);
        scratch.write("HEAD", format!("{}\n", head.commit).as_bytes())?;
        let owner = options.owner.config(&git, cancel)?;
        let mut this = Self {
            files_root: repository.work_tree().to_owned(),
            repository,
            scratch,
            head,
            state: State::default(),
            owner,
            has_index: true,
            objects: Vec::new(),
            files: BTreeMap::new(),
            notes: Vec::new(),
        };
        match &options.from {
            Some(from) => this.take_commit(from)?,
            None => this.take_work_tree(options)?,
        }
        if let Some(branch) = &options.branch {
            this.head.branch = Some(branch.clone());
        }
        Ok(this)
    }

    /// A commit's own tree and nothing of the work tree.
    fn take_commit(&mut self, from: &str) -> Result<()> {
        let commit = tree::resolve(&self.scratch, from)?;
        self.files_root = self.scratch.path().join("tree");
        let entries = tree::extract(&self.repository, &self.scratch, &commit, &self.files_root)?;
        for entry in entries {
            let stat = crate::stat::of(&self.files_root.join(&entry.path))?;
            self.files.insert(entry.path, stat);
        }
        self.head = Head { branch: None, commit };
        Ok(())
    }

    fn take_work_tree(&mut self, options: &Options) -> Result<()> {
        if self.repository.names_another_work_tree() {
            self.notes.push(
                "The repository names another directory as its work tree (core.worktree): its own is taken."
                    .to_owned(),
            );
        }
        self.state = state::of(&self.repository)?;
        self.notes.extend(self.state.note.clone());
        self.has_index = index::import(&self.repository, &self.scratch)?.is_some();
        let entries = index::entries(&self.repository, &self.scratch)?;
        self.require_commit()?;
        if self.has_index {
            self.objects = index::objects_beyond(&self.scratch, &self.head.commit, &entries)?;
        }
        let mut lookup = Lookup::new(self.repository.work_tree())?;
        let paths: Vec<_> = entries.iter().map(|entry| entry.path.as_path()).collect();
        self.look_up(&mut lookup, &paths)?;
        self.note_pointers(&entries)?;
        self.take_untracked(options, &mut lookup)
    }

    fn require_commit(&self) -> Result<()> {
        let commit = format!("{}^{{commit}}", self.head.commit);
        let done = self.scratch.command(["cat-file", "-e", &commit]).status()?;
        if done.code == Some(0) {
            return Ok(());
        }
        Err(self.damaged(&format!("its commit {} cannot be read", self.head.commit)))
    }

    pub(crate) fn damaged(&self, what: &str) -> Error {
        let path = self.repository.work_tree().to_owned();
        if self.repository.is_partial() {
            return Error::MissingObjects(path);
        }
        Error::Damaged {
            path,
            what: what.to_owned(),
        }
    }

    /// Those that are missing are deletions. A directory in a file's place is one too.
    fn look_up(&mut self, lookup: &mut Lookup, paths: &[&Path]) -> Result<()> {
        let mut unreadable = Vec::new();
        let mut special = Vec::new();
        for &path in paths {
            if self.files.contains_key(path) {
                continue;
            }
            match lookup.find(path)? {
                Found::Thing(stat) if stat.kind != Kind::Directory => {
                    self.files.insert(path.to_owned(), stat);
                }
                Found::Thing(_) | Found::Nothing => {}
                Found::Unreadable => unreadable.push(path),
                Found::Special => special.push(path),
            }
        }
        self.notes.extend(left_out("cannot be read", &unreadable));
        self.notes
            .extend(left_out("are neither files, links nor directories", &special));
        Ok(())
    }

    /// Files of Git LFS come as the work tree has them; git in the guest takes them for clean by
    /// their size and time alone.
    fn note_pointers(&mut self, entries: &[Entry]) -> Result<()> {
        if !entries
            .iter()
            .any(|entry| entry.path == Path::new(".gitattributes"))
        {
            return Ok(());
        }
        let attributes = crate::read::own(self.repository.work_tree(), ".gitattributes", 1 << 20)?;
        let text = String::from_utf8_lossy(attributes.as_deref().unwrap_or_default()).into_owned();
        if text.contains("filter=lfs") {
            self.notes.push(
                "Files of Git LFS go in as the work tree has them; new ones need git-lfs in the guest."
                    .to_owned(),
            );
        }
        Ok(())
    }

    fn take_untracked(&mut self, options: &Options, lookup: &mut Lookup) -> Result<()> {
        let excludes = options.owner.excludes(&self.owner)?;
        let untracked = index::untracked(&self.repository, &self.scratch, &excludes)?;
        if options.include_untracked {
            let repositories: Vec<_> = untracked.repositories.iter().map(PathBuf::as_path).collect();
            self.notes
                .extend(left_out("are repositories of their own", &repositories));
            let files: Vec<_> = untracked.files.iter().map(PathBuf::as_path).collect();
            return self.look_up(lookup, &files);
        }
        match untracked.files.len() {
            0 => {}
            1 => self.notes.push(
                "1 file that git does not track stays out; `--include-untracked` takes it along.".to_owned(),
            ),
            count => self.notes.push(format!(
                "{count} files that git does not track stay out; `--include-untracked` takes them along."
            )),
        }
        Ok(())
    }

    /// The bytes of the guest's index.
    pub(crate) fn index(&self) -> Result<Option<Vec<u8>>> {
        if !self.has_index {
            return Ok(None);
        }
        let path = self.scratch.path().join("index");
        fs::read(&path).map(Some).map_err(Error::io("read", path))
    }
}

/// A sentence about what stays out, or nothing.
pub(crate) fn left_out(why: &str, paths: &[&Path]) -> Option<String> {
    if paths.is_empty() {
        return None;
    }
    let mut names: Vec<_> = paths
        .iter()
        .take(NAMED)
        .map(|path| format!("{:?}", path.to_string_lossy()))
        .collect();
    if paths.len() > NAMED {
        names.push(format!("{} more", paths.len() - NAMED));
    }
    Some(format!("Left out, because they {why}: {}.", names.join(", ")))
}
