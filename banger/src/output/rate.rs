//! How fast something goes, as people want to read it: without jumps.

use std::time::{Duration, Instant};

/// Bytes per second, smoothed exponentially.
#[derive(Debug, Clone, Default)]
pub(super) struct Rate {
    last: Option<(Instant, u64)>,
    value: f64,
    /// How much of `value` comes from samples; the rest is the zero that it began with.
    weight: f64,
}

/// What was measured this long ago counts for a third (1/e).
const SMOOTHING: Duration = Duration::from_secs(2);
/// Samples that come closer together are taken as one.
const APART: Duration = Duration::from_millis(100);
/// After this long without news it is no jitter any more, and the rate falls.
const SILENCE: Duration = Duration::from_secs(1);

impl Rate {
    /// Takes the bytes that are done at a moment.
    pub(super) fn sample(&mut self, bytes: u64, now: Instant) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, bytes));
            return;
        };
        let passed = now.saturating_duration_since(then);
        if passed < APART {
            return;
        }
        let measured = bytes.saturating_sub(before) as f64 / passed.as_secs_f64();
        let share = 1.0 - kept(passed);
        self.value += share * (measured - self.value);
        self.weight += share * (1.0 - self.weight);
        self.last = Some((now, bytes));
    }

    /// Bytes per second; `None` while nothing was measured.
    pub(super) fn at(&self, now: Instant) -> Option<u64> {
        let (then, _) = self.last.filter(|_| self.weight > 0.0)?;
        let silent = now.saturating_duration_since(then).saturating_sub(SILENCE);
        // Far below 2^53, and a cast bounds what is not.
        Some((self.value / self.weight * kept(silent)) as u64)
    }
}

/// How much of the past still counts after a time.
fn kept(passed: Duration) -> f64 {
    (-passed.as_secs_f64() / SMOOTHING.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_steady_stream_has_its_rate_from_the_first_measure() {
        let start = Instant::now();
        let mut rate = Rate::default();
        for i in 0..20_u32 {
            assert_eq!(rate.at(start), (i > 1).then_some(MIB * 4), "{i}");
            rate.sample(MIB * u64::from(i), start + i * Duration::from_millis(250));
        }
    }

    #[test]
    fn a_burst_is_smoothed_and_silence_brings_it_down() {
        let start = Instant::now();
        let mut rate = Rate::default();
        let at = |ms| start + Duration::from_millis(ms);
        rate.sample(0, at(0));
        rate.sample(MIB, at(1000));
        // Too close to be measured; it counts with the next.
        rate.sample(5 * MIB, at(1050));
        assert_eq!(rate.at(at(1050)), Some(MIB));
        rate.sample(5 * MIB, at(2000));
        let burst = rate.at(at(2000)).unwrap();
        assert!(burst > MIB && burst < 4 * MIB, "{burst}");
        assert_eq!(rate.at(at(2900)), Some(burst));
        let fallen = rate.at(at(5000)).unwrap();
        assert!(fallen < burst / 2, "{fallen}");
        assert!(rate.at(at(60_000)).unwrap() < 1024);
    }

    #[test]
    fn bytes_that_go_back_are_no_rate() {
        let start = Instant::now();
        let mut rate = Rate::default();
        rate.sample(100, start);
        rate.sample(50, start + SILENCE);
        assert_eq!(rate.at(start + SILENCE), Some(0));
    }
}
