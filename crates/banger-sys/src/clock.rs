//! Jumps of the host's clock: it was set, or the host has slept.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Hears of each jump of `CLOCK_REALTIME` (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`).
pub struct ClockJumps {
    fd: AsyncFd<OwnedFd>,
}

impl ClockJumps {
    /// Listens from now on. Needs a tokio runtime.
    ///
    /// # Errors
    /// When there can be no timer.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Realtime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        // A timer that is never due: only its cancellation is wanted.
        let never = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::MAX,
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&fd, flags, &never)?;
        let fd = crate::pidfd::register(fd)?;
        Ok(Self { fd })
    }

    /// Waits for the next jump. Several at once are one.
    ///
    /// # Errors
    /// When the timer cannot be read.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.fd.readable().await?;
            let mut count = [0; 8];
            // The kernel goes on watching after it has told.
            match rustix::io::read(guard.get_inner(), &mut count) {
                Err(Errno::CANCELED) => {
                    guard.clear_ready();
                    return Ok(());
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => guard.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// The clock itself is the machine's: no test sets it.
    #[tokio::test]
    async fn a_clock_that_goes_on_is_no_jump() {
        let mut jumps = ClockJumps::new().unwrap();
        let mut next = pin!(jumps.next());
        let polled = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
    }
}
