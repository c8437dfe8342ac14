//! Whether anybody needs the helper.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Counts what goes on, and remembers when the last of it ended.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    running: usize,
    last: Instant,
}

/// Something goes on until this is dropped.
pub struct Token(Arc<Shared>);

impl Activity {
    pub(crate) fn new() -> Self {
        let state = State {
            running: 0,
            last: Instant::now(),
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn begin(&self) -> Token {
        self.0.state().running += 1;
        Token(self.0.clone())
    }

    /// Whether nothing has gone on for `quiet`.
    pub(crate) fn quiet_for(&self, quiet: Duration) -> bool {
        let state = self.0.state();
        state.running == 0 && Instant::now() >= state.last + quiet
    }

    /// Resolves when nothing has gone on for `quiet`. For one waiter.
    pub(crate) async fn quiet(&self, quiet: Duration) {
        loop {
            let due = {
                let state = self.0.state();
                (state.running == 0).then_some(state.last + quiet)
            };
            match due {
                Some(due) if Instant::now() >= due => return,
                Some(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.0.changed.notified() => {}
                },
                None => self.0.changed.notified().await,
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        state.last = Instant::now();
        drop(state);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quiet_counts_from_the_end_of_the_last() {
        let activity = Activity::new();
        let begin = Instant::now();
        let token = activity.begin();
        let other = activity.begin();
        let story = async {
            tokio::time::advance(Duration::from_secs(100)).await;
            drop(token);
            assert!(!activity.quiet_for(Duration::ZERO));
            tokio::time::advance(Duration::from_secs(10)).await;
            drop(other);
        };
        tokio::join!(activity.quiet(Duration::from_secs(60)), story);
        assert_eq!(begin.elapsed().as_secs(), 170);
        assert!(activity.quiet_for(Duration::from_secs(60)));
    }
}
