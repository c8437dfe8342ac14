//! Sockets that whoever started this program has opened for it: sd_listen_fds(3).

use std::env;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// The number of the first descriptor.
const FIRST: RawFd = 3;
/// More is a mistake, not a socket unit.
const MAX: i32 = 64;

/// Takes the passed descriptors, and keeps programs that are started later from having them.
/// Only the first call has any. `pid_known` says that the starter could not tell `LISTEN_PID`
/// and marked this program's environment in another way; else the variable must be this
/// process's number. Call it before anything else opens descriptors.
///
/// # Errors
/// When `LISTEN_FDS` names descriptors that are not open.
pub fn take_listen_fds(pid_known: bool) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |key: &str| env::var(key).ok().and_then(|text| text.parse::<i32>().ok());
    let for_us = match number("LISTEN_PID") {
        Some(pid) => u32::try_from(pid).is_ok_and(|pid| pid == std::process::id()),
        None => pid_known,
    };
    let count = number("LISTEN_FDS").unwrap_or(0);
    if !for_us || !(1..=MAX).contains(&count) || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    // All of them are looked at before one is owned: a wrong count must not close a stranger.
    for fd in FIRST..FIRST + count {
        // SAFETY: the number is only used for one system call, which fails when nothing is open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    }
    let taken = (FIRST..FIRST + count).map(|fd| {
        // SAFETY: it is open, the environment says that it is passed to this process, and the
        // flag above lets this run only once, so nothing else owns it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    });
    Ok(taken.collect())
}

/// Closes every descriptor above the standard streams and those of [`take_listen_fds`], which
/// must come after this: what a shell had open (a lock, a pipe that somebody reads to its end)
/// is not for a program that outlives it. Does nothing once a second thread runs, because then
/// something may own descriptors.
pub fn close_inherited() {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return;
    }
    let passed = env::var("LISTEN_FDS")
        .ok()
        .and_then(|text| text.parse::<u32>().ok());
    let first = FIRST.cast_unsigned() + passed.unwrap_or(0).min(MAX.cast_unsigned());
    // SAFETY: this process has one thread and has only begun: the descriptors were inherited
    // and nothing in it owns one. The call takes numbers and touches no memory. Where it fails
    // (before Linux 5.9) they stay open, as they would without it.
    unsafe { libc::close_range(first, libc::c_uint::MAX, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_variables_nothing_is_taken() {
        // The test runner passes none.
        assert!(take_listen_fds(true).unwrap().is_empty());
    }
}
