//! Times and sizes as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long ago a time (microseconds since 1970) was: `5 s`, `3 min`, `2 h`, `4 d`; empty for 0.
pub(crate) fn age(us: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_micros());
    if us == 0 {
        return String::new();
    }
    let passed = u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(us) / 1_000_000;
    span(passed)
}

/// A time (microseconds since 1970) as `2026-01-31 12:00:00 UTC`; empty for 0.
pub(crate) fn date(us: u64) -> String {
    if us == 0 {
        return String::new();
    }
    let seconds = us / 1_000_000;
    let (year, month, day) = civil(seconds / DAY);
    let rest = seconds % DAY;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        rest / HOUR,
        rest % HOUR / MINUTE,
        rest % MINUTE
    )
}

/// A number of bytes with one decimal: `3.4 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => format!("{} h", seconds / HOUR),
        _ => format!("{} d", seconds / DAY),
    }
}

/// Year, month and day of a day since 1970-01-01, by the days in eras of 400 years, each
/// beginning on the first of March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendar_s() {
        for (seconds, text) in [
            (951_782_400_u64, "2000-02-29 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (1_795_514_523, "2026-11-24 10:02:03 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(seconds * 1_000_000), text);
        }
        assert_eq!((date(0), age(0)), (String::new(), String::new()));
    }

    #[test]
    fn spans_and_sizes_are_short() {
        assert_eq!(
            [span(59), span(60), span(7_199), span(90_000)],
            ["59 s", "1 min", "1 h", "1 d"]
        );
        assert_eq!(
            [bytes(7), bytes(1536), bytes(8 << 30)],
            ["7 B", "1.5 KiB", "8.0 GiB"]
        );
        // A clock that was set back must not give an age of centuries.
        assert_eq!(age(u64::MAX), "0 s");
    }
}
