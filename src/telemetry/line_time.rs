//! The time at the beginning of a line.

use crate::clock::Clock;
use std::fmt;
use std::time::UNIX_EPOCH;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// The time of a line, in UTC and to the microsecond (RFC 3339).
#[derive(Debug)]
pub(super) struct LineTime(pub(super) Clock);

impl FormatTime for LineTime {
    fn format_time(&self, line: &mut Writer<'_>) -> fmt::Result {
        // A clock that was never set must not end the process.
        let now = self.0.wall().max(UNIX_EPOCH);
        write!(line, "{}", humantime::format_rfc3339_micros(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_time_is_written_in_utc_with_microseconds() {
        for (wall, expected) in [
            (
                UNIX_EPOCH + Duration::from_micros(1_796_000_000_000_042),
                "2026-11-30T00:53:20.000042Z",
            ),
            (
                UNIX_EPOCH - Duration::from_secs(1),
                "1970-01-01T00:00:00.000000Z",
            ),
        ] {
            let at = |wall: SystemTime| LineTime(Clock::simulated(wall, Duration::ZERO));
            let mut line = String::new();
            at(wall).format_time(&mut Writer::new(&mut line)).unwrap();
            assert_eq!(line[..19], expected[..19], "{line}");
            assert_eq!(line.len(), expected.len());
        }
    }
}
