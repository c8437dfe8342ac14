//! `CopyIn` and `CopyOut`: a file or a directory from here to there, where `docker cp` puts it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_bus::{Error, ErrorKind, JobOutcome, Result};
use banger_files::{Packed, Root, Rules};
use banger_model::agent::{Kind, Look, Request};
use banger_model::limits::MAX_PATH;
use tokio::task::spawn_blocking;

use crate::core::progress::JobContext;
use crate::guest::Agent;
use crate::guest::files::{self, Put};

/// Of root, to whom everything belongs that is copied in.
const HOME: &str = "/root";
/// Names in one sentence.
const MAX_NAMED: usize = 3;

/// What to copy and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    source: String,
    /// What is in the source directory, and not the directory itself: it ended in `/.`.
    contents: bool,
    target: String,
    /// The target ended in a slash: it is to be a directory.
    into: bool,
    follow: bool,
}

/// Where a copy goes.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// A directory that is there.
    directory: String,
    /// The name in it; nothing for what goes right into it.
    name: String,
}

/// A path of the guest: a relative one begins at the user's home, as scp(1) has it.
pub(crate) fn in_guest(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else if path.is_empty() {
        HOME.to_owned()
    } else {
        format!("{HOME}/{path}")
    }
}

impl Copy {
    /// # Errors
    /// When one of the paths cannot be one.
    pub(crate) fn new(source: &str, target: &str, follow: bool) -> Result<Self> {
        for path in [source, target] {
            if !path.starts_with('/') || path.contains('\0') || path.len() > MAX_PATH {
                return Err(invalid(format!("Not an absolute path: {path:?}")));
            }
        }
        Ok(Self {
            source: trimmed(source.strip_suffix("/.").unwrap_or(source)).to_owned(),
            contents: source.ends_with("/."),
            target: trimmed(target.strip_suffix("/.").unwrap_or(target)).to_owned(),
            into: target.ends_with('/') || target.ends_with("/."),
            follow,
        })
    }

    /// Copies from the host into the guest, where everything becomes root's.
    ///
    /// # Errors
    /// When it cannot be read here or written there, or is cancelled.
    pub(crate) async fn into_guest(self, agent: Arc<Agent>, ctx: JobContext) -> Result<JobOutcome> {
        ctx.stage("Copying");
        let (source, follow) = (PathBuf::from(&self.source), self.follow || self.contents);
        let failed = format!("Cannot read {}", self.source);
        let found = spawn_blocking(move || found_here(&source, follow)).await;
        let (source, is_dir) = found
            .map_err(|_| invalid(failed.clone()))?
            .map_err(|error| file_error(&failed, &error))?;
        let there: Look = files::ask(
            &agent,
            &Request::Look {
                path: self.target.clone(),
                follow: true,
            },
        )
        .await?;
        let found = there.found.map(|found| found.kind);
        let place = self.place(is_dir, found, there.parent)?;
        let put = Put {
            root: place.directory,
            make_root: false,
            replace: false,
            owner: Some((0, 0)),
            remove: Vec::new(),
        };
        let name = PathBuf::from(place.name);
        let (answer, packed) = files::put(&agent, put, &ctx, move |packer| {
            let (directory, path) = if is_dir {
                (source.as_path(), Path::new(""))
            } else {
                let parent = source.parent().unwrap_or(Path::new("/"));
                (parent, source.file_name().map_or(Path::new(""), Path::new))
            };
            let root = Root::open(directory).map_err(|source| banger_files::Error::File {
                what: "open",
                path: directory.to_owned(),
                source,
            })?;
            packer.tree(&root, path, &name)
        })
        .await?;
        if answer.files == 0 && !self.contents {
            return Err(invalid(format!(
                "Nothing was copied of {}{}",
                self.source,
                problems(&packed).map_or_else(String::new, |text| format!(": {text}"))
            )));
        }
        if let Some(text) = problems(&packed) {
            ctx.message(&text);
        }
        Ok(JobOutcome::done())
    }

