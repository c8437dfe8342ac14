//! How much of a pull came over the network.

use std::sync::{Mutex, PoisonError};

use banger_image::{Part, PartState, Progress};

/// Passes on what it hears, and adds up what was fetched.
pub(super) struct Tally<'a> {
    inner: &'a dyn Progress,
    fetched: Mutex<Fetched>,
}

/// What came over the network.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    /// The parts that are whole, by their names.
    pub(super) names: Vec<String>,
    /// The bytes of them.
    pub(super) bytes: u64,
}

impl<'a> Tally<'a> {
    pub(super) fn new(inner: &'a dyn Progress) -> Self {
        Self {
            inner,
            fetched: Mutex::default(),
        }
    }

    pub(super) fn fetched(&self) -> Fetched {
        self.fetched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Progress for Tally<'_> {
    fn stage(&self, stage: &str) {
        self.inner.stage(stage);
    }

    fn fraction(&self, done: f64) {
        self.inner.fraction(done);
    }

    fn message(&self, text: &str) {
        self.inner.message(text);
    }

    fn part(&self, part: &Part<'_>) {
        // Told once of each.
        if part.state == PartState::Fetched {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            fetched.names.push(part.name.to_owned());
            fetched.bytes = fetched.bytes.saturating_add(part.done);
        }
        self.inner.part(part);
    }
}
