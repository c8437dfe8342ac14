//! Stopping an operation from another thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};

/// A wish to stop. Clones stop the same operation; it cannot be taken back.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    /// Process groups that end with the operation. A group is taken out before its leader is
    /// reaped, so no number in here was given to another process.
    groups: Mutex<Vec<Pid>>,
}

impl Cancel {
    pub fn new() -> Self {
        Self::default()
    }

    /// Kills what runs for the operation, which then ends with [`Error::Cancelled`]. Safe at any
    /// time and more than once.
    pub fn cancel(&self) {
        let groups = self.groups();
        self.0.cancelled.store(true, Ordering::SeqCst);
        for &group in &*groups {
            // It may have ended by itself in this moment.
            _ = kill_process_group(group, Signal::KILL);
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

    /// From now on this group ends with the operation, at once when that was stopped already.
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

    fn groups(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
