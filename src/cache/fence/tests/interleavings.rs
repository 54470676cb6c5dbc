//! Every order of two writes and three readers, with the real fence and the real seating; and of
//! one of them less against an upstream that lags: it may show the state before a write until that
//! has settled.
//!
//! The store, the upstream and the readers are a model here, because a state of it can be copied
//! and compared; `cache/tests/schedules.rs` runs random orders on the real cache. The model leaves
//! out doors on demand, which shows that the enumeration would notice.

use super::super::*;
use crate::cache::decide::{InFlight, LookupDecision, LookupInput, Sharing, decision};
use crate::clock::Clock;
use std::collections::HashSet;
use std::time::Duration;

/// How much there is of what.
#[derive(Clone, Copy)]
struct Size {
    writes: usize,
    readers: usize,
    /// How long after its answer a write may not be visible yet.
    lag: Duration,
}

/// Orders of all of these are enumerated.
const SIZES: [Size; 3] = [
    Size {
        writes: 2,
        readers: 3,
        lag: Duration::ZERO,
    },
    Size {
        writes: 2,
        readers: 2,
        lag: Duration::from_secs(1),
    },
    Size {
        writes: 1,
        readers: 3,
        lag: Duration::from_secs(1),
    },
];

/// Which judgements are made.
#[derive(Clone, Copy, PartialEq)]
struct Doors {
    lookup: bool,
    join: bool,
    hand_over: bool,
    /// A fetch that has left is told from one that has not.
    started: bool,
}

const ALL: Doors = Doors {
    lookup: true,
    join: true,
    hand_over: true,
    started: true,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Write {
    Waiting,
    /// Took effect upstream and made this version.
    Applied(u8),
    /// The fence was raised and the caller heard.
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Waiting {
        asked: bool,
    },
    /// Leads the flight of this number.
    Leading {
        flight: u8,
        fetch: Fetch,
    },
    Following {
        flight: u8,
        /// When it came, if the fetch had not left by then.
        came: Option<Stamp>,
    },
    Done,
}

/// How far a fetch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fetch {
    /// It waits for its budget.
    InLine(Stamp),
    Left(Stamp),
    /// The upstream has answered it with this version.
    Answered(Stamp, u8),
}

/// How a flight ended: its stamp at the end and the version it brought.
type Completed = Option<(Stamp, u8)>;

#[derive(Clone)]
struct World {
    doors: Doors,
    lag: Duration,
    now: Instant,
    fence: Fence,
    /// The versions there are, and those that the upstream shows.
    version: u8,
    visible: u8,
    store: Completed,
    /// The flight that may be joined, and whether it has left.
    joinable: Option<(u8, Stamp, bool)>,
    flights: Vec<Completed>,
    writes: [Write; 2],
    readers: [Reader; 3],
    /// What each reader may at least expect: the newest version that was answered and shown when
    /// it came.
    expects: [Option<u8>; 3],
    answered: u8,
    settled: Instant,
    /// How often time may still pass.
    passes: u8,
}

#[derive(PartialEq, Eq, Hash)]
struct Seen(
    (u64, Instant, Instant),
    (u8, u8, u8),
    Completed,
    Option<(u8, Stamp, bool)>,
    Vec<Completed>,
    [Write; 2],
    [Reader; 3],
    [Option<u8>; 3],
);

fn users() -> [Dependency; 1] {
    [Dependency::Tag(Tag::new("users"))]
}

impl World {
    fn new(doors: Doors, size: Size) -> Self {
        let now = Clock::system().now();
        let mut world = Self {
            doors,
            lag: size.lag,
            now,
            fence: Fence::new(4),
            version: 0,
            visible: 0,
            store: None,
            joinable: None,
            flights: Vec::new(),
            writes: [Write::Waiting; 2],
            readers: [Reader::Waiting { asked: false }; 3],
            expects: [None; 3],
            answered: 0,
            settled: now,
            passes: 2,
        };
        world.writes[size.writes..].fill(Write::Answered);
        world.readers[size.readers..].fill(Reader::Done);
        world
    }

