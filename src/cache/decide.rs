//! Pure. The decision about a reader without a valid stored response: join a fetch, lead one, or
//! fetch alone.
//!
//! Promises that a reader joins a fetch only if the response is as new as one of its own would be.
//! There are two such fetches:
//!
//! - One that *has not been sent* yet. It is sent after the reader came, so its response is as new
//!   as the reader's own, whatever was written before, and even during a settle time.
//! - One that *has been sent* and whose response would be valid if it were stored already. This is
//!   the second check of the fence. Checking stored responses alone would let a reader who comes
//!   after a write share a fetch that began before it.
//!
//! Readers do not join a refresh that is still queued: its priority is lower than theirs, and they
//! would have to wait with it. A reader leads a fetch of its own instead, and the refresh is not
//! sent any more.
//!
//! As long as readers may wait, at most one fetch of a key has been sent and one is to follow. A
//! reader that can join neither leads the next one, which is not sent before the one in flight has
//! ended. A crowd therefore costs one fetch per round trip, however often its data is written. A
//! reader that may not wait leads a fetch immediately.

use super::fence::{Dependency, Fence, Stamp};
use super::reason::Miss;
use std::time::Instant;

/// The decision about a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupDecision {
    /// Joins the present fetch.
    Follow,
    /// Fetches immediately, for itself and for readers who come meanwhile. Replaces the fetch in
    /// flight as the one to join.
    Lead(Stamp),
    /// Fetches in the same way, as soon as the fetch in flight has ended.
    LeadNext(Stamp),
    /// Fetches for itself alone. Nothing is stored or shared.
    Alone(Miss),
}

/// The fetch of a key that others may join at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The stamp. It is replaced when the fetch is sent.
    pub stamp: Stamp,
    /// Whether the fetch has been sent to the API.
    pub has_left: bool,
    /// Whether the fetch began without a reader. See [`Purpose::Renew`](super::Purpose::Renew).
    pub is_renewal: bool,
}

/// The reader's rules for sharing fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Whether responses of this kind may be shared, as far as is known.
    pub is_shared: bool,
    /// Whether a response that was requested before the reader came is acceptable.
    pub joins_in_flight: bool,
    /// Whether the reader waits for the end of the fetch in flight before it begins the next.
    pub waits: bool,
    /// Whether the reader needs a response even if that cannot be stored.
    pub shows: bool,
}

/// The input of the decision.
#[derive(Debug)]
pub struct LookupInput<'a> {
    /// The fence with its marks.
    pub fence: &'a Fence,
    /// The dependencies of the response.
    pub depends: &'a [Dependency],
    /// The fetch of this key that others may join at present.
    pub flight: Option<InFlight>,
    /// The number of further fetches that may begin.
    pub free: usize,
    /// The reader's rules for sharing fetches.
    pub sharing: Sharing,
}

