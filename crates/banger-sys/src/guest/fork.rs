//! fork(2) for a program with one thread.

use std::fs;
use std::io;

/// Which side of the fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    Parent {
        /// The child's process id.
        child: i32,
    },
    Child,
}

/// Forks the calling process, which must have one thread.
///
/// # Errors
/// When the process has more threads (the child could then stop on a lock that a thread held
/// which it does not have), or when the kernel refuses.
pub fn fork() -> io::Result<Forked> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "A process with {threads} threads cannot be forked"
        )));
    }
    // SAFETY: the process has one thread, so the child has everything that its parent had.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        child if child > 0 => Ok(Forked::Parent { child }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness runs tests on threads beside its main one.
        let other = std::thread::spawn(std::thread::park);
        assert!(fork().is_err());
        other.thread().unpark();
        other.join().unwrap();
    }
}
