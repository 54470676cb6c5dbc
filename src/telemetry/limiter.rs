//! Pure. Which warnings and errors are written while one trouble causes many of them.
//!
//! Lines are told apart by the place in the source that logs them, so there are as many kinds of
//! lines as places. The first line of a kind is written at once and opens a window of [`WINDOW`].
//! Further lines in the window are counted. The first line after it is written with their number,
//! and opens another window. If no line follows, [`LineLimiter::overdue`] hands the number out.
//!
//! Invariants:
//! - Each line is either written or part of a number that is handed out later, exactly once.
//! - A kind of line is written at most once in a window, whatever the load.
//!
//! Nothing is formatted or written here.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use tracing::Level;

/// The time in which one line of a kind is written.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// How long after its window a number waits for a line to be written with. In a lasting trouble one
/// follows, and says more than the number alone.
const GRACE: Duration = Duration::from_secs(1);

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineDecision {
    /// It is written, with the number of lines of its kind that were not.
    Write { suppressed: u64 },
    /// It is counted.
    Suppress,
}

/// Lines that were counted and not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SuppressedLines {
    pub(super) level: Level,
    /// The message of the line that was written last, without its fields.
    pub(super) message: String,
    pub(super) count: u64,
}

/// The windows of the kinds of lines, by the place in the source.
#[derive(Debug, Default)]
pub(super) struct LineLimiter {
    windows: HashMap<&'static str, Window>,
}

#[derive(Debug)]
struct Window {
    opened: Instant,
    lines: SuppressedLines,
}

impl LineLimiter {
    /// Decides about a line. `place` is the place in the source. `message` is evaluated only if the
    /// line is written.
    pub(super) fn decide(
        &mut self,
        place: &'static str,
        level: Level,
        message: impl FnOnce() -> String,
        now: Instant,
    ) -> LineDecision {
        let before = self.windows.get_mut(place);
        if let Some(window) = before
            && now < window.opened + WINDOW
        {
            window.lines.count += 1;
            return LineDecision::Suppress;
        }
        let window = Window {
            opened: now,
            lines: SuppressedLines {
                level,
                message: message(),
                count: 0,
            },
        };
        let before = self.windows.insert(place, window);
        LineDecision::Write {
            suppressed: before.map_or(0, |before| before.lines.count),
        }
    }

    /// Removes the windows after which no line has followed, and returns what was not written in
    /// them, the oldest first. Call this on a timer.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<SuppressedLines> {
        self.remove(|window| now >= window.opened + WINDOW + GRACE)
    }

    /// Removes all windows, and returns what was not written in them. Call this at the end.
    pub(super) fn finish(&mut self) -> Vec<SuppressedLines> {
        self.remove(|_| true)
    }

    fn remove(&mut self, is_over: impl Fn(&Window) -> bool) -> Vec<SuppressedLines> {
        let over = self.windows.extract_if(|_, window| is_over(window));
        let mut over: Vec<Window> = over.map(|(_, window)| window).collect();
        over.sort_by_key(|window| window.opened);
        let lines = over.into_iter().map(|window| window.lines);
        lines.filter(|lines| lines.count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const A: &str = "event a.rs:1";
    const B: &str = "event b.rs:2";

    /// A step of a table: the time in milliseconds, and what happens.
    enum Step {
        /// A line from this place is written with this number, or not at all.
        Line(&'static str, Option<u64>),
        /// The timer finds these numbers.
        Timer(&'static [u64]),
    }

    fn run(steps: &[(u64, Step)]) -> LineLimiter {
        let start = Clock::system().now();
        let mut limiter = LineLimiter::default();
        for (ms, step) in steps {
            let now = start + Duration::from_millis(*ms);
            match step {
                Step::Line(place, written) => {
                    let message = || (*place).to_owned();
                    let decision = limiter.decide(place, Level::WARN, message, now);
                    let expected = match written {
                        Some(suppressed) => LineDecision::Write {
                            suppressed: *suppressed,
                        },
                        None => LineDecision::Suppress,
                    };
                    assert_eq!(decision, expected, "{place} at {ms} ms");
                }
                Step::Timer(expected) => {
                    let found = limiter.overdue(now);
                    let counts: Vec<u64> = found.iter().map(|lines| lines.count).collect();
                    assert_eq!(counts, *expected, "at {ms} ms");
                }
            }
        }
        limiter
    }

    #[test]
    fn one_line_of_a_kind_in_ten_seconds_and_the_number_of_the_others() {
        use Step::{Line, Timer};
        run(&[
            (0, Line(A, Some(0))),
            (0, Line(A, None)),
            // Another kind has a window of its own.
            (1, Line(B, Some(0))),
            (9_999, Line(A, None)),
            (10_000, Line(A, Some(2))),
            // A window begins with the line that is written, and starts at nothing.
            (19_999, Line(A, None)),
            (20_000, Line(A, Some(1))),
            (30_000, Line(A, Some(0))),
            (90_000, Line(A, Some(0))),
            (90_001, Timer(&[])),
        ]);
    }

    #[test]
    fn what_no_line_brings_along_the_timer_does_once() {
        use Step::{Line, Timer};
        let mut limiter = run(&[
            (0, Line(A, Some(0))),
            (1, Line(A, None)),
            (2, Line(B, Some(0))),
            (3, Line(B, None)),
            (4, Line(B, None)),
            // The next line may still come.
            (10_999, Timer(&[])),
            (11_000, Timer(&[1])),
            (12_000, Timer(&[2])),
            (13_000, Timer(&[])),
            // The number was handed out.
            (13_000, Line(A, Some(0))),
            (13_001, Line(A, None)),
        ]);
        let rest = SuppressedLines {
            level: Level::WARN,
            message: A.to_owned(),
            count: 1,
        };
        assert_eq!(limiter.finish(), [rest]);
        assert_eq!(limiter.finish(), []);
    }

    #[test]
    fn a_kind_that_is_over_takes_no_memory() {
        use Step::{Line, Timer};
        let limiter = run(&[
            (0, Line(A, Some(0))),
            (5_000, Line(B, Some(0))),
            (11_000, Timer(&[])),
        ]);
        assert_eq!(limiter.windows.len(), 1);
    }

    proptest::proptest! {
        /// However lines come, each is written or counted once, and at most one is written in a
        /// window.
        #[test]
        fn no_line_is_lost_and_none_counted_twice(
            steps in proptest::collection::vec((0_u64..15_000, 0_u8..4), 0..200),
        ) {
            let mut now = Clock::system().now();
            let mut limiter = LineLimiter::default();
            let (mut logged, mut accounted) = (0, 0);
            let mut last: HashMap<&str, Instant> = HashMap::new();
            for (ms, kind) in steps {
                now += Duration::from_millis(ms);
                if kind == 0 {
                    accounted += limiter.overdue(now).iter().map(|lines| lines.count).sum::<u64>();
                    continue;
                }
                let place = if kind == 1 { A } else { B };
                logged += 1;
                let decision = limiter.decide(place, Level::ERROR, String::new, now);
                if let LineDecision::Write { suppressed } = decision {
                    accounted += 1 + suppressed;
                    let before = last.insert(place, now);
                    proptest::prop_assert!(before.is_none_or(|before| now >= before + WINDOW));
                }
            }
            accounted += limiter.finish().iter().map(|lines| lines.count).sum::<u64>();
            proptest::prop_assert_eq!(logged, accounted);
        }
    }
}
