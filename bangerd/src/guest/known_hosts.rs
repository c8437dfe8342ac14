//! banger's own known_hosts file: what ssh, scp and rsync pin a guest by, with
//! `-o HostKeyAlias=banger-<id> -o UserKnownHostsFile=<state>/known_hosts`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use banger_model::VmId;

use super::error::{Error, Result};

/// The file and what it should hold.
pub(crate) struct KnownHosts {
    path: PathBuf,
    entries: Mutex<BTreeMap<VmId, String>>,
}

impl KnownHosts {
    /// The file below `state`. Nothing is read: the daemon knows every VM's key and writes the
    /// whole file.
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            path: state.join("known_hosts"),
            entries: Mutex::default(),
        }
    }

    /// What the host is called in the file.
    pub(crate) fn alias(id: VmId) -> String {
        format!("banger-{id}")
    }

    /// Makes the file hold exactly these keys: lines of authorized_keys(5). Blocks.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn reset(&self, keys: impl IntoIterator<Item = (VmId, String)>) -> Result<()> {
        let mut entries = self.lock();
        *entries = keys.into_iter().collect();
        self.write(&entries)
    }

    /// Adds or replaces a VM's key. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written; it holds the old entries then.
    pub(crate) fn set(&self, id: VmId, public: &str) -> Result<()> {
        let mut entries = self.lock();
        if entries.get(&id).is_some_and(|there| there == public) && self.path.exists() {
            return Ok(());
        }
        entries.insert(id, public.to_owned());
        self.write(&entries)
    }

    /// Removes a VM's key; nothing happens when there is none. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn remove(&self, id: VmId) -> Result<()> {
        let mut entries = self.lock();
        match entries.remove(&id) {
            Some(_) => self.write(&entries),
            None => Ok(()),
        }
    }

    fn write(&self, entries: &BTreeMap<VmId, String>) -> Result<()> {
        let text: String = entries
            .iter()
            .map(|(id, key)| format!("{} {key}\n", Self::alias(*id)))
            .collect();
        match std::fs::read_to_string(&self.path) {
            Ok(there) if there == text => return Ok(()),
            // An owner who never had a VM has no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && text.is_empty() => return Ok(()),
            _ => {}
        }
        replace(&self.path, text.as_bytes()).map_err(Error::file("write", &self.path))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, String>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file aside and puts it in place: who reads it finds the old one or the new one. Blocks.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    write_file(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path))
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_follows_the_vms() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("known_hosts");
        let hosts = KnownHosts::new(state.path());
        hosts.reset([]).unwrap();
        assert!(!path.exists());
        let (a, b) = (VmId::from_bytes([1; 16]), VmId::from_bytes([2; 16]));
        hosts.set(b, "ssh-ed25519 BBBB").unwrap();
        hosts.set(a, "ssh-ed25519 AAAA").unwrap();
        let line = |id: VmId, key: &str| format!("banger-{id} ssh-ed25519 {key}\n");
        let read = || std::fs::read_to_string(&path).unwrap();
        assert_eq!(read(), line(a, "AAAA") + &line(b, "BBBB"));
        hosts.remove(a).unwrap();
        hosts.remove(a).unwrap();
        assert_eq!(read(), line(b, "BBBB"));
        // Somebody deleted it: the next change brings it back.
        std::fs::remove_file(&path).unwrap();
        hosts.set(b, "ssh-ed25519 BBBB").unwrap();
        assert_eq!(read(), line(b, "BBBB"));
        hosts.reset([(a, "ssh-ed25519 CCCC".to_owned())]).unwrap();
        assert_eq!(read(), line(a, "CCCC"));
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 1);
    }
}