    fn seen(&self) -> Seen {
        Seen(
            (self.fence.generation(), self.now, self.settled),
            (self.version, self.visible, self.answered),
            self.store,
            self.joinable,
            self.flights.clone(),
            self.writes,
            self.readers,
            self.expects,
        )
    }

    fn step_write(&mut self, index: usize) -> bool {
        self.writes[index] = match self.writes[index] {
            Write::Waiting => {
                self.version += 1;
                if self.lag.is_zero() {
                    self.visible = self.version;
                }
                Write::Applied(self.version)
            }
            Write::Applied(version) => {
                self.settled = self.now + self.lag;
                self.fence.raise(users(), self.settled);
                self.answered = self.answered.max(version);
                Write::Answered
            }
            Write::Answered => return false,
        };
        true
    }

    /// The upstream shows one more version.
    fn step_upstream(&mut self) -> bool {
        let more = self.visible < self.version;
        self.visible += u8::from(more);
        more
    }

    /// Time passes to the end of settling, at which all that was answered is shown.
    fn step_time(&mut self) -> bool {
        let passes = self.passes > 0 && self.now < self.settled && self.visible >= self.answered;
        if passes {
            self.now = self.settled;
            self.passes -= 1;
        }
        passes
    }

    /// Takes one step of a reader; `Err` is a stale answer, `Ok(false)` means it cannot move.
    fn step_reader(&mut self, index: usize) -> Result<bool, ()> {
        match self.readers[index] {
            Reader::Waiting { asked } => self.begin(index, asked)?,
            Reader::Leading { flight, fetch } => {
                let fetch = match fetch {
                    Fetch::InLine(_) => Fetch::Left(self.depart(flight)),
                    Fetch::Left(stamp) => Fetch::Answered(stamp, self.visible),
                    Fetch::Answered(stamp, version) => {
                        self.complete(flight, stamp, version);
                        return self.show(index, version).map(|()| true);
                    }
                };
                self.readers[index] = Reader::Leading { flight, fetch };
            }
            Reader::Following { flight, came } => {
                let Some((stamp, version)) = self.flights[usize::from(flight)] else {
                    return Ok(false);
                };
                let is_own = came.is_some_and(|came| stamp.is_after(&came));
                let accepted = is_own || self.fence.believes(&stamp, &users());
                if !self.doors.hand_over || accepted {
                    self.show(index, version)?;
                } else {
                    self.readers[index] = Reader::Waiting { asked: true };
                }
            }
            Reader::Done => return Ok(false),
        }
        Ok(true)
    }

    fn depart(&mut self, flight: u8) -> Stamp {
        let stamp = self.fence.stamp(self.now);
        if let Some(joinable) = self.joinable.as_mut().filter(|(its, ..)| *its == flight) {
            *joinable = (flight, stamp, true);
        }
        stamp
    }

    fn begin(&mut self, index: usize, asked: bool) -> Result<(), ()> {
        if !asked {
            self.expects[index] = Some(self.answered.min(self.visible));
        }
        if let Some((stamp, version)) = self.store
            && (!self.doors.lookup || self.fence.believes(&stamp, &users()))
        {
            return self.show(index, version);
        }
        let input = LookupInput {
            fence: &self.fence,
            depends: &users(),
            flight: self.joinable.map(|(_, stamp, has_left)| InFlight {
                stamp,
                has_left: has_left && self.doors.started,
                is_renewal: false,
            }),
            free: 3,
            sharing: Sharing {
                is_shared: true,
                joins_in_flight: true,
                waits: true,
                shows: true,
            },
        };
        let decision = match (decision(&input, self.now), self.joinable) {
            (LookupDecision::Lead(_) | LookupDecision::LeadNext(_), Some(_))
                if !self.doors.join =>
            {
                LookupDecision::Follow
            }
            (decision, _) => decision,
        };
        self.readers[index] = match (decision, self.joinable) {
            (LookupDecision::Follow, Some((flight, _, has_left))) => Reader::Following {
                flight,
                came: (!has_left || !self.doors.started).then(|| self.fence.stamp(self.now)),
            },
            // It may leave before the one under way has ended: that one may hang.
            (LookupDecision::Lead(stamp) | LookupDecision::LeadNext(stamp), _) => {
                let flight = u8::try_from(self.flights.len()).unwrap();
                self.flights.push(None);
                self.joinable = Some((flight, stamp, false));
                let fetch = Fetch::InLine(stamp);
                Reader::Leading { flight, fetch }
            }
            (decision, _) => panic!("an unexpected decision: {decision:?}"),
        };
        Ok(())
    }

