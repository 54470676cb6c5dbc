//! Pure. Dates in header fields: all three formats (RFC 9110, section 5.6.7), in any letter case
//! (RFC 9111, section 4.2).
//!
//! Promises the RFC's reading of years with two digits. It depends on the present: the latest
//! matching year with that weekday that is at most 50 years ahead.

use http::header::HeaderValue;
use std::time::{Duration, SystemTime};

const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// The instant that a field denotes. `None` if the field is not a date.
pub fn parse(value: &HeaderValue, now: SystemTime) -> Option<SystemTime> {
    let text = value.to_str().ok()?.trim();
    // Nearly every date has the preferred format and the usual letter case.
    if text.len() == IMF_FIXDATE
        && let Ok(date) = httpdate::parse_http_date(text)
    {
        return Some(date);
    }
    let text = &in_usual_case(text)?;
    match text.split_once(", ") {
        // Only the obsolete format of RFC 850 contains hyphens.
        Some((weekday, rest)) if rest.contains('-') => short_year(weekday, rest, now),
        _ => httpdate::parse_http_date(text).ok(),
    }
}

/// The length of a date in the preferred format: `Sun, 06 Nov 1994 08:49:37 GMT`.
const IMF_FIXDATE: usize = 29;

/// The length of the longest date: `Wednesday, 06-Nov-94 08:49:37 GMT`.
const LONGEST: usize = 33;

/// Rewrites a date in the letter case that the parser expects: capital initials, and `GMT` in
/// capitals.
fn in_usual_case(text: &str) -> Option<String> {
    if text.len() > LONGEST {
        return None;
    }
    let (text, zone) = match text
        .len()
        .checked_sub(3)
        .and_then(|at| text.split_at_checked(at))
    {
        Some((before, zone)) if zone.eq_ignore_ascii_case("GMT") => (before, "GMT"),
        _ => (text, ""),
    };
    let mut before = ' ';
    let mut usual: String = text
        .chars()
        .map(|letter| {
            let inside = std::mem::replace(&mut before, letter).is_ascii_alphabetic();
            if inside {
                letter.to_ascii_lowercase()
            } else {
                letter.to_ascii_uppercase()
            }
        })
        .collect();
    usual.push_str(zone);
    Some(usual)
}

/// Parses a date of RFC 850, trying the next, the present and the last century in this order.
fn short_year(weekday: &str, rest: &str, now: SystemTime) -> Option<SystemTime> {
    let weekday = WEEKDAYS.iter().find(|name| **name == weekday)?.get(..3)?;
    let (date, time) = rest.split_once(' ')?;
    let mut parts = date.split('-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let year: u64 = (year.len() == 2).then(|| year.parse().ok())??;
    let century = year_of(now) / 100;
    let at = |century: u64| {
        let full = century * 100 + year;
        httpdate::parse_http_date(&format!("{weekday}, {day} {month} {full} {time}")).ok()
    };
    let latest = now + Duration::from_secs(50 * 365 * 86_400 + 12 * 86_400);
    [century + 1, century, century.checked_sub(1)?]
        .into_iter()
        .filter_map(at)
        .find(|at| *at <= latest)
}

fn year_of(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    1970 + since.unwrap_or_default().as_secs() / 31_556_952
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24.
    const NOW: u64 = 1_795_478_400;

    fn parsed(text: &str) -> Option<u64> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let date = parse(&HeaderValue::from_str(text).unwrap(), now)?;
        Some(
            date.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs(),
        )
    }

    #[test]
    fn all_three_formats_are_one_instant() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            for text in [text, &text.to_lowercase(), &text.to_uppercase()] {
                assert_eq!(parsed(text), Some(784_111_777), "{text}");
            }
        }
    }

    #[test]
    fn two_digits_mean_the_latest_year_that_is_at_most_fifty_ahead() {
        let year = |text: &str| parsed(text).map(|at| 1970 + at / 31_556_952);
        for (date, expected) in [
            ("Monday, 06-Jul-26", 2026),
            ("Tuesday, 06-Jul-27", 2027),
            ("Saturday, 06-Jul-75", 2075),
            ("Sunday, 06-Jul-75", 1975),
            ("Thursday, 06-Jul-78", 1978),
            ("Tuesday, 06-Jul-99", 1999),
        ] {
            let text = format!("{date} 08:49:37 GMT");
            assert_eq!(year(&text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "soon",
            "1795478400",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sunday, 6-11-94",
            "a, -",
            ", -",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Monday, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-94 25:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 gmtgmt",
            "gmt",
            "Sun, 06 Nov 1994 08:49:37 GMT and a good deal more",
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_date_is_too_strange(text in "[A-Za-z]{0,9},? ?[0-9]{0,3}[- ][A-Za-z]{0,4}[- ][0-9]{0,5} [0-9:]{0,9} ?[A-Z]{0,4}") {
            let _ = parsed(&text);
        }
    }
}
