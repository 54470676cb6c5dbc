//! Pure. When a fetch leaves whose answer cannot be stored yet, because the API may still lag behind a
//! write.
//!
//! While data settles, each key of it is fetched again every round trip. Where slots are plentiful that
//! is the quickest for the readers. Where they run short, a fetch waits for the end of the settling: it
//! leaves after its readers came, so its answer is as new as one of their own, and it is stored. Then
//! one fetch for each key is enough. A reader who cannot wait that long is not made to.

use std::time::{Duration, Instant};

/// What the departure of a fetch depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Slots of its budget that are free and that nobody waits for.
    pub free: u32,
    /// Slots of its budget.
    pub limit: u32,
    /// When its answer can be stored.
    pub settled: Instant,
    /// The longest that it waits for that: after an unknown outcome data settles for much longer.
    pub longest: Duration,
    /// The present.
    pub now: Instant,
    /// Its reader cannot wait beyond this.
    pub leave_by: Instant,
}

/// When the fetch leaves; `None` if that is as soon as there is a slot.
pub fn leaves_at(facts: &Facts) -> Option<Instant> {
    let is_short = facts.free < facts.limit.div_ceil(2);
    let at = facts.settled.min(facts.now + facts.longest);
    (is_short && facts.now < at && at <= facts.leave_by).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_fetch_waits_where_slots_are_short_and_its_reader_can() {
        let now = Clock::system().now();
        let at = |tenths: u64| now + Duration::from_millis(100 * tenths);
        // Free slots of how many, the end of the settling and of the patience, in tenths of a second
        // from a second ago; when it leaves.
        let (past, soon, late, patient) = (5, 22, 600, 310);
        for (free, limit, settled, leave_by, leaves) in [
            (200, 200, soon, patient, None),
            (100, 200, soon, patient, None),
            (99, 200, soon, patient, Some(22)),
            (0, 200, soon, patient, Some(22)),
            (3, 5, soon, patient, None),
            (2, 5, soon, patient, Some(22)),
            (1, 1, soon, patient, None),
            (0, 1, soon, patient, Some(22)),
            (0, 200, past, patient, None),
            (0, 200, 10, patient, None),
            (0, 200, soon, 22, Some(22)),
            (0, 200, soon, 21, None),
            (0, 200, soon, 10, None),
            (0, 200, late, patient, Some(30)),
            (0, 200, late, 29, None),
            (200, 200, late, patient, None),
        ] {
            let facts = Facts {
                free,
                limit,
                settled: at(settled),
                longest: Duration::from_secs(2),
                now: at(10),
                leave_by: at(leave_by),
            };
            assert_eq!(leaves_at(&facts), leaves.map(at), "{facts:?}");
        }
    }
}
