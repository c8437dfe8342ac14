//! How much of a pull came over the network.

use std::sync::atomic::{AtomicU64, Ordering};

use banger_image::{Part, PartState, Progress};

/// Passes on what it hears, and adds up what was fetched.
pub(super) struct Tally<'a> {
    inner: &'a dyn Progress,
    fetched: AtomicU64,
}

impl<'a> Tally<'a> {
    pub(super) fn new(inner: &'a dyn Progress) -> Self {
        Self {
            inner,
            fetched: AtomicU64::new(0),
        }
    }

    /// Bytes of all parts that are whole.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
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
            self.fetched.fetch_add(part.done, Ordering::Relaxed);
        }
        self.inner.part(part);
    }
}
