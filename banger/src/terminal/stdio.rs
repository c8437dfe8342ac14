//! The three standard streams, as they are handed to the daemon.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, open};

/// Descriptors for the daemon. It may make them non-blocking, and that is a property of the
/// open file that our caller (a shell, a pipe's other programs) shares: so each is opened anew
/// where that is possible, and put back where it is not.
#[derive(Debug)]
pub(super) struct Stdio {
    shared: Vec<(OwnedFd, OFlags)>,
}

/// Whether a command should have a terminal when nobody says so.
pub(crate) fn wants_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

impl Stdio {
    pub(super) fn take() -> io::Result<(Self, [OwnedFd; 3])> {
        let mut stdio = Self { shared: Vec::new() };
        let streams = [
            stdio.one(io::stdin().as_fd(), 0, OFlags::RDONLY)?,
            stdio.one(io::stdout().as_fd(), 1, OFlags::WRONLY)?,
            stdio.one(io::stderr().as_fd(), 2, OFlags::WRONLY)?,
        ];
        Ok((stdio, streams))
    }

    fn one(&mut self, fd: BorrowedFd<'_>, number: u32, mode: OFlags) -> io::Result<OwnedFd> {
        if let Some(anew) = reopen(fd, number, mode) {
            return Ok(anew);
        }
        let copy = fd.try_clone_to_owned()?;
        if let Ok(flags) = fcntl_getfl(&copy) {
            self.shared.push((copy.try_clone()?, flags));
        }
        Ok(copy)
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        for (fd, flags) in &self.shared {
            // A stream that is gone needs no flags.
            let _ = fcntl_setfl(fd, *flags);
        }
    }
}

/// Files are not opened anew: they would begin at their start again. Sockets cannot be.
fn reopen(fd: BorrowedFd<'_>, number: u32, mode: OFlags) -> Option<OwnedFd> {
    let kind = FileType::from_raw_mode(fstat(fd).ok()?.st_mode);
    let is_terminal = File::from(fd.try_clone_to_owned().ok()?).is_terminal();
    if !is_terminal && kind != FileType::Fifo {
        return None;
    }
    // With a terminal the daemon writes to what it reads from, as a shell does.
    let mode = if is_terminal { OFlags::RDWR } else { mode };
    // A named pipe whose other end is not open would keep a blocking open waiting.
    let flags = mode | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let anew = open(format!("/proc/self/fd/{number}"), flags, Mode::empty()).ok()?;
    fcntl_setfl(&anew, mode).ok()?;
    Some(anew)
}
