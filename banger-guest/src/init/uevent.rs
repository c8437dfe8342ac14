//! The kernel's events about devices: what is waited for is looked at again when the kernel
//! says that something changed, and not before.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// A subscription to the kernel's device events.
pub(crate) struct Events {
    socket: OwnedFd,
}

impl Events {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(KOBJECT_UEVENT),
        )?;
        // Group 1 is the kernel's own messages.
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 1))?;
        Ok(Self { socket })
    }

    /// Asks `look` now and after each event, until it finds something or the time is over.
    pub(crate) fn wait_for<T>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(None);
            }
            self.next_event(rest)?;
        }
    }

    /// Waits for an event: only that there was one matters.
    fn next_event(&mut self, limit: Duration) -> io::Result<()> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut wanted = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut wanted, Some(&limit))?;
        self.drain();
        Ok(())
    }

    /// Drops all events that are queued: the caller looks at what is there now.
    pub(crate) fn drain(&mut self) {
        let mut event = [0; 4096];
        // Ends by EAGAIN, or by ENOBUFS when events were lost: the caller looks anyway.
        while rustix::net::recv(&self.socket, &mut event, RecvFlags::DONTWAIT).is_ok() {}
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
