//! Pure. Where a reader without a stored answer is seated.
//!
//! Promises that a reader joins a fetch only if the answer is as new as one of its own would be.
//! There are two such fetches. One that *has not left* yet leaves after the reader came, whatever
//! was written before, and also while the API may still lag behind a write. One that *has left* is
//! joined only if its answer would be believed had it been stored already: this is the second door
//! of the fence, since judging stored answers alone would let a reader who comes after a write
//! share a fetch that began before it.
//!
//! A renewal that has not left is not joined by readers: it stands behind everybody in its line,
//! and they would wait there too. A reader leads a fetch of its own instead, and the renewal does
//! not leave any more.
//!
//! Of one key at most one fetch has left and one is to come: whoever can join neither leads the
//! next one, which does not leave before the one under way has ended. So a crowd costs one fetch
//! for each round trip, however often what it reads is written.

use super::fence::{Dependency, Fence, Stamp};
use super::reason::Miss;
use std::time::Instant;

/// A reader's seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// Joins the fetch at hand.
    Follow,
    /// Fetches at once, for itself and for those who come while it does; replaces any fetch under
    /// way as the one to join.
    Lead(Stamp),
    /// The same as soon as the fetch under way has ended.
    LeadNext(Stamp),
    /// Fetches for itself alone; nothing is stored or shared.
    Alone(Miss),
}

/// The fetch of a key that others may join at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Its stamp; it takes another one when it leaves.
    pub stamp: Stamp,
    /// Whether it has left for the API.
    pub has_left: bool,
    /// Whether it began without a reader; see [`Purpose::Renew`](super::Purpose::Renew).
    pub is_renewal: bool,
}

/// What a reader accepts of the fetches of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Answers of this kind are for others as well, as far as is known.
    pub is_shared: bool,
    /// What another one asked for before it came will do.
    pub joins_under_way: bool,
    /// It waits for the end of the fetch under way before it begins the next.
    pub waits: bool,
    /// It wants an answer even if that cannot be stored.
    pub shows: bool,
}

/// What a seat depends on.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The marks.
    pub fence: &'a Fence,
    /// What the answer will depend on.
    pub depends: &'a [Dependency],
    /// The fetch of this key that others may join at present.
    pub flight: Option<InFlight>,
    /// How many more fetches may be under way.
    pub free: usize,
    /// What the reader accepts.
    pub sharing: Sharing,
}

/// Seats a reader who found no stored answer.
pub fn seat(scene: &Scene<'_>, now: Instant) -> Seat {
    let sharing = scene.sharing;
    let is_settling = scene.fence.settling(scene.depends, now);
    let flight = scene.flight.filter(|_| sharing.is_shared);
    let flight = flight.filter(|flight| flight.has_left || !flight.is_renewal || !sharing.shows);
    let has_left = match flight {
        Some(flight) if !flight.has_left => return Seat::Follow,
        Some(flight) => {
            // While anything settles, no stamp so far is believed.
            let is_believed = scene.fence.believes(&flight.stamp, scene.depends);
            if is_believed && sharing.joins_under_way {
                return Seat::Follow;
            }
            true
        }
        None => false,
    };
    let leads_while_settling = sharing.shows && sharing.is_shared && (sharing.waits || !has_left);
    if is_settling && !leads_while_settling {
        Seat::Alone(Miss::Settling)
    } else if scene.free == 0 {
        Seat::Alone(Miss::TooManyFetches)
    } else if has_left && sharing.waits {
        Seat::LeadNext(scene.fence.stamp(now))
    } else {
        Seat::Lead(scene.fence.stamp(now))
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
        joins_under_way: true,
        waits: true,
        shows: true,
    };
    const RELOAD: Sharing = Sharing {
        joins_under_way: false,
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
    fn seats() {
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
        let (lead, next) = (Seat::Lead(after), Seat::LeadNext(after));
        let full = Seat::Alone(Miss::TooManyFetches);
        let follow = Seat::Follow;
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
        let mut scene = Scene {
            fence: &fence,
            depends: &users,
            flight: None,
            free: 1,
            sharing: READER,
        };
        for (flight, free, sharing, expected) in table {
            (scene.flight, scene.free, scene.sharing) = (flight, free, sharing);
            assert_eq!(seat(&scene, end), expected, "{scene:?}");
        }
        // And here while it settles.
        let (lead, next) = (Seat::Lead(during), Seat::LeadNext(during));
        let alone = Seat::Alone(Miss::Settling);
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
            (scene.flight, scene.free, scene.sharing) = (flight, free, sharing);
            assert_eq!(seat(&scene, now), expected, "{scene:?}");
        }
        // What was not written neither settles nor parts anyone.
        scene.depends = &[];
        for flight in [left(before), left(during), to_come(before)] {
            (scene.flight, scene.free, scene.sharing) = (flight, 0, READER);
            assert_eq!(seat(&scene, now), follow, "{scene:?}");
        }
    }
}
