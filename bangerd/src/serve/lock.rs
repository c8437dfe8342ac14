//! One daemon per owner, and one starter at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use banger_model::Dirs;
use rustix::fs::{FlockOperation, flock};

use super::error::{Error, Result};

/// How long another starter may hold the start lock: it makes a socket and a process meanwhile.
const START: Duration = Duration::from_secs(30);

/// Held for the daemon's life.
#[derive(Debug)]
pub(super) struct DaemonLock {
    _file: File,
}

/// Held while the socket is made or removed.
#[derive(Debug)]
pub(super) struct StartLock {
    _file: File,
}

/// Makes the daemon's own directories, for the owner alone.
pub(super) fn make_directories(dirs: &Dirs) -> Result<()> {
    for directory in [&dirs.state, &dirs.runtime] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(Error::file("make", directory))?;
        let meta = std::fs::metadata(directory).map_err(Error::file("look at", directory))?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::NotOurs(directory.clone()));
        }
        if meta.mode() & 0o077 != 0 {
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(directory, mode).map_err(Error::file("protect", directory))?;
        }
    }
    Ok(())
}

impl DaemonLock {
    /// # Errors
    /// [`Error::Running`] with the process that has it.
    pub(super) fn take(dirs: &Dirs) -> Result<Self> {
        let path = dirs.daemon_lock();
        let mut file = open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::Running {
                    pid: holder(&file),
                    path,
                });
            }
            Err(error) => return Err(Error::file("lock", &path)(error.into())),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(Error::file("write", &path))?;
        Ok(Self { _file: file })
    }
}

impl StartLock {
    /// Waits for its turn. The waiting is done by a thread.
    ///
    /// # Errors
    /// When another starter does not come to an end.
    pub(super) async fn take(dirs: &Dirs) -> Result<Self> {
        let path = dirs.start_lock();
        let file = open(&path)?;
        let waiting =
            tokio::task::spawn_blocking(move || flock(&file, FlockOperation::LockExclusive).map(|()| file));
        match tokio::time::timeout(START, waiting).await {
            Ok(Ok(Ok(file))) => Ok(Self { _file: file }),
            Ok(Ok(Err(error))) => Err(Error::file("lock", &path)(error.into())),
            Ok(Err(error)) => Err(Error::file("lock", &path)(io::Error::other(error))),
            Err(_) => Err(Error::StartLock(path)),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::file("open", path))
}

fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_daemon_is_told_who_the_first_is() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.path().into())).unwrap();
        make_directories(&dirs).unwrap();
        assert_eq!(std::fs::metadata(&dirs.runtime).unwrap().mode() & 0o777, 0o700);
        let lock = DaemonLock::take(&dirs).unwrap();
        match DaemonLock::take(&dirs).unwrap_err() {
            Error::Running { pid, .. } => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other}"),
        }
        drop(lock);
        DaemonLock::take(&dirs).unwrap();
    }
}
