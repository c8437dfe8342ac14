//! Work on one thing by one at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// A queue for each thing that somebody works on.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<Turn<()>>>>);

impl Turns {
    /// Takes a turn at `thing`. `wait` is called first when somebody else is at it. The second
    /// value says whether it was.
    pub(super) async fn take(&self, thing: &str, wait: impl FnOnce()) -> (OwnedMutexGuard<()>, bool) {
        let turn = {
            let mut turns = self.lock();
            // Those that nobody has or waits for are ours alone.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(thing.to_owned()).or_default().clone()
        };
        match turn.clone().try_lock_owned() {
            Ok(guard) => (guard, false),
            Err(_) => {
                wait();
                (turn.lock_owned().await, true)
            }
        }
    }

    /// Takes a turn at `thing` unless somebody else is at it.
    pub(super) fn try_take(&self, thing: &str) -> Option<OwnedMutexGuard<()>> {
        let turn = self.lock().entry(thing.to_owned()).or_default().clone();
        turn.try_lock_owned().ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Turn<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_others_do_not() {
        let turns = Turns::default();
        let (first, waited) = turns.take("a", || panic!("nobody is at it")).await;
        assert!(!waited);
        let (_other, waited) = turns.take("b", || panic!("nobody is at it")).await;
        assert!(!waited);
        let mut told = false;
        let second = turns.take("a", || told = true);
        let ending = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let ((_guard, waited), ()) = tokio::join!(second, ending);
        assert!(waited && told);
        assert!(turns.try_take("a").is_none());
        assert!(turns.try_take("c").is_some());
        turns.lock().remove("c");
        assert_eq!(turns.lock().len(), 2);
    }
}
