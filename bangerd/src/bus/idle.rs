//! When nobody has needed the daemon for a while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// When the last message came or went.
pub(crate) struct Idle {
    last: Mutex<Instant>,
    again: Notify,
}

impl Idle {
    pub(super) fn new() -> Self {
        Self {
            last: Mutex::new(Instant::now()),
            again: Notify::new(),
        }
    }

    /// Something was said on a connection, or somebody connected.
    pub(crate) fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// What keeps the daemon busy may have changed.
    pub(super) fn look_again(&self) {
        self.again.notify_one();
    }

    /// Resolves when nothing was said for as long as `quiet` wants; while it wants nothing the
    /// daemon is busy. For one waiter.
    pub(crate) async fn reached(&self, quiet: impl Fn() -> Option<Duration>) {
        loop {
            let Some(due) = quiet().map(|quiet| self.last() + quiet) else {
                self.again.notified().await;
                continue;
            };
            if Instant::now() >= due {
                return;
            }
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.again.notified() => {}
            }
        }
    }

    /// Whether [`Idle::reached`] would resolve at once.
    pub(crate) fn is_reached(&self, quiet: impl Fn() -> Option<Duration>) -> bool {
        quiet().is_some_and(|quiet| Instant::now() >= self.last() + quiet)
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quiet_counts_from_the_last_word_and_not_while_busy() {
        let idle = Idle::new();
        let busy = AtomicBool::new(true);
        let begin = Instant::now();
        let quiet = Duration::from_secs(60);
        let story = async {
            tokio::time::advance(Duration::from_secs(100)).await;
            busy.store(false, Ordering::Relaxed);
            idle.touch();
            idle.look_again();
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_secs(30)).await;
            idle.touch();
        };
        let wanted = || (!busy.load(Ordering::Relaxed)).then_some(quiet);
        assert!(!idle.is_reached(wanted));
        tokio::join!(idle.reached(wanted), story);
        assert!(idle.is_reached(wanted));
        assert_eq!(begin.elapsed().as_secs(), 190);
    }
}
