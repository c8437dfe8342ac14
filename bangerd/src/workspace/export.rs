//! What was made in a workspace, out of the guest.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_bus::{Error, ErrorKind, JobOutcome, Result, WorkspaceExportOptions};
use banger_files::{Root, Rules};
use banger_model::Workspace;
use banger_model::agent::Request;
use banger_workspace::import::{Import, MAX_BRANCHES, MAX_BUNDLE};
use banger_workspace::{Repository, check_branch};

use super::check_path;
use super::error::blocking;
use super::run::{self, Ended};
use crate::core::Vm;
use crate::core::progress::JobContext;
use crate::guest::Agent;
use crate::guest::files;

/// The largest patch that is taken, in bytes.
const MAX_PATCH: u64 = 1 << 30;
/// A list of references, in bytes.
const MAX_LIST: u64 = 4 << 20;
/// The status of a command that is not there.
const NOT_FOUND: i32 = 127;
const BRANCHES: &str = "refs/heads/";

/// What is asked for.
pub(crate) enum Export {
    Commits { to: Option<String>, force: bool },
    Patch(PathBuf),
    Directory(PathBuf),
}

impl Export {
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn new(options: WorkspaceExportOptions) -> Result<Self> {
        let invalid = |text: &str| Error::new(ErrorKind::InvalidArgument, text);
        match (options.to, options.patch, options.directory) {
            (to, None, None) => {
                if let Some(to) = &to {
                    check_branch(to).map_err(|e| invalid(&e.to_string()))?;
                }
                Ok(Self::Commits {
                    to,
                    force: options.force.unwrap_or(false),
                })
            }
            (None, Some(patch), None) => check_path(&patch).map(|()| Self::Patch(patch.into())),
            (None, None, Some(directory)) => {
                check_path(&directory).map(|()| Self::Directory(directory.into()))
            }
            _ => Err(invalid("A branch, a patch or a directory: ask for one of them")),
        }
    }
}

/// Brings out what is asked for.
///
/// # Errors
/// `NoWorkspace`, `WouldOverwrite`, `BadGuest` and others.
pub(crate) async fn export(
    vm: &Arc<Vm>,
    agent: Arc<Agent>,
    export: Export,
    ctx: &JobContext,
) -> Result<JobOutcome> {
    let out = Out {
        workspace: vm.expect_workspace()?,
        vm: vm.name(),
        agent,
        ctx,
    };
    let names = match export {
        Export::Commits { to, force } => out.commits(to, force).await?,
        Export::Patch(file) => out.patch(&file).await?,
        Export::Directory(directory) => out.directory(&directory).await?,
    };
    Ok(JobOutcome {
        names,
        ..JobOutcome::done()
    })
}

struct Out<'a> {
    workspace: Workspace,
    vm: String,
    agent: Arc<Agent>,
    ctx: &'a JobContext,
}

