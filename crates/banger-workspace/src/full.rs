//! A directory as it is, with everything that can be copied.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Cancel;
use crate::error::{Error, Result};
use crate::overlay::left_out;
use crate::stat::{Found, Kind, Lookup, Stat};

const ENTRIES: usize = 4_000_000;
const PATH_LIMIT: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: BTreeMap<PathBuf, Stat>,
    pub(crate) notes: Vec<String>,
}

/// Everything below `root`, over no link. What vanishes meanwhile is not there.
pub(crate) fn list(root: &Path, cancel: &Cancel) -> Result<Listing> {
    let mut lookup = Lookup::new(root)?;
    let mut files = BTreeMap::new();
    let mut unreadable = Vec::new();
    let mut special = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(dir) = directories.pop() {
        cancel.check()?;
        let full = root.join(&dir);
        let listed = match fs::read_dir(&full) {
            Ok(listed) => listed,
            Err(e) if crate::read::is_absent(&e) && dir != Path::new("") => continue,
            Err(e) => return Err(Error::io("list", full)(e)),
        };
        for entry in listed {
            let name = entry.map_err(Error::io("list", &full))?.file_name();
            let path = dir.join(name);
            if files.len() >= ENTRIES || path.as_os_str().len() > PATH_LIMIT {
                return Err(Error::TooMany {
                    path: root.to_owned(),
                    limit: ENTRIES,
                    what: "files, or a path of more than 4096 bytes",
                });
            }
            match lookup.find(&path)? {
                Found::Thing(stat) => {
                    if stat.kind == Kind::Directory {
                        directories.push(path.clone());
                    }
                    files.insert(path, stat);
                }
                Found::Nothing => {}
                Found::Unreadable => unreadable.push(path),
                Found::Special => special.push(path),
            }
        }
    }
    let short = |paths: &'_ [PathBuf], why| {
        let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
        left_out(why, &paths)
    };
    let notes = [
        short(&unreadable, "cannot be read"),
        short(&special, "are neither files, links nor directories"),
    ];
    Ok(Listing {
        files,
        notes: notes.into_iter().flatten().collect(),
    })
}
