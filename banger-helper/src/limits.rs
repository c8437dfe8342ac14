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
pub(crate) struct Limits {
    connections: Counters<OwnedUniqueName>,
    users: Counters<u32>,
}

/// A call of a connection, until it is dropped.
pub(crate) struct ConnectionTurn {
    _place: Place<OwnedUniqueName>,
}

/// A call of a user, until it is dropped.
pub(crate) struct UserTurn {
    place: Place<u32>,
}

impl Limits {
    pub(crate) fn new() -> Self {
        Self {
            connections: Counters::new(ALL_CALLS),
            users: Counters::new(ALL_CALLS),
        }
    }

    /// The first thing of a call, at once: what waits holds memory and descriptors.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub(crate) fn enter(&self, name: &OwnedUniqueName, bytes: u32) -> HelperResult<ConnectionTurn> {
        if bytes > ARGUMENTS {
            let text = format!("The arguments are too long ({bytes} bytes, at most {ARGUMENTS})");
            return Err(HelperError::new(ErrorKind::LimitExceeded, text));
        }
        let place = self.connections.enter(name.clone())?;
        Ok(ConnectionTurn { _place: place })
    }

    /// Once it is known whose connection it is.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub(crate) fn enter_user(&self, uid: u32) -> HelperResult<UserTurn> {
        let place = self.users.enter(uid)?;
        Ok(UserTurn { place })
    }
}

impl UserTurn {
    /// Waits until this user may have one more question open.
    pub(crate) async fn check(&self) -> Option<OwnedSemaphorePermit> {
        self.place.checks.clone().acquire_owned().await.ok()
    }
}

struct Counters<K> {
    shared: Arc<Mutex<HashMap<K, Count>>>,
    all: usize,
}

struct Count {
    calls: usize,
    checks: Arc<Semaphore>,
}

struct Place<K: Eq + Hash> {
    shared: Arc<Mutex<HashMap<K, Count>>>,
    key: K,
    checks: Arc<Semaphore>,
}

impl<K: Eq + Hash + Clone> Counters<K> {
    fn new(all: usize) -> Self {
        let shared = Arc::default();
        Self { shared, all }
    }

    fn enter(&self, key: K) -> HelperResult<Place<K>> {
        let mut counts = lock(&self.shared);
        let all: usize = counts.values().map(|count| count.calls).sum();
        let count = counts.entry(key.clone()).or_insert_with(|| Count {
            calls: 0,
            checks: Arc::new(Semaphore::new(CHECKS)),
        });
        if count.calls >= CALLS || all >= self.all {
            if count.calls == 0 {
                counts.remove(&key);
            }
            return Err(HelperError::new(
                ErrorKind::LimitExceeded,
                format!(
                    "Too many calls at once (at most {CALLS} of one user)\nTry again when others are answered"
                ),
            ));
        }
        count.calls += 1;
        Ok(Place {
            checks: count.checks.clone(),
            shared: self.shared.clone(),
            key,
        })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.shared);
        if let Some(count) = counts.get_mut(&self.key) {
            count.calls -= 1;
            if count.calls == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

fn lock<K>(shared: &Mutex<HashMap<K, Count>>) -> MutexGuard<'_, HashMap<K, Count>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