impl Out<'_> {
    async fn commits(&self, to: Option<String>, force: bool) -> Result<Vec<String>> {
        self.ctx.stage("Asking the guest for commits");
        let base = self.base()?.to_owned();
        self.check_head(&base).await?;
        let branches = self.branches(&base).await?;
        if branches.is_empty() {
            return Ok(Vec::new());
        }
        let full: Vec<_> = branches
            .iter()
            .map(|branch| format!("{BRANCHES}{branch}"))
            .collect();
        let bundle = tempfile::NamedTempFile::new().map_err(|e| cannot_write(&std::env::temp_dir(), &e))?;
        let mut argv = vec!["git", "bundle", "create", "-q", "-"];
        // In full: a tag may have the same short name.
        argv.extend(full.iter().map(String::as_str));
        argv.extend(["--not", &base]);
        let file = bundle.reopen().map_err(|e| cannot_write(bundle.path(), &e))?;
        self.ctx.stage("Fetching commits");
        let ended = self.git_to(&argv, file, MAX_BUNDLE).await?;
        good(&ended)?;
        self.ctx.stage("Checking commits");
        let (host, vm) = (PathBuf::from(&self.workspace.host_path), self.vm.clone());
        let written = blocking(self.ctx, move |cancel| {
            let repository = Repository::discover(&host)?;
            let import = Import {
                vm: &vm,
                bundle: bundle.path(),
                to: to.as_deref(),
                branches: &branches,
                force,
            };
            import.run(&repository, cancel)
        });
        Ok(written
            .await?
            .into_iter()
            .map(|reference| reference.name)
            .collect())
    }

    /// Commits that are on no branch would be left behind without a word.
    async fn check_head(&self, base: &str) -> Result<()> {
        let on_branch = self.ask(&["git", "symbolic-ref", "-q", "HEAD"]).await?.0;
        if on_branch.status != 1 {
            return good(&on_branch);
        }
        let new = ["git", "for-each-ref", "--count=1", "--contains=HEAD", BRANCHES];
        let (ended, holder) = self.ask(&new).await?;
        good(&ended)?;
        let (ended, head) = self.ask(&["git", "rev-parse", "HEAD"]).await?;
        good(&ended)?;
        if head.trim() == base || !holder.trim().is_empty() {
            return Ok(());
        }
        let text = format!("The commits in {} are on no branch", self.workspace.guest_path);
        Err(Error::new(ErrorKind::WrongState, text)
            .hint("Make one for them in the guest: `git switch -c NAME`."))
    }

    async fn ask(&self, argv: &[&str]) -> Result<(Ended, String)> {
        run::output(&self.agent, self.ctx, argv, &self.workspace.guest_path, MAX_LIST).await
    }

    /// The guest's branches that have something new, the checked-out one first.
    async fn branches(&self, base: &str) -> Result<Vec<String>> {
        let (format, new) = ("--format=%(HEAD)%(refname)", format!("--no-merged={base}"));
        let (ended, text) = self.ask(&["git", "for-each-ref", format, &new, BRANCHES]).await?;
        good(&ended)?;
        let mut branches = Vec::new();
        for line in text.lines() {
            let current = line.starts_with('*');
            let branch = line.get(1..).and_then(|name| name.strip_prefix(BRANCHES));
            let branch = branch.ok_or_else(|| bad_guest("a list of branches that is not understood"))?;
            check_branch(branch).map_err(|_| bad_guest("a branch whose name cannot be one"))?;
            let at = if current { 0 } else { branches.len() };
            branches.insert(at, branch.to_owned());
        }
        if branches.len() > MAX_BRANCHES {
            return Err(bad_guest("too many branches"));
        }
        Ok(branches)
    }

    async fn patch(&self, file: &Path) -> Result<Vec<String>> {
        self.ctx.stage("Fetching the patch");
        let base = self.base()?;
        let mut options = fs::OpenOptions::new();
        let target = options.write(true).create_new(true).mode(0o644).open(file);
        let target = target.map_err(|e| cannot_write(file, &e))?;
        let argv = [
            "git",
            "diff",
            "--binary",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            base,
        ];
        let done = self
            .git_to(&argv, target, MAX_PATCH)
            .await
            .and_then(|ended| good(&ended));
        if let Err(error) = done {
            // It was made here, and is nothing that anybody could use.
            let _ = fs::remove_file(file);
            return Err(error);
        }
        Ok(vec![file.display().to_string()])
    }

    async fn directory(&self, directory: &Path) -> Result<Vec<String>> {
        self.ctx.stage("Copying");
        fs::create_dir(directory).map_err(|e| cannot_write(directory, &e))?;
        let root = Root::open(directory).map_err(|e| cannot_write(directory, &e))?;
        let request = Request::Get {
            path: self.workspace.guest_path.clone(),
            follow: true,
            name: String::new(),
        };
        let done = files::get(&self.agent, &request, root, Rules::hostile(), self.ctx).await;
        if done.is_err() {
            // It was made here, and is not what was asked for.
            let _ = fs::remove_dir_all(directory);
        }
        let done = done?;
        for path in &done.left_out {
            self.ctx
                .message(&format!("Left out, it leads elsewhere: {path:?}"));
        }
        Ok(vec![directory.display().to_string()])
    }

    /// The commit that the workspace was made from.
    fn base(&self) -> Result<&str> {
        if self.workspace.commit.is_empty() {
            return Err(Error::new(
                ErrorKind::BadRepository,
                format!(
                    "{} has no commit that the guest's could follow",
                    self.workspace.host_path
                ),
            )
            .hint("`--dir` brings the files out."));
        }
        Ok(&self.workspace.commit)
    }

    async fn git_to(&self, argv: &[&str], file: File, limit: u64) -> Result<Ended> {
        run::to_file(
            &self.agent,
            self.ctx,
            argv,
            &self.workspace.guest_path,
            file,
            limit,
        )
        .await
    }
}

fn good(ended: &Ended) -> Result<()> {
    match ended.status {
        0 => Ok(()),
        NOT_FOUND => Err(Error::new(ErrorKind::MissingTool, "There is no git in the guest")
            .hint("Install it there, or bring the files out with `--dir`.")),
        status => Err(Error::new(
            ErrorKind::BadGuest,
            format!("git failed in the guest (status {status}): {}", ended.stderr),
        )),
    }
}

fn bad_guest(what: &str) -> Error {
    Error::new(ErrorKind::BadGuest, format!("The guest sent {what}"))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        return Error::new(
            ErrorKind::WouldOverwrite,
            format!("{} is there already", path.display()),
        )
        .hint("Name one that is new.");
    }
    crate::core::error::io("write", path, error)
}
