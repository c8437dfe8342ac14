//! The private socket: the same interface as on the bus, peer to peer.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use banger_model::Dirs;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_peercred};
use rustix::net::{AddressFamily, SocketFlags};
use rustix::process::geteuid;
use tokio::net::UnixListener;

use super::error::{Error, Result};
use super::lock::StartLock;
use crate::bus::Bus;

/// Clients that may wait until they are taken; the kernel's own bound is below.
const BACKLOG: i32 = 4096;

/// The socket on which clients come.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Takes the socket that the starter has made, or makes it. Hold the start lock for that.
    ///
    /// # Errors
    /// [`Error::Running`] when somebody else listens there.
    pub(super) fn open(dirs: &Dirs, passed: Option<OwnedFd>, _lock: &StartLock) -> Result<Self> {
        let path = dirs.socket();
        let listener = match passed {
            Some(fd) => adopt(fd)?,
            None => bind(&path)?,
        };
        listener
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(listener))
            .map(|listener| Self {
                listener,
                path: path.clone(),
            })
            .map_err(Error::file("listen on", &path))
    }

    /// Serves clients as they come. Never returns; cancelling loses no client.
    pub(super) async fn serve(&self, bus: &Bus) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match stream.into_std() {
                    Ok(stream) => welcome(bus, stream),
                    Err(error) => tracing::debug!(%error, "Lost a client"),
                },
                Err(error) => {
                    // Out of descriptors or memory: wait for a client to leave, who frees some.
                    tracing::error!(%error, "Cannot take a client");
                    bus.departure().await;
                }
            }
        }
    }

    /// Takes the socket away, unless a client has come meanwhile: then he is served, and it
    /// stays. Hold the start lock: whoever comes later starts a new daemon.
    ///
    /// # Errors
    /// The socket, when there is a client.
    pub(super) fn close(self, bus: &Bus, _lock: &StartLock) -> std::result::Result<(), Self> {
        // Past tokio, which knows only of what the last wait has told it.
        let accepted = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        if let Ok(fd) = accepted {
            welcome(bus, StdStream::from(fd));
            return Err(self);
        }
        self.remove();
        Ok(())
    }

    /// Takes the socket away whoever waits.
    pub(super) fn remove(self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.path.display(), "Cannot remove the socket");
            }
            _ => {}
        }
    }
}

fn welcome(bus: &Bus, stream: StdStream) {
    match socket_peercred(&stream) {
        Ok(peer) if peer.uid == geteuid() => {
            tokio::spawn(bus.serve_client(stream));
        }
        Ok(peer) => tracing::warn!(uid = peer.uid.as_raw(), "Refused a client of another user"),
        Err(error) => tracing::debug!(%error, "Lost a client"),
    }
}

fn adopt(fd: OwnedFd) -> Result<StdListener> {
    let listens = socket_domain(&fd).is_ok_and(|domain| domain == AddressFamily::UNIX)
        && socket_acceptconn(&fd).unwrap_or(false);
    if !listens {
        return Err(Error::NotListening);
    }
    // Clients see who called listen(2) last as the process at the other end: that should be us.
    rustix::net::listen(&fd, BACKLOG).map_err(|_| Error::NotListening)?;
    Ok(StdListener::from(fd))
}

fn bind(path: &Path) -> Result<StdListener> {
    match StdStream::connect(path) {
        // Its daemon was started a moment ago by a client, and has not taken the lock yet.
        Ok(other) => {
            let pid = socket_peercred(&other).ok();
            return Err(Error::Running {
                pid: pid.and_then(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()).ok()),
                path: path.to_owned(),
            });
        }
        // What a daemon that was killed left.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(Error::file("remove", path))?;
        }
        Err(_) => {}
    }
    let listener = StdListener::bind(path).map_err(Error::file("listen on", path))?;
    // Its directory is the owner's alone, so there is no moment in which others reach it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(Error::file("protect", path))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::lock::make_directories;

    async fn place(home: &Path) -> (Dirs, StartLock) {
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.into())).unwrap();
        make_directories(&dirs).unwrap();
        let lock = StartLock::take(&dirs).await.unwrap();
        (dirs, lock)
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        let (dirs, lock) = place(home.path()).await;
        drop(StdListener::bind(dirs.socket()).unwrap());
        let socket = Socket::open(&dirs, None, &lock).unwrap();
        let mode = std::fs::metadata(dirs.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            Socket::open(&dirs, None, &lock),
            Err(Error::Running { .. })
        ));
        // That look was a connection; it is served, and keeps the socket open.
        let bus = Bus::new();
        let socket = socket.close(&bus, &lock).err().unwrap();
        socket.close(&bus, &lock).ok().unwrap();
        assert!(!dirs.socket().exists());
    }

    #[tokio::test]
    async fn only_a_listening_socket_is_adopted() {
        let home = tempfile::tempdir().unwrap();
        let (dirs, lock) = place(home.path()).await;
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(
            Socket::open(&dirs, Some(file.into()), &lock),
            Err(Error::NotListening)
        ));
        let (a, _b) = StdStream::pair().unwrap();
        assert!(Socket::open(&dirs, Some(a.into()), &lock).is_err());
        let listener = StdListener::bind(dirs.socket()).unwrap();
        Socket::open(&dirs, Some(listener.into()), &lock).unwrap();
    }
}