    fn complete(&mut self, flight: u8, stamp: Stamp, version: u8) {
        self.flights[usize::from(flight)] = Some((stamp, version));
        let may_store = match self.joinable {
            Some((current, ..)) if current == flight => {
                self.joinable = None;
                true
            }
            Some((.., has_left)) => !has_left,
            None => false,
        };
        let is_newest = self.store.is_none_or(|(old, _)| old <= stamp);
        if may_store && is_newest && self.fence.believes(&stamp, &users()) {
            self.store = Some((stamp, version));
        }
    }

    fn show(&mut self, index: usize, version: u8) -> Result<(), ()> {
        self.readers[index] = Reader::Done;
        if Some(version) < self.expects[index] {
            Err(())
        } else {
            Ok(())
        }
    }
}

/// How many states there are, and in how many a stale answer was given.
fn enumerate(doors: Doors) -> (usize, usize) {
    let found = SIZES.map(|size| enumerate_from(World::new(doors, size)));
    let sum = |of: fn(&(usize, usize)) -> usize| found.iter().map(of).sum();
    (sum(|(states, _)| *states), sum(|(_, stale)| *stale))
}

fn enumerate_from(start: World) -> (usize, usize) {
    let mut seen = HashSet::new();
    let mut stale = 0;
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        if !seen.insert(world.seen()) {
            continue;
        }
        for step in [World::step_upstream, World::step_time] {
            let mut next = world.clone();
            if step(&mut next) {
                open.push(next);
            }
        }
        for index in 0..2 {
            let mut next = world.clone();
            if next.step_write(index) {
                open.push(next);
            }
        }
        for index in 0..3 {
            let mut next = world.clone();
            match next.step_reader(index) {
                Ok(true) => open.push(next),
                Ok(false) => {}
                Err(()) => stale += 1,
            }
        }
    }
    (seen.len(), stale)
}

#[test]
fn no_order_of_two_writes_and_three_readers_shows_a_stale_answer() {
    let (states, stale) = enumerate(ALL);
    assert!(states > 50_000, "only {states} states were reached");
    assert_eq!(stale, 0);
}

#[test]
fn the_enumeration_notices_a_missing_door() {
    let no_fence_at_flights = Doors {
        join: false,
        hand_over: false,
        ..ALL
    };
    let no_fence_at_the_store = Doors {
        lookup: false,
        ..ALL
    };
    let takes_any_fetch_for_one_to_come = Doors {
        started: false,
        ..ALL
    };
    assert!(enumerate(no_fence_at_flights).1 > 0);
    assert!(enumerate(no_fence_at_the_store).1 > 0);
    assert!(enumerate(takes_any_fetch_for_one_to_come).1 > 0);
}

/// Joining and handing over guard each other where all tags are known at the start. Both are
/// there: the first so that nobody waits in vain, the second for tags that the answer brings.
#[test]
fn either_judgement_of_a_flight_suffices_for_known_tags() {
    for doors in [
        Doors { join: false, ..ALL },
        Doors {
            hand_over: false,
            ..ALL
        },
    ] {
        assert_eq!(enumerate(doors).1, 0);
    }
}
