//! What an installation has put on this machine: enough to take it back, and to tell a file of
//! ours from one of somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::place;
use crate::error::{Error, Result};

/// Below the root.
const FILE: &str = "var/lib/banger-install/manifest.json";
/// A manifest with more is none of ours, in bytes.
const MAX: u64 = 1 << 20;

/// The manifest. It is written before the first file and after the last, so that an
/// installation that was interrupted can be finished, or taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) version: String,
    pub(super) prefix: PathBuf,
    /// Each file with the SHA-256 of what it may have in it: two while one replaces the other.
    pub(super) files: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Directories that were not there before.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Whether the group `banger` was not there before.
    pub(super) group: bool,
    /// Whether the files are somebody else's, a package's: there are none here then.
    pub(super) packaged: bool,
    /// Whether everything was done.
    pub(super) complete: bool,
}

impl Manifest {
    /// The machine's manifest; `None` when nothing is installed.
    ///
    /// # Errors
    /// When there is one that cannot be used.
    pub(super) fn load(root: &Path) -> Result<Option<Self>> {
        let path = root.join(FILE);
        let unreadable = |e| Error::io(format!("Cannot read {path:?}"), e);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(e)),
            Ok(metadata) if metadata.len() > MAX => {
                return Err(unreadable(io::Error::other("it is too long")));
            }
            Ok(_) => {}
        }
        let text = fs::read(&path).map_err(unreadable)?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|e| unreadable(e.into()))?;
        let paths = manifest.files.keys().chain(&manifest.directories);
        // What is removed by name must be a name: nothing else could be meant.
        match paths.into_iter().find(|path| !is_plain(path)) {
            Some(odd) => Err(unreadable(io::Error::other(format!("it names {odd:?}")))),
            None => Ok(Some(manifest)),
        }
    }

    pub(super) fn save(&self, root: &Path) -> Result<()> {
        let path = root.join(FILE);
        let text =
            serde_json::to_vec_pretty(self).map_err(|e| Error::io("Cannot write the manifest", e.into()))?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|e| Error::io(format!("Cannot make {directory:?}"), e))?;
        }
        place::write(&path, 0o644, &text)
    }

    /// Removes the manifest and its directory.
    pub(super) fn remove(root: &Path) -> Result<()> {
        let path = root.join(FILE);
        place::gone(fs::remove_file(&path), &path)?;
        let directory = path.parent().unwrap_or(root);
        place::gone(fs::remove_dir(directory), directory)
    }

    /// Whether a file with this content at this path is one that we wrote.
    pub(super) fn wrote(&self, path: &Path, content: &[u8]) -> bool {
        self.files
            .get(path)
            .is_some_and(|digests| digests.contains(&digest(content)))
    }
}

/// The SHA-256 in hexadecimal digits.
pub(super) fn digest(content: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(content) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn is_plain(path: &Path) -> bool {
    use std::path::Component::{Normal, RootDir};
    let mut parts = path.components();
    parts.next() == Some(RootDir) && parts.all(|part| matches!(part, Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_it_was_and_goes_without_a_trace() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(root.path()).unwrap(), None);
        let mut manifest = Manifest {
            version: "1".to_owned(),
            prefix: "/usr/local".into(),
            ..Manifest::default()
        };
        let path = PathBuf::from("/usr/local/bin/banger");
        manifest.files.insert(path.clone(), [digest(b"a")].into());
        manifest.save(root.path()).unwrap();
        assert_eq!(Manifest::load(root.path()).unwrap(), Some(manifest.clone()));
        assert!(manifest.wrote(&path, b"a") && !manifest.wrote(&path, b"b"));
        assert_eq!(
            digest(b"a"),
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
        );
        Manifest::remove(root.path()).unwrap();
        Manifest::remove(root.path()).unwrap();
        assert!(!root.path().join("var/lib/banger-install").exists());
    }

    #[test]
    fn one_that_was_tampered_with_removes_nothing() {
        let root = tempfile::tempdir().unwrap();
        for odd in ["/usr/../etc/passwd", "etc/passwd", ""] {
            let mut manifest = Manifest::default();
            manifest.files.insert(odd.into(), BTreeSet::new());
            manifest.save(root.path()).unwrap();
            assert!(Manifest::load(root.path()).is_err(), "{odd:?}");
        }
        fs::write(root.path().join(FILE), "{").unwrap();
        assert!(Manifest::load(root.path()).is_err());
    }
}
