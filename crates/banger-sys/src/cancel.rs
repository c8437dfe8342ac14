//! Stopping an operation from another thread, with the processes that run for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

/// The operation was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The operation was cancelled")]
pub struct Cancelled;

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
    /// step, and it fails with [`Cancelled`]. Safe to call at any time, more than once.
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
    /// [`Cancelled`] once [`Cancel::cancel`] was called.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }

    /// From now on this group ends with the operation. It is killed at once when the
    /// operation was stopped already.
    pub fn watch(&self, group: Pid) {
        let mut groups = self.groups();
        groups.push(group);
        if self.is_cancelled() {
            _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// To be called while the number of the group cannot be given to another one.
    pub fn forget(&self, group: Pid) {
        self.groups().retain(|&other| other != group);
    }

    /// Calls `wake` when the operation is stopped, or now when it was: once or twice, in the
    /// thread that stops it, until what is returned is dropped. It must not block, nor use the
    /// operation's `Cancel`.
    pub fn on_cancel(&self, wake: impl Fn() + Send + 'static) -> OnCancel {
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
pub struct OnCancel {
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
        assert!(matches!(cancel.check(), Err(Cancelled)));
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
