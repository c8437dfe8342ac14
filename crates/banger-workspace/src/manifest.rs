//! What a guest was given last: the base of the next sync.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::options::Mode;
use crate::repository::Head;
use crate::stat::{Kind, Stat};

const VERSION: u32 = 1;
/// Of the part that is JSON.
const HEAD_LIMIT: usize = 16 << 20;

/// What the guest has when a sync was successful.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub mode: Mode,
    /// Where the guest's HEAD was put; `None` for a full copy without commits.
    pub head: Option<Head>,
    /// Where its history ends.
    pub(crate) shallow: Vec<String>,
    /// Objects beyond the commit's that it has.
    pub(crate) objects: Vec<String>,
    /// The small files of its `.git`, by the digests of their bytes.
    pub(crate) git_files: BTreeMap<String, String>,
    pub(crate) files: BTreeMap<PathBuf, Stat>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    version: u32,
    mode: Mode,
    head: Option<Head>,
    shallow: Vec<String>,
    objects: Vec<String>,
    git_files: BTreeMap<String, String>,
}

impl Manifest {
    /// A line of JSON, then one record for each file: `kind mode size mtime path`, ended by NUL.
    pub fn to_bytes(&self) -> Vec<u8> {
        let top = Top {
            version: VERSION,
            mode: self.mode,
            head: self.head.clone(),
            shallow: self.shallow.clone(),
            objects: self.objects.clone(),
            git_files: self.git_files.clone(),
        };
        let mut bytes = serde_json::to_vec(&top).expect("strings and numbers are JSON");
        bytes.push(b'\n');
        for (path, stat) in &self.files {
            let kind = match stat.kind {
                Kind::File => 'f',
                Kind::Symlink => 'l',
                Kind::Directory => 'd',
            };
            let head = format!("{kind} {:o} {} {} ", stat.mode, stat.size, stat.mtime_ns);
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    /// # Errors
    /// [`Error::BadManifest`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let end = bytes.iter().take(HEAD_LIMIT).position(|&b| b == b'\n');
        let (top, files) = bytes.split_at(end.ok_or(Error::BadManifest("it has no first line"))?);
        let top: Top =
            serde_json::from_slice(top).map_err(|_| Error::BadManifest("its first line is damaged"))?;
        if top.version != VERSION {
            return Err(Error::BadManifest("it is of another version"));
        }
        let records = files[1..].split(|&b| b == 0).filter(|record| !record.is_empty());
        let files: Option<BTreeMap<_, _>> = records.map(record).collect();
        Ok(Self {
            mode: top.mode,
            head: top.head,
            shallow: top.shallow,
            objects: top.objects,
            git_files: top.git_files,
            files: files.ok_or(Error::BadManifest("a record is damaged"))?,
        })
    }

    /// Whether there is something below this path.
    pub(crate) fn has_below(&self, path: &Path) -> bool {
        let after = self
            .files
            .range::<Path, _>((std::ops::Bound::Excluded(path), std::ops::Bound::Unbounded));
        after
            .map(|(other, _)| other)
            .next()
            .is_some_and(|other| other.starts_with(path))
    }
}

fn record(bytes: &[u8]) -> Option<(PathBuf, Stat)> {
    let mut parts = bytes.splitn(5, |&b| b == b' ');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let kind = match text()? {
        "f" => Kind::File,
        "l" => Kind::Symlink,
        "d" => Kind::Directory,
        _ => return None,
    };
    let mode = u32::from_str_radix(text()?, 8).ok()?;
    let size = text()?.parse().ok()?;
    let mtime_ns = text()?.parse().ok()?;
    let path = PathBuf::from(OsStr::from_bytes(parts.next()?));
    let stat = Stat {
        kind,
        mode,
        size,
        mtime_ns,
    };
    Some((path, stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let stat = |kind| Stat {
            kind,
            mode: 0o644,
            size: 7,
            mtime_ns: -3,
        };
        Manifest {
            mode: Mode::ShallowOverlay,
            head: Some(Head {
                branch: Some("main".to_owned()),
                commit: "1".repeat(40),
            }),
            shallow: vec!["2".repeat(40)],
            objects: Vec::new(),
            git_files: BTreeMap::from([("config".to_owned(), "x".to_owned())]),
            files: BTreeMap::from([
                (PathBuf::from("a b\nc"), stat(Kind::File)),
                (PathBuf::from(OsStr::from_bytes(b"\xff/l")), stat(Kind::Symlink)),
            ]),
        }
    }

    #[test]
    fn it_is_read_back_with_every_name() {
        let manifest = manifest();
        assert_eq!(Manifest::from_bytes(&manifest.to_bytes()).unwrap(), manifest);
        assert!(manifest.has_below(Path::new(OsStr::from_bytes(b"\xff"))));
        assert!(!manifest.has_below(Path::new("a")));
    }

    #[test]
    fn damaged_ones_are_refused() {
        let bytes = manifest().to_bytes();
        for bad in [
            &b""[..],
            b"{}\n",
            &bytes[..20],
            &[&bytes[..], b"q 1 2 3 x\0"].concat(),
        ] {
            assert!(Manifest::from_bytes(bad).is_err());
        }
    }
}
