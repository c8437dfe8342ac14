//! When a request is sent again, and how long after.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use rustix::rand::{GetRandomFlags, getrandom};

use super::error::OciError;
use super::time::http_date;

/// How often and after how long a request that failed for a while is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often it is sent in all, without progress in between.
    pub attempts: u32,
    /// The pause after the first failure; each further one is twice as long, at most
    /// [`RetryPolicy::MAX_PAUSE`].
    pub pause: Duration,
    /// What a second of a `Retry-After` takes: a second, or nothing in a test.
    pub second: Duration,
}

impl RetryPolicy {
    /// The longest pause, also of a registry that asks for more: such a one fails at once.
    pub const MAX_PAUSE: Duration = Duration::from_secs(60);

    /// As patient as the default, in no time.
    pub const fn immediate() -> Self {
        Self {
            attempts: 5,
            pause: Duration::ZERO,
            second: Duration::ZERO,
        }
    }

    /// The pause before the next attempt after `failed` ones; nothing when there is none.
    pub(super) fn next(&self, failed: u32, error: &OciError) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        let asked = match error {
            OciError::RateLimited { after, .. } | OciError::Status { after, .. } => *after,
            OciError::Unreachable { .. } | OciError::BrokenOff { .. } => None,
            _ => return None,
        };
        match error {
            OciError::Status { status, .. } if !matches!(status, 408 | 500..) => None,
            _ => match asked {
                Some(asked) if asked > Self::MAX_PAUSE => None,
                Some(asked) => Some(
                    self.second
                        .saturating_mul(u32::try_from(asked.as_secs()).unwrap_or(u32::MAX)),
                ),
                None => Some(self.backoff(failed)),
            },
        }
    }

    /// Between half and the whole of the exponential pause: not everybody comes back at once.
    fn backoff(&self, failed: u32) -> Duration {
        let factor = 1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = self.pause.saturating_mul(factor).min(Self::MAX_PAUSE);
        let mut random = [0; 1];
        // Without randomness it is the whole.
        let drawn = getrandom(&mut random, GetRandomFlags::NONBLOCK).map_or(0, |_| random[0]);
        whole - whole / 2 * u32::from(drawn) / 256
    }
}

impl Default for RetryPolicy {
    /// Five attempts in about eight seconds.
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(500),
            second: Duration::from_secs(1),
        }
    }
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(http_date(text)?).ok()?);
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn limited(after: Option<u64>) -> OciError {
        OciError::RateLimited {
            host: String::new(),
            after: after.map(Duration::from_secs),
        }
    }

    fn status(status: u16) -> OciError {
        OciError::Status {
            host: String::new(),
            status,
            message: String::new(),
            after: None,
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let policy = RetryPolicy::default();
        for failed in 1..5 {
            let pause = policy.next(failed, &status(503)).unwrap();
            let whole = policy.pause * (1 << (failed - 1));
            assert!(pause >= whole / 2 && pause <= whole, "{failed}: {pause:?}");
        }
        assert_eq!(policy.next(5, &status(503)), None);
        let patient = RetryPolicy {
            attempts: 100,
            ..policy
        };
        assert!(patient.next(60, &status(500)).unwrap() <= RetryPolicy::MAX_PAUSE);
        for again in [408, 500, 502, 503, 504] {
            assert!(policy.next(1, &status(again)).is_some(), "{again}");
        }
        for never in [200, 400, 404, 416] {
            assert!(policy.next(1, &status(never)).is_none(), "{never}");
        }
    }

    #[test]
    fn a_registrys_own_pause_counts_up_to_a_minute() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.next(1, &limited(Some(3))), Some(Duration::from_secs(3)));
        assert_eq!(policy.next(1, &limited(Some(60))), Some(Duration::from_secs(60)));
        assert_eq!(policy.next(1, &limited(Some(61))), None);
        assert_eq!(policy.next(1, &limited(Some(u64::MAX))), None);
        assert!(policy.next(1, &limited(None)).is_some());
        assert_eq!(
            RetryPolicy::immediate().next(1, &limited(Some(3))),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::try_from(text).unwrap());
            retry_after(&headers)
        };
        assert_eq!(parse("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let far = parse("Wed, 21 Oct 2999 07:28:00 GMT").unwrap();
        assert!(far > Duration::from_secs(1 << 30));
        for bad in ["", "-1", "soon", "99999999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