/// Decides about a reader for whom the store has no response.
pub fn decision(input: &LookupInput<'_>, now: Instant) -> LookupDecision {
    let sharing = input.sharing;
    let is_settling = input.fence.settling(input.depends, now);
    let flight = input.flight.filter(|_| sharing.is_shared);
    let flight = flight.filter(|flight| flight.has_left || !flight.is_renewal || !sharing.shows);
    let has_left = match flight {
        Some(flight) if !flight.has_left => return LookupDecision::Follow,
        Some(flight) => {
            // During a settle time no stamp is valid, so no reader joins a fetch that was sent.
            let is_believed = input.fence.believes(&flight.stamp, input.depends);
            if is_believed && sharing.joins_in_flight {
                return LookupDecision::Follow;
            }
            true
        }
        None => false,
    };
    let leads_while_settling = sharing.shows && sharing.is_shared && (sharing.waits || !has_left);
    if is_settling && !leads_while_settling {
        LookupDecision::Alone(Miss::Settling)
    } else if input.free == 0 {
        LookupDecision::Alone(Miss::TooManyFetches)
    } else if has_left && sharing.waits {
        LookupDecision::LeadNext(input.fence.stamp(now))
    } else {
        LookupDecision::Lead(input.fence.stamp(now))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fence::Tag;
    use super::*;
    use crate::clock::Clock;
    use std::time::Duration;

    const READER: Sharing = Sharing {
        is_shared: true,
        joins_in_flight: true,
        waits: true,
        shows: true,
    };
    const RELOAD: Sharing = Sharing {
        joins_in_flight: false,
        ..READER
    };
    const IMPATIENT: Sharing = Sharing {
        waits: false,
        ..READER
    };
    const UNSHARED: Sharing = Sharing {
        is_shared: false,
        ..READER
    };
    const RENEWAL: Sharing = Sharing {
        waits: false,
        shows: false,
        ..READER
    };

    #[test]
    #[expect(clippy::too_many_lines, reason = "two tables of cases")]
    fn readers_join_lead_or_fetch_alone() {
        let now = Clock::system().now();
        let end = now + Duration::from_secs(1);
        let users = [Dependency::Tag(Tag::new("users"))];
        let mut fence = Fence::new(8);
        let before = fence.stamp(now);
        fence.raise(users.clone(), end);
        let during = fence.stamp(now);
        let after = fence.stamp(end);
        let left = |stamp| {
            Some(InFlight {
                stamp,
                has_left: true,
                is_renewal: false,
            })
        };
        let to_come = |stamp| {
            Some(InFlight {
                stamp,
                has_left: false,
                is_renewal: false,
            })
        };
        let renewal = |flight: Option<InFlight>| {
            flight.map(|flight| InFlight {
                is_renewal: true,
                ..flight
            })
        };
        let (lead, next) = (LookupDecision::Lead(after), LookupDecision::LeadNext(after));
        let full = LookupDecision::Alone(Miss::TooManyFetches);
        let follow = LookupDecision::Follow;
        // Everyone comes at the end of settling.
        let table = [
            (None, 1, READER, lead),
            (None, 1, RELOAD, lead),
            (None, 1, RENEWAL, lead),
            (None, 0, READER, full),
            (left(before), 1, READER, next),
            (left(during), 1, READER, next),
            (left(after), 1, READER, follow),
            (left(after), 0, READER, follow),
            (left(before), 0, READER, full),
            (left(before), 1, IMPATIENT, lead),
            (left(after), 1, IMPATIENT, follow),
            (left(after), 1, RELOAD, next),
            (left(after), 0, RELOAD, full),
            (left(after), 1, RENEWAL, follow),
            (left(before), 1, RENEWAL, lead),
            (left(after), 1, UNSHARED, lead),
            // What leaves after they came is for all of them, whatever its stamp is so far.
            (to_come(before), 0, READER, follow),
            (to_come(during), 1, RELOAD, follow),
            (to_come(before), 1, IMPATIENT, follow),
            (to_come(before), 1, RENEWAL, follow),
            (to_come(after), 1, UNSHARED, lead),
            // Nobody waits behind everybody.
            (renewal(to_come(after)), 1, READER, lead),
            (renewal(to_come(before)), 1, IMPATIENT, lead),
            (renewal(to_come(after)), 1, RELOAD, lead),
            (renewal(to_come(after)), 0, READER, full),
            (renewal(to_come(after)), 1, RENEWAL, follow),
            (renewal(left(after)), 1, READER, follow),
            (renewal(left(before)), 1, READER, next),
        ];
        let mut input = LookupInput {
            fence: &fence,
            depends: &users,
            flight: None,
            free: 1,
            sharing: READER,
        };
        for (flight, free, sharing, expected) in table {
            (input.flight, input.free, input.sharing) = (flight, free, sharing);
            assert_eq!(decision(&input, end), expected, "{input:?}");
        }
        // And here while it settles.
        let (lead, next) = (
            LookupDecision::Lead(during),
            LookupDecision::LeadNext(during),
        );
        let alone = LookupDecision::Alone(Miss::Settling);
        let table = [
            (None, 1, READER, lead),
            (None, 1, RELOAD, lead),
            (None, 1, IMPATIENT, lead),
            (None, 0, READER, full),
            (None, 1, RENEWAL, alone),
            (None, 1, UNSHARED, alone),
            (left(before), 1, READER, next),
            (left(during), 1, READER, next),
            (left(during), 1, RELOAD, next),
            (left(during), 0, READER, full),
            (left(during), 1, IMPATIENT, alone),
            (left(during), 1, RENEWAL, alone),
            (left(during), 1, UNSHARED, alone),
            (to_come(before), 0, READER, follow),
            (to_come(during), 1, IMPATIENT, follow),
            (to_come(during), 1, UNSHARED, alone),
            (renewal(to_come(before)), 1, READER, lead),
            (renewal(to_come(before)), 1, RENEWAL, follow),
        ];
        for (flight, free, sharing, expected) in table {
            (input.flight, input.free, input.sharing) = (flight, free, sharing);
            assert_eq!(decision(&input, now), expected, "{input:?}");
        }
        // What was not written neither settles nor parts anyone.
        input.depends = &[];
        for flight in [left(before), left(during), to_come(before)] {
            (input.flight, input.free, input.sharing) = (flight, 0, READER);
            assert_eq!(decision(&input, now), follow, "{input:?}");
        }
    }
}
