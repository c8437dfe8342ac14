//! Lists of paths, and what is at each of them.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use banger_files::{Found, FoundKind, Look, Root};
use banger_model::agent::{Kind, MAX_LIST, Stat};

use super::answer::Refusal;
use super::{BUFFER, bad};

/// A list of so many bytes.
pub(super) fn read(input: &mut impl BufRead, length: u64) -> Result<Vec<u8>, Refusal> {
    if length > MAX_LIST {
        return Err(bad("The list of paths is too long"));
    }
    let mut list = Vec::new();
    input.take(length).read_to_end(&mut list)?;
    if list.len() as u64 != length || list.last().is_some_and(|last| *last != 0) {
        return Err(bad("The list of paths ends early"));
    }
    Ok(list)
}

/// The paths of a list.
pub(super) fn paths(list: &[u8]) -> impl Iterator<Item = &Path> {
    list.split_inclusive(|byte| *byte == 0)
        .map(|path| Path::new(OsStr::from_bytes(path.strip_suffix(b"\0").unwrap_or(path))))
}

/// Says what is at each path of a list.
pub(super) fn stat(
    root: &str,
    length: u64,
    mut input: impl BufRead,
    output: impl Write,
) -> Result<(), Refusal> {
    let list = read(&mut input, length)?;
    let mut output = BufWriter::with_capacity(BUFFER, output);
    let root = match Root::open(Path::new(root)) {
        Ok(root) => Some(root),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Refusal::file("open", Path::new(root), &error)),
    };
    let mut look = root.as_ref().map(Look::new);
    for path in paths(&list) {
        let found = match &mut look {
            Some(look) => look.at(path)?,
            None => None,
        };
        let found = found.map(stat_of);
        serde_json::to_writer(&mut output, &found).map_err(io::Error::from)?;
        output.write_all(b"\n")?;
    }
    output.flush()?;
    Ok(())
}

/// In the words of the contract.
fn stat_of(found: Found) -> Stat {
    Stat {
        kind: match found.kind {
            FoundKind::File => Kind::File,
            FoundKind::Directory => Kind::Directory,
            FoundKind::Symlink => Kind::Symlink,
            FoundKind::Other => Kind::Other,
        },
        mode: found.mode,
        size: found.size,
        mtime_ns: found.mtime_ns,
    }
}