    /// Copies from the guest, which is not trusted, to the owner's files.
    ///
    /// # Errors
    /// When it cannot be read there or written here, or is nothing to take, or is cancelled.
    pub(crate) async fn out_of_guest(self, agent: Arc<Agent>, ctx: JobContext) -> Result<JobOutcome> {
        ctx.stage("Copying");
        let follow = self.follow || self.contents;
        let there: Look = files::ask(
            &agent,
            &Request::Look {
                path: self.source.clone(),
                follow,
            },
        )
        .await?;
        let Some(there) = there.found else {
            return Err(invalid(format!("There is no {:?} in the guest", self.source)));
        };
        if there.kind == Kind::Other {
            return Err(invalid(format!(
                "Not a file or directory: {:?} in the guest",
                self.source
            )));
        }
        let target = PathBuf::from(&self.target);
        let looked = spawn_blocking(move || look_here(&target)).await;
        let (found, parent) = looked.map_err(|_| invalid(format!("Cannot look at {}", self.target)))?;
        let place = self.place(there.kind == Kind::Directory, found, parent)?;
        let directory = PathBuf::from(&place.directory);
        let failed = format!("Cannot open {}", place.directory);
        let opened = spawn_blocking(move || Root::open(&directory)).await;
        let root = opened
            .map_err(|_| invalid(failed.clone()))?
            .map_err(|error| file_error(&failed, &error))?;
        let rules = Rules {
            top: (!place.name.is_empty()).then(|| place.name.clone().into()),
            ..Rules::hostile()
        };
        let request = Request::Get {
            path: self.source,
            follow,
            name: place.name,
        };
        let done = files::get(&agent, &request, root, rules, &ctx).await?;
        if !done.left_out.is_empty() {
            let text = format!(
                "Symbolic links that lead out of the copy were left out: {}",
                named(&done.left_out)
            );
            if done.files == 0 {
                return Err(
                    Error::new(ErrorKind::BadGuest, text).hint("Follow the link to copy what it names.")
                );
            }
            ctx.message(&text);
        }
        Ok(JobOutcome::done())
    }

    /// Where it goes, by what is at the target.
    fn place(&self, is_dir: bool, found: Option<Kind>, parent: bool) -> Result<Place> {
        let target = &self.target;
        if self.contents && !is_dir {
            return Err(invalid(format!("Not a directory: {:?}", self.source)));
        }
        match found {
            Some(Kind::Directory) => Ok(Place {
                directory: target.clone(),
                name: if self.contents {
                    String::new()
                } else {
                    base(&self.source)?.to_owned()
                },
            }),
            Some(_) if is_dir => Err(invalid(format!(
                "Cannot copy a directory over the file {target:?}"
            ))),
            Some(Kind::Other) => Err(invalid(format!("Not a file or directory: {target:?}"))),
            Some(_) if self.into => Err(invalid(format!("Not a directory: {target:?}"))),
            None if !parent || (self.into && !is_dir) => Err(invalid(format!(
                "There is no directory {:?}",
                if parent { target.as_str() } else { above(target) }
            ))
            .hint("Make it first.")),
            _ => Ok(Place {
                directory: above(target).to_owned(),
                name: base(target)?.to_owned(),
            }),
        }
    }
}

/// The path to read from, and whether it is a directory.
fn found_here(source: &Path, follow: bool) -> io::Result<(PathBuf, bool)> {
    let path = if follow {
        fs::canonicalize(source)?
    } else {
        source.to_owned()
    };
    let kind = fs::symlink_metadata(&path)?.file_type();
    if kind.is_dir() || kind.is_file() || kind.is_symlink() {
        return Ok((path, kind.is_dir()));
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is a device, FIFO or socket",
    ))
}

