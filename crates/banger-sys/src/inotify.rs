//! Events of one file, and new names in a directory, awaited.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Enough for the largest single event: a header and a name of NAME_MAX bytes.
const BUFFER: usize = 4096;

/// Watches one file for writes.
pub struct FileWatch {
    fd: AsyncFd<OwnedFd>,
}

/// What happened since the last question, merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileEvents {
    pub modified: bool,
    /// A descriptor that was open for writing was closed.
    pub closed: bool,
    /// The file was deleted or replaced; no more events will come.
    pub gone: bool,
}

impl FileWatch {
    /// Watches the file at `path`. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the file is missing, or the user has no inotify instances left.
    pub fn new(path: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &fd,
            path,
            WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF,
        )?;
        let fd = crate::pidfd::register(fd)?;
        Ok(Self { fd })
    }

    /// Waits for the next events.
    ///
    /// # Errors
    /// When the kernel's queue cannot be read.
    pub async fn next(&mut self) -> io::Result<FileEvents> {
        loop {
            let mut guard = self.fd.readable().await?;
            let events = drain(guard.get_inner())?;
            guard.clear_ready();
            if events != FileEvents::default() {
                return Ok(events);
            }
        }
    }
}

/// Waits until `name` exists in `directory`, and returns at once when it does already. Needs a
/// tokio runtime.
///
/// # Errors
/// When the directory is missing or goes, or the user has no inotify instances left.
pub async fn appears(directory: &Path, name: &OsStr) -> io::Result<()> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, directory, flags)?;
    let fd = crate::pidfd::register(fd)?;
    let path = directory.join(name);
    // Watched before looking, so that nothing is missed.
    while path.symlink_metadata().is_err() {
        let mut guard = fd.readable().await?;
        let events = drain(guard.get_inner())?;
        guard.clear_ready();
        if events.gone {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    Ok(())
}

fn drain(fd: &OwnedFd) -> io::Result<FileEvents> {
    let mut merged = FileEvents::default();
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => {
                let flags = event.events();
                // After an overflow anything may have happened: let the caller look.
                merged.modified |= flags.intersects(ReadFlags::MODIFY | ReadFlags::QUEUE_OVERFLOW);
                merged.closed |= flags.contains(ReadFlags::CLOSE_WRITE);
                merged.gone |=
                    flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED);
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(merged),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn writes_closes_and_deletion_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut watch = FileWatch::new(&path).unwrap();
        file.write_all(b"line\n").unwrap();
        assert_eq!(
            watch.next().await.unwrap(),
            FileEvents {
                modified: true,
                ..FileEvents::default()
            }
        );
        drop(file);
        assert!(watch.next().await.unwrap().closed);
        std::fs::remove_file(&path).unwrap();
        assert!(watch.next().await.unwrap().gone);
        assert!(FileWatch::new(&path).is_err());
    }

    #[tokio::test]
    async fn a_name_that_appears_is_seen_and_so_is_the_end_of_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("vm");
        std::fs::create_dir(&home).unwrap();
        let (seen, ()) = tokio::join!(appears(&home, "api.sock".as_ref()), async {
            std::fs::write(home.join("other"), b"").unwrap();
            std::os::unix::net::UnixListener::bind(home.join("api.sock")).unwrap();
        });
        seen.unwrap();
        // It is there already.
        appears(&home, "other".as_ref()).await.unwrap();
        let (gone, ()) = tokio::join!(appears(&home, "third".as_ref()), async {
            std::fs::remove_dir_all(&home).unwrap();
        });
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(appears(&home, "x".as_ref()).await.is_err());
    }
}
