//! How much of the helper one caller can have at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zbus::names::OwnedUniqueName;

/// Calls of one connection that may be in progress; also of one user.
pub(crate) const CALLS: usize = 64;
/// Questions to polkit of one user that may be open; more wait.
pub(crate) const CHECKS: usize = 16;
/// Calls of everybody that may be in progress.
pub(crate) const ALL_CALLS: usize = 512;

/// The arguments of a call, in bytes; the largest that make sense are some hundreds. A message
/// is kept as long as its call is in progress.
pub(crate) const ARGUMENTS: u32 = 64 << 10;

/// Counts the calls in progress.
#[derive(Default)]
pub(crate) struct Limits {
    connections: Counters<OwnedUniqueName>,
    users: Counters<u32>,
}

/// A call in progress, until it is dropped.
pub(crate) struct Turn<K: Eq + Hash> {
    counters: Counters<K>,
    key: K,
    checks: Arc<Semaphore>,
}

impl Limits {
    /// The first thing of a call, at once: what waits holds memory and descriptors.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub(crate) fn enter(&self, name: &OwnedUniqueName, bytes: u32) -> HelperResult<Turn<OwnedUniqueName>> {
        if bytes > ARGUMENTS {
            let text = format!("The arguments are too long ({bytes} bytes, at most {ARGUMENTS})");
            return Err(HelperError::new(ErrorKind::LimitExceeded, text));
        }
        self.connections.enter(name.clone())
    }

    /// Once it is known whose connection it is.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub(crate) fn enter_user(&self, uid: u32) -> HelperResult<Turn<u32>> {
        self.users.enter(uid)
    }
}

impl Turn<u32> {
    /// Waits until this user may have one more question open.
    pub(crate) async fn check(&self) -> Option<OwnedSemaphorePermit> {
        self.checks.clone().acquire_owned().await.ok()
    }
}

#[derive(Clone)]
struct Counters<K>(Arc<Mutex<HashMap<K, Count>>>);

struct Count {
    calls: usize,
    checks: Arc<Semaphore>,
}

impl<K: Eq + Hash + Clone> Counters<K> {
    fn enter(&self, key: K) -> HelperResult<Turn<K>> {
        let mut counts = self.lock();
        let all: usize = counts.values().map(|count| count.calls).sum();
        let own = counts.get(&key).map_or(0, |count| count.calls);
        if own >= CALLS || all >= ALL_CALLS {
            let text = format!(
                "Too many calls at once (at most {CALLS} of one user)\nTry again when others are answered"
            );
            return Err(HelperError::new(ErrorKind::LimitExceeded, text));
        }
        let count = counts.entry(key.clone()).or_insert_with(|| Count {
            calls: 0,
            checks: Arc::new(Semaphore::new(CHECKS)),
        });
        count.calls += 1;
        let checks = count.checks.clone();
        Ok(Turn {
            counters: self.clone(),
            key,
            checks,
        })
    }
}

impl<K> Counters<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Default for Counters<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut counts = self.counters.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            count.calls -= 1;
            if count.calls == 0 {
                counts.remove(&self.key);
            }
        }
    }
}
