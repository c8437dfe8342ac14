//! How a long operation reports, and how it is stopped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};

/// Where an operation says how far it is. Called from several threads, often: an
/// implementation must be cheap and must not block.
pub trait Progress: Send + Sync {
    /// A new stage begins, as "Downloading packages". The fraction starts again.
    fn stage(&self, stage: &str);
    /// How much of the current stage is done, 0 to 1.
    fn fraction(&self, done: f64);
    /// A detail of the current stage, or a warning that the caller should show.
    fn message(&self, text: &str);
    /// Where one of several things is that go on at once, as the layers of an image. Parts are
    /// shown in the order in which they were first named.
    fn part(&self, _: &Part<'_>) {}
}

/// One of several things that go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// What people call it: the short digest of a layer.
    pub name: &'a str,
    pub state: PartState,
    /// Bytes done in this state, and bytes in all; 0 in all when it is not known.
    pub done: u64,
    pub total: u64,
}

/// What happens to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartState {
    Waiting,
    Fetching,
    /// It was here already.
    Cached,
    /// It is fetched and verified, and waits for those before it.
    Fetched,
    Unpacking,
    Done,
}

impl PartState {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Cached => "cached",
            Self::Fetched => "fetched",
            Self::Unpacking => "unpacking",
            Self::Done => "done",
        }
    }
}

/// Reports nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn stage(&self, _: &str) {}
    fn fraction(&self, _: f64) {}
    fn message(&self, _: &str) {}
}

/// Stops an operation from another thread. Clones stop the same operation.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Shared>);

type Waker = Box<dyn Fn() + Send>;

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    /// What wakes those who wait for something else, by their numbers.
    wakers: Mutex<Vec<(u64, Waker)>>,
    next: AtomicU64,
    /// Process groups that end with the operation. A group is taken out before its leader
    /// is reaped, so no number in here was given to another process.
    groups: Mutex<Vec<Pid>>,
}

impl Cancel {
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the operation: its children are killed now, its own loops end at their next
    /// step, and it returns [`Error::Cancelled`]. Safe to call at any time, more than once.
    pub fn cancel(&self) {
        let groups = self.groups();
        self.0.cancelled.store(true, Ordering::SeqCst);
        for &group in &*groups {
            // It may have ended by itself in this moment.
            _ = kill_process_group(group, Signal::KILL);
        }
        drop(groups);
        for (_, wake) in &*self.wakers() {
            wake();
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// # Errors
    /// [`Error::Cancelled`] once [`Cancel::cancel`] was called.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// From now on this group ends with the operation. It is killed at once when the
    /// operation was stopped already.
    pub(crate) fn watch(&self, group: Pid) {
        let mut groups = self.groups();
        groups.push(group);
        if self.is_cancelled() {
            _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// To be called while the number of the group cannot be given to another one.
    pub(crate) fn forget(&self, group: Pid) {
        self.groups().retain(|&other| other != group);
    }

    /// Calls `wake` when the operation is stopped, or now when it was: once or twice, in the
    /// thread that stops it, until what is returned is dropped. It must not block, nor use the
    /// operation's `Cancel`.
    pub(crate) fn on_cancel(&self, wake: impl Fn() + Send + 'static) -> OnCancel {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut wakers = self.wakers();
        if self.is_cancelled() {
            wake();
        }
        wakers.push((number, Box::new(wake)));
        OnCancel {
            cancel: self.clone(),
            number,
        }
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cancelled = self.cancelled.load(Ordering::SeqCst);
        f.debug_struct("Shared")
            .field("cancelled", &cancelled)
            .finish_non_exhaustive()
    }
}

/// Ends what [`Cancel::on_cancel`] began.
#[derive(Debug)]
pub(crate) struct OnCancel {
    cancel: Cancel,
    number: u64,
}

impl Drop for OnCancel {
    fn drop(&mut self) {
        self.cancel.wakers().retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_operation_stays_stopped() {
        let cancel = Cancel::new();
        assert!(cancel.check().is_ok());
        cancel.clone().cancel();
        cancel.cancel();
        assert!(matches!(cancel.check(), Err(Error::Cancelled)));
    }

    #[test]
    fn who_waits_is_woken_also_when_he_comes_late() {
        let cancel = Cancel::new();
        let (sender, woken) = std::sync::mpsc::channel();
        let wake = |name| {
            let sender = sender.clone();
            move || sender.send(name).unwrap()
        };
        let _early = cancel.on_cancel(wake("early"));
        drop(cancel.on_cancel(wake("gone")));
        cancel.cancel();
        let _late = cancel.on_cancel(wake("late"));
        assert_eq!(woken.try_iter().collect::<Vec<_>>(), ["early", "late"]);
    }
}
