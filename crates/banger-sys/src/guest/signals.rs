//! Signals as events of a descriptor, and the one signal that has no name.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd};

/// Blocked signals, read from a descriptor. The child of a fork inherits the blocked mask, a
/// program started by `std::process::Command` does not.
#[derive(Debug)]
pub struct SignalFd {
    file: File,
}

impl SignalFd {
    /// Blocks `signals` in the calling thread and makes them readable. The descriptor does
    /// not block and closes on exec.
    ///
    /// # Errors
    /// When a signal number is out of range or there is no descriptor left.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals)?;
        // SAFETY: the set is initialised, and the old mask is not wanted.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let descriptor =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let file = unsafe { File::from_raw_fd(descriptor) };
        Ok(Self { file })
    }

    /// The next pending signal, or none.
    ///
    /// # Errors
    /// As read(2).
    pub fn take(&mut self) -> io::Result<Option<i32>> {
        let mut event = [0; size_of::<libc::signalfd_siginfo>()];
        match self.file.read(&mut event) {
            // ssi_signo is the first field, in the machine's byte order.
            Ok(length) if length == event.len() => {
                Ok(Some(i32::from_ne_bytes([event[0], event[1], event[2], event[3]])))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets the signals act on the process again, which a forked child may want.
    ///
    /// # Errors
    /// As pthread_sigmask(3).
    pub fn unblock_all() -> io::Result<()> {
        let set = set_of(&[])?;
        // SAFETY: the set is initialised, and the old mask is not wanted.
        let failed =
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        Ok(())
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Sends SIGRTMIN+`offset` to PID 1: how systemd is told to power off (4) or reboot (5)
/// without its bus, systemd(1) "SIGNALS".
///
/// # Errors
/// As kill(2).
pub fn kill_init_realtime(offset: i32) -> io::Result<()> {
    let signal = libc::SIGRTMIN() + offset;
    // SAFETY: integers only.
    if unsafe { libc::kill(1, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_of(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is that of a live variable.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset has initialised the whole set and cannot fail.
    let mut set = unsafe { set.assume_init() };
    for &signal in signals {
        // SAFETY: the set is initialised; a bad number is answered by EINVAL.
        if unsafe { libc::sigaddset(&raw mut set, signal) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read() {
        let mut signals = SignalFd::new(&[libc::SIGUSR2]).unwrap();
        assert_eq!(signals.take().unwrap(), None);
        // SAFETY: the signal is blocked in this thread, to which it is sent.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
        assert_eq!(signals.take().unwrap(), Some(libc::SIGUSR2));
        assert_eq!(signals.take().unwrap(), None);
    }
}
