//! Unpacking: what a stream may have, and in which order it is written.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::header::{Head, Type};
use crate::link::is_inward;
use crate::place::Placer;
use crate::read::Reader;
use crate::root::Root;
use crate::{MAX_DEPTH, MAX_PATH};

/// A name in a directory, in bytes (`NAME_MAX` of Linux).
const MAX_NAME: usize = 255;
/// Links left out that are named.
const MAX_LISTED: usize = 1000;

/// What is taken from a stream, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub owner: Owner,
    /// Keep the set-user-id and set-group-id bits.
    pub set_id: bool,
    /// Replace what is there even where it is of another type: with all that is in it.
    pub replace: bool,
    /// Leave out symbolic links that lead, or could lead, out of the tree that comes.
    pub inward: bool,
    /// The only name that may be at the top.
    pub top: Option<OsString>,
    /// All contents, in bytes.
    pub max_bytes: u64,
    pub max_entries: u64,
}

/// Whose the files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Those of the process.
    Process,
    /// The stream's own numbers.
    Stream,
    /// User and group.
    Is(u32, u32),
}

/// What was written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of all types.
    pub files: u64,
    /// Their contents in bytes.
    pub bytes: u64,
    /// Symbolic links that lead out, at most 1000 of them.
    pub left_out: Vec<PathBuf>,
}

impl Rules {
    /// For a stream of the host in its guest.
    pub fn trusted(owner: Owner) -> Self {
        Self {
            owner,
            set_id: false,
            replace: false,
            inward: false,
            top: None,
            max_bytes: u64::MAX,
            max_entries: u64::MAX,
        }
    }

    /// For a stream of a guest on its host.
    pub fn hostile() -> Self {
        Self {
            owner: Owner::Process,
            inward: true,
            max_bytes: 1 << 40,
            max_entries: 10_000_000,
            ..Self::trusted(Owner::Process)
        }
    }
}

/// Writes a stream strictly below a directory. Nothing is written over a symbolic link; a file
/// gets its name only with all its contents, or loses it. Directories that no entry made are
/// made with the mode 0755. `watch` is called with the bytes of all contents so far; its error
/// stops the work. What was written before an error stays.
///
/// # Errors
/// When the stream is not one that `rules` allow, or ends early, or a file cannot be written.
pub fn unpack(
    input: impl Read,
    root: &Root,
    rules: &Rules,
    watch: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Unpacked, Error> {
    let mut reader = Reader::new(input);
    let mut placer = Placer::new(root, rules);
    let mut unpacked = Unpacked::default();
    while let Some(head) = reader.next()? {
        let path = checked(&head, rules)?;
        unpacked.files += 1;
        if unpacked.files > rules.max_entries {
            return Err(Error::TooMuch {
                what: "files",
                limit: rules.max_entries,
            });
        }
        if rules.max_bytes - unpacked.bytes < head.size {
            return Err(Error::TooMuch {
                what: "bytes",
                limit: rules.max_bytes,
            });
        }
        match head.kind {
            Type::Directory => placer.directory(path, &head)?,
            Type::Symlink if rules.inward && !is_inward(&head.target, depth(path, rules)) => {
                unpacked.files -= 1;
                if unpacked.left_out.len() < MAX_LISTED {
                    unpacked.left_out.push(path.to_owned());
                }
            }
            Type::Symlink => placer.symlink(path, &head)?,
            Type::File => {
                let mut file = placer.file(path)?;
                reader.contents(head.size, |piece| {
                    file.write(piece, path)?;
                    unpacked.bytes += piece.len() as u64;
                    watch(unpacked.bytes).map_err(Error::Stream)
                })?;
                file.finish(path, &head, rules)?;
            }
        }
        watch(unpacked.bytes).map_err(Error::Stream)?;
    }
    placer.finish()?;
    Ok(unpacked)
}

/// Directories between an entry and the top of its tree: an entry of that name where there is one,
/// else the directory that all is written below.
fn depth(path: &Path, rules: &Rules) -> usize {
    let above = if rules.top.is_some() { 2 } else { 1 };
    path.components().count().saturating_sub(above)
}

/// The path of an entry, which names something below the root and nothing else.
fn checked<'a>(head: &'a Head, rules: &Rules) -> Result<&'a Path, Error> {
    let path = Path::new(OsStr::from_bytes(&head.name));
    let refused = |what| {
        Err(Error::Refused {
            path: path.to_owned(),
            what,
        })
    };
    if head.name.len() > MAX_PATH {
        return Err(Error::Broken("a path is too long"));
    }
    if head.name.first() == Some(&b'/') {
        return refused("an absolute path");
    }
    let mut depth = 0;
    for part in head.name.split(|byte| *byte == b'/') {
        match part {
            b".." => return refused("a path that climbs"),
            b"" | b"." => return refused("a path that is not in its plain form"),
            part if part.len() > MAX_NAME || part.contains(&0) => {
                return refused("a name that cannot be one");
            }
            _ => depth += 1,
        }
    }
    if depth > MAX_DEPTH {
        return refused("too many directories one in the other");
    }
    let first = head.name.split(|byte| *byte == b'/').next();
    if let (Some(top), Some(first)) = (&rules.top, first)
        && top.as_bytes() != first
    {
        return refused("another name than was asked for");
    }
    Ok(path)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
