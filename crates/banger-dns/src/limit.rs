//! How much is answered.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A number of requests for each second, counted from the first one in it.
pub(crate) struct Limit {
    per_second: u32,
    used: Mutex<(Instant, u32)>,
}

impl Limit {
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            used: Mutex::new((Instant::now(), 0)),
        }
    }

    /// Whether one more may be answered now; counts it if so.
    pub(crate) fn admits(&self) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.0.elapsed() >= SECOND {
            *used = (Instant::now(), 0);
        }
        let admitted = used.1 < self.per_second;
        used.1 += u32::from(admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_second_has_as_many() {
        let limit = Limit::new(3);
        for _ in 0..2 {
            assert_eq!((0..5).filter(|_| limit.admits()).count(), 3);
            tokio::time::advance(SECOND).await;
        }
    }
}
