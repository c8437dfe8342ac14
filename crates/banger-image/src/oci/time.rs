//! Points in time as the network writes them, in seconds since 1970.

/// A date of HTTP in the one form that is still made (RFC 9110, 5.6.7):
/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split(' ').collect();
    let [_, day, month, year, clock, "GMT"] = words[..] else {
        return None;
    };
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    seconds(
        number(year, 4)?,
        i64::try_from(month).ok()?,
        number(day, 2)?,
        clock,
    )
}

/// A point in time of RFC 3339, its fraction left away: `2024-05-22T18:18:20.5+02:00`.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, rest) = text.split_at_checked(10)?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        ("+", clock) => minutes(clock)?,
        ("-", clock) => -minutes(clock)?,
        _ => return None,
    };
    Some(seconds(number(year, 4)?, number(month, 2)?, number(day, 2)?, clock)? - offset * 60)
}

fn minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    Some(number(hours, 2)? * 60 + number(minutes, 2)?)
}

fn seconds(year: i64, month: i64, day: i64, clock: &str) -> Option<i64> {
    let mut clock = clock.split(':').map(|text| number(text, 2));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let good = clock.next().is_none()
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    good.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970 in the Gregorian calendar. Years begin in March here, so that the leap day
/// is their last; 400 of them have 146,097 days.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let in_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + day_of_year - 719_468
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let good = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    good.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_what_date_says() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2024-05-22T18:18:20.123456789Z", 1_716_401_900),
            ("2024-05-22T20:18:20+02:00", 1_716_401_900),
            ("2024-05-22T11:18:20-07:00", 1_716_401_900),
            ("0001-01-01T00:00:00Z", -62_135_596_800),
        ] {
            assert_eq!(rfc3339(text), Some(seconds), "{text}");
        }
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for bad in [
            "",
            "2024",
            "2024-05-22",
            "2024-05-22T18:18:20",
            "2024-13-22T18:18:20Z",
            "2024-05-22T24:18:20Z",
            "2024-05-22T18:18:20+2:00",
            "2024-05-22T18:18:20.Zx",
            "+024-05-22T18:18:20Z",
            "2024-05-22T18:18:é0Z",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
        for bad in [
            "",
            "Sun, 06 Nov 1994",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "a b c d e GMT",
        ] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }
}
