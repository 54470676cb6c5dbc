//! Pure. The instant at which a key expires, as it is written.

use std::time::{Duration, SystemTime};
use toml::value::{Datetime, Offset};

/// The form of an expiry, for messages.
pub const EXPIRES: &str = "a date or a time with its offset, without quotes, such as `2027-03-31` or \
                       `2027-03-31T12:00:00Z`";
const DAY: Duration = Duration::from_secs(86_400);

/// Returns the instant of an expiry as the file of clients has it; `None` if it has another form.
pub fn expiry(text: &str) -> Option<SystemTime> {
    instant(&text.parse().ok()?)
}

/// Returns the instant from which something that expires then has expired. A date means the whole
/// day in UTC, so that is the end of it. `None` for a time without an offset, or beyond 1970 to
/// 9999.
pub fn instant(written: &Datetime) -> Option<SystemTime> {
    let date = written.date?;
    let midnight = humantime::parse_rfc3339(&format!("{date}T00:00:00Z")).ok()?;
    let (time, offset) = match (written.time, written.offset) {
        (None, _) => return Some(midnight + DAY),
        (Some(time), Some(offset)) => (time, offset),
        (Some(_), None) => return None,
    };
    let seconds = u64::from(time.hour) * 3600
        + u64::from(time.minute) * 60
        + u64::from(time.second.unwrap_or(0));
    let at = midnight + Duration::new(seconds, time.nanosecond.unwrap_or(0));
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => minutes,
    };
    let shift = Duration::from_secs(u64::from(minutes.unsigned_abs()) * 60);
    match minutes {
        ..=0 => at.checked_add(shift),
        _ => at.checked_sub(shift),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_instants() {
        for (written, expected) in [
            ("2027-03-31", Some("2027-04-01T00:00:00Z")),
            ("2027-12-31", Some("2028-01-01T00:00:00Z")),
            ("2027-03-31T12:00:00Z", Some("2027-03-31T12:00:00Z")),
            ("2027-03-31T12:00:00+02:00", Some("2027-03-31T10:00:00Z")),
            ("2027-03-31T23:30:00-01:00", Some("2027-04-01T00:30:00Z")),
            ("2027-03-31T12:00:00.5Z", Some("2027-03-31T12:00:00.5Z")),
            ("2027-03-31T12:00:00", None),
            ("12:00:00", None),
            ("1969-12-31", None),
        ] {
            let parsed = instant(&written.parse().unwrap());
            let expected = expected.map(|text| humantime::parse_rfc3339(text).unwrap());
            assert_eq!(parsed, expected, "{written}");
        }
    }
}