/// What is at a target, and whether the directory above it is there.
fn look_here(target: &Path) -> (Option<Kind>, bool) {
    let kind = fs::metadata(target)
        .or_else(|_| fs::symlink_metadata(target))
        .ok()
        .map(|meta| match meta.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_file() => Kind::File,
            kind if kind.is_symlink() => Kind::Symlink,
            _ => Kind::Other,
        });
    (kind, target.parent().unwrap_or(Path::new("/")).is_dir())
}

/// What did not come as it is, in one sentence each.
fn problems(packed: &Packed) -> Option<String> {
    let lists = [
        ("Cannot be read", &packed.unreadable),
        ("Changed while they were read", &packed.changed),
        ("Vanished while they were read", &packed.vanished),
        ("Not copied, being devices, FIFOs or sockets", &packed.skipped),
    ];
    let text: Vec<_> = lists
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(what, list)| format!("{what}: {}", named(list)))
        .collect();
    (!text.is_empty()).then(|| text.join(". "))
}

fn named(list: &[PathBuf]) -> String {
    let names: Vec<_> = list
        .iter()
        .take(MAX_NAMED)
        .map(|path| format!("{path:?}"))
        .collect();
    let more = match list.len() {
        length if length > MAX_NAMED => format!(" and {} more", length - MAX_NAMED),
        _ => String::new(),
    };
    names.join(", ") + &more
}

/// Without slashes at the end, of which the root keeps its one.
fn trimmed(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

fn above(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((above, _)) => above,
    }
}

fn base(path: &str) -> Result<&str> {
    match path.rsplit_once('/') {
        Some((_, name)) if !matches!(name, "" | "." | "..") => Ok(name),
        _ => {
            Err(invalid(format!("Not the path of a file: {path:?}"))
                .hint("Add /. for what is in a directory."))
        }
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}

fn file_error(what: &str, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
            ErrorKind::InvalidArgument
        }
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: &str, target: &str, is_dir: bool, found: Option<Kind>) -> Result<(String, String)> {
        let place = Copy::new(source, target, false)?.place(is_dir, found, true)?;
        Ok((place.directory, place.name))
    }

    #[test]
    fn a_copy_goes_where_docker_cp_puts_it() {
        let at = |directory: &str, name: &str| (directory.to_owned(), name.to_owned());
        let (file, dir) = (Some(Kind::File), Some(Kind::Directory));
        for (source, target, is_dir, found, wanted) in [
            ("/a/f", "/b", false, None, at("/", "b")),
            ("/a/f", "/x/b", false, file, at("/x", "b")),
            ("/a/f", "/x/b", false, dir, at("/x/b", "f")),
            ("/a/f", "/", false, dir, at("/", "f")),
            ("/a/d", "/x/b", true, None, at("/x", "b")),
            ("/a/d/", "/x/b/", true, dir, at("/x/b", "d")),
            ("/a/d", "/x/b/", true, None, at("/x", "b")),
            ("/a/d/.", "/x/b", true, dir, at("/x/b", "")),
            ("/a/d/.", "/x/b", true, None, at("/x", "b")),
            ("/.", "/x/b", true, dir, at("/x/b", "")),
        ] {
            assert_eq!(
                place(source, target, is_dir, found).unwrap(),
                wanted,
                "{source} {target}"
            );
        }
        for (source, target, is_dir, found) in [
            ("/a/d", "/b", true, file),
            ("/a/f", "/b/", false, None),
            ("/a/f", "/b/", false, file),
            ("/a/f/.", "/b", false, dir),
            ("/a/f", "/b", false, Some(Kind::Other)),
            ("/a/..", "/b", true, dir),
            ("/", "/b", true, dir),
        ] {
            let error = place(source, target, is_dir, found).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{source} {target}");
        }
        Copy::new("a", "/b", false).unwrap_err();
        Copy::new("/a", "b", false).unwrap_err();
        Copy::new("/a\0", "/b", false).unwrap_err();
        let copy = Copy::new("/a", "/none/b", false).unwrap();
        assert!(
            copy.place(false, None, false)
                .unwrap_err()
                .message
                .contains("/none")
        );
    }
}
