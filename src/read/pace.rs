//! Pure. The departure of a fetch whose response cannot be stored yet, because the API may still
//! lag behind a write.
//!
//! During a settle time each key is fetched again every round trip. With plenty of slots that is
//! fastest for the readers. If slots run short, a fetch waits for the end of the settle time. It
//! then departs after its readers arrived, so its response is as new as one of their own, and it
//! can be stored. One fetch per key suffices then. A reader that cannot wait that long does not
//! have to.

use std::time::{Duration, Instant};

/// The facts on which the departure of a fetch depends.
#[derive(Clone, Copy, Debug)]
pub struct DepartureFacts {
    /// The free slots of its budget that no request waits for.
    pub free: u32,
    /// The slots of its budget.
    pub limit: u32,
    /// The instant from which its response can be stored.
    pub settled: Instant,
    /// The longest wait for that. After an unknown outcome the settle time is much longer.
    pub longest: Duration,
    /// The present instant.
    pub now: Instant,
    /// The instant until which its reader can wait.
    pub leave_by: Instant,
}

/// Returns when the fetch departs, or `None` for as soon as there is a slot.
pub fn leaves_at(facts: &DepartureFacts) -> Option<Instant> {
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
        // Free slots, all slots, the end of the settle time, the end of the patience, and the
        // departure. Times are in tenths of a second; 10 is the present.
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
            let facts = DepartureFacts {
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
