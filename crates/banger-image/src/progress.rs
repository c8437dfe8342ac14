//! How a long operation reports, and how it is stopped.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

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

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
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

    /// Kills this child's group with the operation. The child must lead a group of its own.
    pub(crate) fn watch(&self, child: Child) -> Watched {
        let group = Pid::from_child(&child);
        let mut groups = self.groups();
        groups.push(group);
        if self.is_cancelled() {
            _ = kill_process_group(group, Signal::KILL);
        }
        drop(groups);
        Watched {
            cancel: self.clone(),
            child,
            group,
            reaped: false,
        }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child that ends with its operation, by [`Cancel::cancel`] or by being dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    cancel: Cancel,
    pub(crate) child: Child,
    group: Pid,
    reaped: bool,
}

impl Watched {
    /// Waits for the end of the child.
    pub(crate) fn wait(mut self) -> std::io::Result<std::process::ExitStatus> {
        self.reap()
    }

    fn reap(&mut self) -> std::io::Result<std::process::ExitStatus> {
        // Left unreaped until the group is forgotten: until then its number is taken.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(
            waitid(WaitId::Pid(self.group), options),
            Err(rustix::io::Errno::INTR)
        ) {}
        self.cancel.groups().retain(|&group| group != self.group);
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.reaped {
            _ = kill_process_group(self.group, Signal::KILL);
            _ = self.reap();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn group() -> Child {
        // The grandchild keeps the pipe open: its end shows that the whole group is dead.
        Command::new("sh")
            .args(["-c", "sleep 1000 & echo up; wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap()
    }

    #[test]
    fn cancel_kills_the_whole_group() {
        let cancel = Cancel::new();
        let mut watched = cancel.watch(group());
        let mut out = watched.child.stdout.take().unwrap();
        let mut up = [0; 3];
        out.read_exact(&mut up).unwrap();
        cancel.cancel();
        assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(!watched.wait().unwrap().success());
        assert!(matches!(cancel.check(), Err(Error::Cancelled)));
        assert!(cancel.groups().is_empty());
    }

    #[test]
    fn a_child_started_too_late_dies_at_once() {
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(!cancel.watch(group()).wait().unwrap().success());
    }

    #[test]
    fn dropping_kills_too() {
        let cancel = Cancel::new();
        let mut watched = cancel.watch(group());
        let mut out = watched.child.stdout.take().unwrap();
        drop(watched);
        out.read_to_end(&mut Vec::new()).unwrap();
        assert!(cancel.groups().is_empty());
    }
}
