//! Network namespaces (network_namespaces(7)) with a name in the file system, as ip-netns(8)
//! makes them. A namespace is a thread's: what is done here to "this thread" leaves others alone.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::mount_bind;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the kernel shows this thread's own.
const OWN: &str = "/proc/thread-self/ns/net";

/// Makes an empty network namespace and mounts it on the existing file `at`. Nothing but that
/// mount keeps it.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when `at` is missing.
pub fn make(at: &Path) -> io::Result<()> {
    // On a thread of its own, which ends in the new namespace, while its caller stays.
    apart("netns-make", || {
        // SAFETY: unsharing the network namespace changes what later system calls of this
        // thread mean, and no memory; nothing else runs on this thread.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mount_bind(OWN, at)?)
    })
}

/// Moves this thread into a namespace.
///
/// # Errors
/// Without CAP_SYS_ADMIN, or when the descriptor is no network namespace's.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// This thread's namespace.
///
/// # Errors
/// When `/proc` is not there.
pub fn current() -> io::Result<File> {
    File::open(OWN)
}

/// Runs something on a thread of its own and waits for it, so that a namespace which it enters
/// is nobody else's.
///
/// # Errors
/// What it returns, or when no thread can be made.
pub fn apart<T: Send>(name: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_cannot_be_entered() {
        let null = File::open("/dev/null").unwrap();
        assert!(apart("test", || enter(&null)).is_err());
    }

    #[test]
    fn work_apart_returns_its_result() {
        assert_eq!(apart("test", || Ok(7)).unwrap(), 7);
        let refused: io::Result<()> = apart("test", || Err(io::Error::other("no")));
        assert!(refused.is_err());
    }
}
