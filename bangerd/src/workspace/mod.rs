//! A repository of the owner's in a guest, and what was made there out again. What goes in and
//! how it is checked is `banger-workspace`'s; the way into the guest is the agent's file service.

mod check;
mod error;
mod export;
mod head;
mod list;
mod mise;
mod prepare;
mod run;
mod within;

pub(crate) use check::check;
pub(crate) use export::{Export, export};
pub(crate) use list::list;
pub(crate) use mise::bootstrap;
pub(crate) use prepare::prepare;
pub(crate) use within::{is_wanted, within};

use std::path::Path;

use banger_bus::{Error, ErrorKind, Result, WorkspaceOptions};
use banger_model::Workspace;
use banger_model::limits::MAX_PATH;
use banger_workspace::{Options, Owner};

/// What is asked for, checked.
pub(crate) struct Request {
    path: String,
    options: Options,
    /// Not said: as it was the last time.
    mode_is_open: bool,
    untracked_is_open: bool,
    guest_path: Option<String>,
    force: bool,
}

impl Request {
    /// # Errors
    /// `InvalidArgument`, naming what is wrong.
    pub(crate) fn new(path: String, options: WorkspaceOptions) -> Result<Self> {
        let invalid = |text: String| Error::new(ErrorKind::InvalidArgument, text);
        check_path(&path)?;
        if let Some(guest_path) = &options.guest_path {
            check_path(guest_path)?;
            if Path::new(guest_path).file_name().is_none() {
                return Err(invalid(format!("Not a place for a workspace: {guest_path:?}")));
            }
        }
        if options.from.is_some() && options.branch.is_none() {
            return Err(invalid(
                "A commit to start from needs the name of the new branch".to_owned(),
            ));
        }
        if let Some(branch) = &options.branch {
            banger_workspace::check_branch(branch).map_err(|e| invalid(e.to_string()))?;
        }
        let mode = options.mode.as_deref().map(str::parse).transpose();
        Ok(Self {
            path,
            mode_is_open: options.mode.is_none(),
            untracked_is_open: options.include_untracked.is_none(),
            options: Options {
                mode: mode
                    .map_err(|e: banger_workspace::BadMode| invalid(e.to_string()))?
                    .unwrap_or_default(),
                include_untracked: options.include_untracked.unwrap_or(false),
                branch: options.branch,
                from: options.from,
                owner: Owner::of_environment(),
            },
            guest_path: options.guest_path,
            force: options.force.unwrap_or(false),
        })
    }
}

impl Request {
    /// Takes from what is in the guest already what was not said: the next sync of the same
    /// repository does what the last one did.
    fn go_on_from(&mut self, known: &Workspace) {
        if !Path::new(&self.path).starts_with(&known.host_path) {
            return;
        }
        if let (true, Ok(mode)) = (self.mode_is_open, known.mode.parse()) {
            self.options.mode = mode;
        }
        if self.untracked_is_open {
            self.options.include_untracked = known.include_untracked;
        }
    }
}

fn check_path(path: &str) -> Result<()> {
    if path.starts_with('/') && !path.contains('\0') && path.len() <= MAX_PATH {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("Not an absolute path: {path:?}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_sync_does_what_the_last_one_did() {
        let known = Workspace {
            host_path: "/home/a/repo".to_owned(),
            guest_path: "/root/repo".to_owned(),
            mode: "full_copy".to_owned(),
            commit: String::new(),
            include_untracked: true,
            mise: false,
        };
        let after = |path: &str, options: WorkspaceOptions| {
            let mut request = Request::new(path.to_owned(), options).unwrap();
            request.go_on_from(&known);
            (
                request.options.mode.to_string(),
                request.options.include_untracked,
            )
        };
        let open = WorkspaceOptions::default;
        assert_eq!(after("/home/a/repo", open()), ("full_copy".to_owned(), true));
        assert_eq!(after("/home/a/repo/src", open()), ("full_copy".to_owned(), true));
        assert_eq!(
            after("/home/a/other", open()),
            ("shallow_overlay".to_owned(), false)
        );
        let said = WorkspaceOptions {
            mode: Some("shallow_overlay".to_owned()),
            include_untracked: Some(false),
            ..open()
        };
        assert_eq!(after("/home/a/repo", said), ("shallow_overlay".to_owned(), false));
    }
}
