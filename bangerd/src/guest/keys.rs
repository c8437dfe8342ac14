//! The owner's key, with which the daemon and his own ssh enter every guest.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, key::safe_rng};

use super::error::{Error, Result};

/// A private key's file is never larger: 16 KiB hold any key that OpenSSH makes.
const MAX_KEY_BYTES: u64 = 16 << 10;

/// The key with which the owner enters his guests.
#[derive(Debug, Clone)]
pub(crate) struct ClientKey {
    private: Arc<PrivateKey>,
}

impl ClientKey {
    /// Reads the key that the configuration names, or the one below the state directory, which is
    /// made at its first use: `ssh/id_ed25519` with mode 0600, and `.pub` beside it. Blocks.
    ///
    /// # Errors
    /// When the key cannot be read, made or used.
    pub(crate) fn load_or_make(configured: Option<&Path>, state: &Path) -> Result<Self> {
        if let Some(path) = configured {
            return Self::load(path);
        }
        let path = state.join("ssh/id_ed25519");
        match Self::load(&path) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                make(&path)?;
                Self::load(&path)
            }
            other => other,
        }
    }

    /// The line for authorized_keys(5), without a comment.
    ///
    /// # Errors
    /// Never for a key that was loaded; the encoder can fail.
    pub(crate) fn public_line(&self) -> Result<String> {
        public_line(&self.private)
    }

    pub(crate) fn private(&self) -> &Arc<PrivateKey> {
        &self.private
    }

    fn load(path: &Path) -> Result<Self> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_KEY_BYTES).read_to_string(&mut text))
            .map_err(Error::file("read", path))?;
        let private = PrivateKey::from_openssh(&text).map_err(|source| Error::Key {
            path: path.to_owned(),
            source,
        })?;
        if private.is_encrypted() {
            return Err(Error::EncryptedKey(path.to_owned()));
        }
        match private.algorithm() {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(Self {
                private: Arc::new(private),
            }),
            other => Err(Error::KeyType {
                path: path.to_owned(),
                kind: other.to_string(),
            }),
        }
    }
}

fn public_line(key: &PrivateKey) -> Result<String> {
    let mut public = key.public_key().clone();
    public.set_comment("");
    let line = public.to_openssh().map_err(Error::MakeKey)?;
    Ok(line.trim_end().to_owned())
}

/// Makes the key and its public half. Whoever comes first wins: two makers end with one key.
fn make(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(Error::file("make", directory))?;
    let mut key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(Error::MakeKey)?;
    key.set_comment("banger");
    let private = key.to_openssh(LineEnding::LF).map_err(Error::MakeKey)?;
    let public = key.public_key().to_openssh().map_err(Error::MakeKey)?;
    let temporary = directory.join(format!(".id_ed25519.{}", std::process::id()));
    write(&temporary, 0o600, private.as_bytes())?;
    let linked = std::fs::hard_link(&temporary, path);
    let removed = std::fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(Error::file("make", path))?,
    }
    removed.map_err(Error::file("remove", &temporary))?;
    write(
        &path.with_extension("pub"),
        0o644,
        format!("{public}\n").as_bytes(),
    )
}

fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    // A file that is there is one that a crash left.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("remove", path)(error));
        }
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_owners_key_is_made_once_and_private() {
        let state = tempfile::tempdir().unwrap();
        let key = ClientKey::load_or_make(None, state.path()).unwrap();
        let again = ClientKey::load_or_make(None, state.path()).unwrap();
        assert_eq!(key.public_line().unwrap(), again.public_line().unwrap());
        assert!(key.public_line().unwrap().starts_with("ssh-ed25519 AAAA"));
        assert_eq!(key.public_line().unwrap().split(' ').count(), 2);
        let path = state.path().join("ssh/id_ed25519");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let directory = path.parent().unwrap();
        assert_eq!(std::fs::metadata(directory).unwrap().mode() & 0o777, 0o700);
        let public = std::fs::read_to_string(directory.join("id_ed25519.pub")).unwrap();
        assert!(public.starts_with(&key.public_line().unwrap()));
        assert_eq!(std::fs::read_dir(directory).unwrap().count(), 2);
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named_with_the_way_out() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("key");
        let missing = ClientKey::load_or_make(Some(&path), state.path()).unwrap_err();
        assert!(missing.to_string().contains("key"), "{missing}");
        std::fs::write(&path, "nonsense").unwrap();
        let error: banger_bus::Error = ClientKey::load_or_make(Some(&path), state.path())
            .unwrap_err()
            .into();
        assert_eq!(error.kind, banger_bus::ErrorKind::BadConfig);
        assert!(error.message.contains("ssh_key_path"), "{}", error.message);
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 1);
    }
}
