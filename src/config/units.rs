//! Pure. Durations, sizes and rates as text: `250ms`, `64 MiB`, `60 per 1m`.
//!
//! Every quantity carries its unit; a bare number is rejected, because the reader of a
//! configuration cannot know whether 60 means seconds or milliseconds. What is rendered parses to
//! the same value.

use crate::route::Rate;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// The longest duration that can be written, so that adding one to an instant cannot overflow.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

impl Size {
    /// Returns `count` KiB of 1,024 bytes.
    pub const fn kib(count: usize) -> Self {
        Self(count * 1024)
    }

    /// Returns `count` MiB of 1,048,576 bytes.
    pub const fn mib(count: usize) -> Self {
        Self(count * 1024 * 1024)
    }
}

/// The form of a duration, for messages.
pub const DURATION: &str = "a duration with its unit, such as `250ms`, `30s`, `5m`, `1h` or `1d`";
/// The form of a size, for messages.
pub const SIZE: &str = "a size with its unit, such as `512 B`, `32 KiB`, `64 MiB` or `1 GiB`";
/// The form of a rate, for messages.
pub const RATE: &str = "a rate, such as `60 per 1m`, `120 per 1d` or `100/s`";

const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const SIZES: [(&str, usize); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads a duration: a whole number and `ms`, `s`, `m`, `h` or `d`; at most [`LONGEST`].
pub fn duration(text: &str) -> Option<Duration> {
    let (count, unit) = quantity(text)?;
    let (_, millis) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
    let duration = Duration::from_millis(count.checked_mul(*millis)?);
    (duration <= LONGEST).then_some(duration)
}

/// Reads a size: a whole number and `B`, `KiB`, `MiB` or `GiB`, with or without a space.
pub fn size(text: &str) -> Option<Size> {
    let (count, unit) = quantity(text)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
    usize::try_from(count).ok()?.checked_mul(*bytes).map(Size)
}

/// Reads a rate: a number above 0, then `per` and a duration above 0, or `/` and a unit of time.
pub fn rate(text: &str) -> Option<Rate> {
    let (limit, window) = match text.split_once('/') {
        Some((limit, unit)) => {
            let (_, millis) = DURATIONS.iter().find(|(name, _)| *name == unit.trim())?;
            (limit, Duration::from_millis(*millis))
        }
        None => {
            let (limit, window) = text.split_once(" per ")?;
            (limit, duration(window)?)
        }
    };
    let limit = digits(limit.trim())?.parse().ok()?;
    (limit > 0 && !window.is_zero()).then_some(Rate { limit, window })
}

/// Returns advice about a `text` that is no quantity, where the expected form alone is of little
/// help.
pub fn advice(text: &str) -> &'static str {
    let text = text.trim();
    if digits(text).is_some() {
        return "; a bare number does not say its unit";
    }
    match text.trim_start_matches(|c: char| c.is_ascii_digit()).trim() {
        "kB" | "KB" | "MB" | "GB" | "k" | "K" | "M" | "G" => {
            "; powers of 1024 are written KiB, MiB, GiB"
        }
        "min" | "minute" | "minutes" => "; minutes are written `m`",
        "sec" | "second" | "seconds" => "; seconds are written `s`",
        _ => "",
    }
}

/// Returns the shortest form that [`duration`] reads; fractions of a millisecond are dropped.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let unit = DURATIONS
        .iter()
        .find(|(_, size)| millis.is_multiple_of(u128::from(*size)));
    match unit {
        Some((name, size)) if millis > 0 => format!("{}{name}", millis / u128::from(*size)),
        _ => "0s".to_owned(),
    }
}

/// Returns the form that [`rate`] reads.
pub fn show_rate(rate: Rate) -> String {
    format!("{} per {}", rate.limit, show_duration(rate.window))
}

impl fmt::Display for Size {
    /// Writes the shortest form that [`size`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES
            .iter()
            .find(|(_, size)| self.0 > 0 && self.0.is_multiple_of(*size));
        match unit {
            Some((name, size)) => write!(f, "{} {name}", self.0 / size),
            None => f.write_str("0 B"),
        }
    }
}

/// Returns a value as a message quotes it: on one line, shortened to 60 characters.
pub fn quoted(text: &str) -> String {
    const LENGTH: usize = 60;
    let mut quoted = String::from("\"");
    for (count, c) in text.chars().enumerate() {
        if count == LENGTH {
            return quoted + "…\"";
        }
        if c.is_control() {
            let _ = write!(quoted, "{}", c.escape_unicode());
        } else {
            quoted.push(c);
        }
    }
    quoted + "\""
}

fn quantity(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(end);
    Some((digits(count)?.parse().ok()?, unit.trim_start()))
}

fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests;
