//! The guests' namespace: its name in the file system, and a thread that lives in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use banger_model::slot::NAMESPACE;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};

use crate::NetError;
use crate::record::{Namespaces, Record};

/// Where ip-netns(8) and systemd's NetworkNamespacePath= look for namespaces.
pub(crate) const DIRECTORY: &str = "/run/netns";
/// `NSFS_MAGIC` of linux/magic.h.
const NSFS: rustix::fs::FsWord = 0x6e73_6673;

type Work = Box<dyn FnOnce() + Send>;

/// A thread in the guests' namespace; what it is given runs there. It ends with this.
pub(crate) struct Inside {
    file: File,
    work: mpsc::Sender<Work>,
}

fn path() -> String {
    format!("{DIRECTORY}/{NAMESPACE}")
}

/// Makes the namespace, and says whether it was not there.
pub(crate) fn ensure(record: &mut Record) -> Result<bool, NetError> {
    if exists() {
        return Ok(false);
    }
    ensure_directory(record)?;
    let path = path();
    // It may be left from a moment between these two.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(NetError::file(&path))?;
    banger_sys::netns::make(Path::new(&path))
        .map_err(NetError::kernel(format!("make the namespace {path}")))?;
    Ok(true)
}

/// Whether a namespace has the name.
pub(crate) fn exists() -> bool {
    rustix::fs::statfs(path()).is_ok_and(|stat| stat.f_type == NSFS)
}

/// Takes the name away; the namespace ends with the last process in it.
pub(crate) fn remove(record: &Record) -> Result<(), NetError> {
    let path = path();
    while exists() {
        unmount(&path, UnmountFlags::DETACH)
            .map_err(|e| NetError::kernel(format!("unmount {path}"))(e.into()))?;
    }
    gone(fs::remove_file(&path)).map_err(NetError::file(&path))?;
    let Some(made) = record.namespaces else {
        return Ok(());
    };
    // Somebody else's namespaces may be there by now.
    let is_empty = fs::read_dir(DIRECTORY).is_ok_and(|mut names| names.next().is_none());
    if !is_empty {
        return Ok(());
    }
    if made.mount {
        match unmount(DIRECTORY, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(e) => return Err(NetError::kernel(format!("unmount {DIRECTORY}"))(e.into())),
        }
    }
    if made.directory {
        gone(fs::remove_dir(DIRECTORY)).map_err(NetError::file(DIRECTORY))?;
    }
    Ok(())
}

/// As ip-netns(8) does: a mount that others share, so that the namespaces in it are seen by
/// services with mounts of their own, and a later `ip netns add` finds nothing to do.
fn ensure_directory(record: &mut Record) -> Result<(), NetError> {
    let missing = !Path::new(DIRECTORY).exists();
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if missing {
        fs::create_dir_all(DIRECTORY).map_err(NetError::file(DIRECTORY))?;
    }
    let failed = |e: Errno| NetError::kernel(format!("share {DIRECTORY}"))(e.into());
    match mount_change(DIRECTORY, shared) {
        Ok(()) => Ok(()),
        // Not a mount yet.
        Err(Errno::INVAL) => {
            record.namespaces = Some(Namespaces {
                directory: missing,
                mount: true,
            });
            record.write()?;
            mount_bind_recursive(DIRECTORY, DIRECTORY)
                .and_then(|()| mount_change(DIRECTORY, shared))
                .map_err(failed)
        }
        Err(e) => Err(failed(e)),
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Inside {
    /// Starts the thread in the existing namespace.
    pub(crate) fn start() -> Result<Self, NetError> {
        let path = path();
        let file = File::open(&path).map_err(NetError::file(&path))?;
        let (work, queue) = mpsc::channel::<Work>();
        let (tell, entered) = mpsc::sync_channel(1);
        let own = file.try_clone().map_err(NetError::file(&path))?;
        let live = move || {
            let result = banger_sys::netns::enter(own.as_fd());
            let failed = result.is_err();
            if tell.send(result).is_err() || failed {
                return;
            }
            queue.into_iter().for_each(|work| work());
        };
        let failed = |e| NetError::kernel(format!("enter the namespace {path}"))(e);
        thread::Builder::new()
            .name("inside".to_owned())
            .spawn(live)
            .map_err(failed)?;
        match entered.recv() {
            Ok(Ok(())) => Ok(Self { file, work }),
            Ok(Err(e)) => Err(failed(e)),
            Err(_) => Err(failed(io::Error::from(io::ErrorKind::BrokenPipe))),
        }
    }

    /// The namespace, to put a link into it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Runs something in the namespace and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
    ) -> Result<T, NetError> {
        let ended = || NetError::kernel("work in the namespace")(io::Error::from(io::ErrorKind::BrokenPipe));
        let (tell, result) = mpsc::sync_channel(1);
        let work = Box::new(move || drop(tell.send(work())));
        self.work.send(work).map_err(|_| ended())?;
        result.recv().map_err(|_| ended())?
    }
}
