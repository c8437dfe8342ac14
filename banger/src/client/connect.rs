//! Finds the daemon: its private socket, the session bus, or a new one.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_model::Dirs;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use zbus::Connection;
use zbus::connection::Builder;

use super::{session_bus, start};
use crate::error::{Error, Result};

/// How the daemon is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Its own socket; the process at the other end as the kernel knows it.
    Private {
        socket: PathBuf,
        pid: i32,
    },
    SessionBus,
}

/// How long a daemon that has accepted us, or is about to, may take for its greeting.
const GREETING: Duration = Duration::from_secs(30);

/// The private socket, then the session bus, then a daemon of our own.
pub(super) async fn connect(dirs: &Dirs) -> Result<(Connection, Transport)> {
    match connect_running(dirs).await {
        Ok(Some(found)) => return Ok(found),
        // A daemon that leaves because it is idle may close a socket that we have just opened.
        Ok(None) | Err(Error::Bus(_)) => {}
        Err(error) => return Err(error),
    }
    // Who names a daemon wants that one and not the one that the bus would start.
    if start::named_daemon().is_none()
        && let Some(connection) = session_bus::activate().await
    {
        return Ok((connection, Transport::SessionBus));
    }
    start::start(dirs).await
}

/// Only what runs already.
pub(super) async fn connect_running(dirs: &Dirs) -> Result<Option<(Connection, Transport)>> {
    if let Some(stream) = open_socket(&dirs.socket())? {
        return greet(stream, &dirs.socket()).await.map(Some);
    }
    if start::named_daemon().is_some() {
        return Ok(None);
    }
    Ok(session_bus::running()
        .await
        .map(|connection| (connection, Transport::SessionBus)))
}

/// Connects to a socket; `None` when nothing listens there.
pub(super) fn open_socket(socket: &Path) -> Result<Option<UnixStream>> {
    let metadata = match fs::symlink_metadata(socket) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("Cannot look at {socket:?}"), e)),
    };
    if let Some(parent) = socket.parent() {
        check_directory(parent)?;
    }
    if !metadata.file_type().is_socket() || metadata.uid() != geteuid().as_raw() {
        return Err(Error::Untrusted {
            path: socket.to_owned(),
            problem: "it is not a socket of yours".to_owned(),
        });
    }
    match UnixStream::connect(socket) {
        Ok(stream) => Ok(Some(stream)),
        // A daemon that is gone leaves its socket, and one that leaves takes it away.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(Error::io(format!("Cannot connect to {socket:?}"), e)),
    }
}

/// A directory in which nobody else can put a socket in place of ours.
pub(super) fn check_directory(directory: &Path) -> Result<()> {
    let metadata =
        fs::symlink_metadata(directory).map_err(|e| Error::io(format!("Cannot look at {directory:?}"), e))?;
    let problem = if !metadata.is_dir() {
        "it is not a directory"
    } else if metadata.uid() != geteuid().as_raw() {
        "it belongs to somebody else"
    } else if metadata.mode() & 0o022 != 0 {
        "others can write to it"
    } else {
        return Ok(());
    };
    Err(Error::Untrusted {
        path: directory.to_owned(),
        problem: problem.to_owned(),
    })
}

/// Makes a D-Bus connection of a stream, once its other end is known to be the same user.
pub(super) async fn greet(stream: UnixStream, socket: &Path) -> Result<(Connection, Transport)> {
    let peer = socket_peercred(&stream)
        .map_err(|e| Error::io(format!("Cannot tell who listens on {socket:?}"), e.into()))?;
    if peer.uid != geteuid() {
        return Err(Error::Untrusted {
            path: socket.to_owned(),
            problem: format!("user {} listens on it", peer.uid.as_raw()),
        });
    }
    let building = Builder::unix_stream(stream).p2p().build();
    let connection = tokio::time::timeout(GREETING, building)
        .await
        .map_err(|_| Error::DaemonSilent)??;
    let transport = Transport::Private {
        socket: socket.to_owned(),
        pid: peer.pid.as_raw_nonzero().get(),
    };
    Ok((connection, transport))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn nothing_and_a_dead_socket_are_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        assert!(open_socket(&socket).unwrap().is_none());
        drop(UnixListener::bind(&socket).unwrap());
        assert!(open_socket(&socket).unwrap().is_none());
    }

    #[test]
    fn what_others_could_have_put_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        fs::write(&socket, "").unwrap();
        assert!(matches!(open_socket(&socket), Err(Error::Untrusted { .. })));
        fs::remove_file(&socket).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        assert!(open_socket(&socket).unwrap().is_some());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(open_socket(&socket), Err(Error::Untrusted { .. })));
    }
}
