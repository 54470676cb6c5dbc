//! Pure. Where a reader without a stored answer is seated.
//!
//! Promises that a reader joins a fetch under way only if that fetch's answer would be believed
//! had it been stored already. This is the second door of the fence: judging stored answers alone
//! would let a reader who comes after a write share a fetch that began before it.

use super::fence::{Dependency, Fence, Stamp};
use super::reason::Miss;
use std::time::Instant;

/// A reader's seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// Joins the fetch under way.
    Follow,
    /// Fetches, for itself and for those who come while it does; replaces any fetch under way as
    /// the one to join.
    Lead(Stamp),
    /// Fetches for itself alone; nothing is stored or shared.
    Alone(Miss),
}

/// What a seat depends on.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The marks.
    pub fence: &'a Fence,
    /// What the answer will depend on.
    pub depends: &'a [Dependency],
    /// The stamp of the fetch of this key that others may join at present.
    pub flight: Option<Stamp>,
    /// How many more fetches may be under way.
    pub free: usize,
    /// Whether the reader accepts what another one asked for before it.
    pub joins: bool,
}

/// Seats a reader who found no stored answer.
pub fn seat(scene: &Scene<'_>, now: Instant) -> Seat {
    if scene.fence.settling(scene.depends, now) {
        return Seat::Alone(Miss::Settling);
    }
    let joinable = scene
        .flight
        .is_some_and(|stamp| scene.fence.believes(&stamp, scene.depends));
    if joinable && scene.joins {
        Seat::Follow
    } else if scene.free == 0 {
        Seat::Alone(Miss::TooManyFetches)
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

    #[test]
    fn seats() {
        let now = Clock::system().now();
        let end = now + Duration::from_secs(1);
        let users = [Dependency::Tag(Tag::new("users"))];
        let mut fence = Fence::new(8);
        let before = fence.stamp(now);
        fence.raise(users.clone(), end);
        let during = fence.stamp(now);
        let after = fence.stamp(end);
        let lead = Seat::Lead(after);
        let full = Seat::Alone(Miss::TooManyFetches);
        let (fresh, reload) = (true, false);
        // Everyone comes at the end of settling.
        let table = [
            (None, 1, fresh, lead),
            (Some(before), 1, fresh, lead),
            (Some(during), 1, fresh, lead),
            (Some(after), 1, fresh, Seat::Follow),
            (Some(after), 0, fresh, Seat::Follow),
            (Some(after), 1, reload, lead),
            (Some(before), 0, fresh, full),
            (None, 0, fresh, full),
            (Some(after), 0, reload, full),
        ];
        for (flight, free, joins, expected) in table {
            let mut scene = Scene {
                fence: &fence,
                depends: &users,
                flight,
                free,
                joins,
            };
            assert_eq!(seat(&scene, end), expected, "{scene:?}");
            assert_eq!(seat(&scene, now), Seat::Alone(Miss::Settling));
            // What was not written neither settles nor parts anyone.
            scene.depends = &[];
            scene.joins = fresh;
            let expected = match (flight, free) {
                (Some(_), _) => Seat::Follow,
                (None, 0) => full,
                (None, _) => Seat::Lead(fence.stamp(now)),
            };
            assert_eq!(seat(&scene, now), expected, "{scene:?}");
        }
    }
}
