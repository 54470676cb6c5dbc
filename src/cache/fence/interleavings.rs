//! Every order of two writes and three readers, with the real fence and the real seating.
//!
//! The store, the upstream and the readers are a model here, because a state of it can be copied
//! and compared; `cache/tests/schedules.rs` runs random orders on the real cache. The model leaves
//! out doors on demand, which shows that the enumeration would notice.

use super::*;
use crate::cache::decide::{Scene, Seat, seat};
use crate::clock::Clock;
use std::collections::HashSet;

/// Which judgements are made.
#[derive(Clone, Copy, PartialEq)]
struct Doors {
    lookup: bool,
    join: bool,
    hand_over: bool,
}

const ALL: Doors = Doors {
    lookup: true,
    join: true,
    hand_over: true,
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
    /// Leads the flight of this number; has perhaps been answered by the upstream.
    Leading {
        flight: u8,
        stamp: Stamp,
        version: Option<u8>,
    },
    Following {
        flight: u8,
    },
    Done,
}

/// How a flight ended: its stamp at the end and the version it brought.
type Landed = Option<(Stamp, u8)>;

#[derive(Clone)]
struct World {
    doors: Doors,
    now: Instant,
    fence: Fence,
    version: u8,
    store: Landed,
    joinable: Option<(u8, Stamp)>,
    flights: Vec<Landed>,
    writes: [Write; 2],
    readers: [Reader; 3],
    /// What each reader may at least expect: the newest version whose write had been answered
    /// when it began.
    expects: [Option<u8>; 3],
    answered: u8,
}

#[derive(PartialEq, Eq, Hash)]
struct Seen(
    u64,
    u8,
    Landed,
    Option<(u8, Stamp)>,
    Vec<Landed>,
    [Write; 2],
    [Reader; 3],
    [Option<u8>; 3],
    u8,
);

fn users() -> [Dependency; 1] {
    [Dependency::Tag(Tag::new("users"))]
}

impl World {
    fn new(doors: Doors) -> Self {
        Self {
            doors,
            now: Clock::system().now(),
            fence: Fence::new(4),
            version: 0,
            store: None,
            joinable: None,
            flights: Vec::new(),
            writes: [Write::Waiting; 2],
            readers: [Reader::Waiting { asked: false }; 3],
            expects: [None; 3],
            answered: 0,
        }
    }

    fn seen(&self) -> Seen {
        Seen(
            self.fence.generation(),
            self.version,
            self.store,
            self.joinable,
            self.flights.clone(),
            self.writes,
            self.readers,
            self.expects,
            self.answered,
        )
    }

    fn step_write(&mut self, index: usize) -> bool {
        self.writes[index] = match self.writes[index] {
            Write::Waiting => {
                self.version += 1;
                Write::Applied(self.version)
            }
            Write::Applied(version) => {
                self.fence.raise(users(), self.now);
                self.answered = self.answered.max(version);
                Write::Answered
            }
            Write::Answered => return false,
        };
        true
    }

    /// Takes one step of a reader; `Err` is a stale answer, `Ok(false)` means it cannot move.
    fn step_reader(&mut self, index: usize) -> Result<bool, ()> {
        match self.readers[index] {
            Reader::Waiting { asked } => self.begin(index, asked)?,
            Reader::Leading {
                flight,
                stamp,
                version: None,
            } => {
                let version = Some(self.version);
                self.readers[index] = Reader::Leading {
                    flight,
                    stamp,
                    version,
                };
            }
            Reader::Leading {
                flight,
                stamp,
                version: Some(version),
            } => {
                self.land(flight, stamp, version);
                self.show(index, version)?;
            }
            Reader::Following { flight } => {
                let Some((stamp, version)) = self.flights[usize::from(flight)] else {
                    return Ok(false);
                };
                if !self.doors.hand_over || self.fence.believes(&stamp, &users()) {
                    self.show(index, version)?;
                } else {
                    self.readers[index] = Reader::Waiting { asked: true };
                }
            }
            Reader::Done => return Ok(false),
        }
        Ok(true)
    }

    fn begin(&mut self, index: usize, asked: bool) -> Result<(), ()> {
        if !asked {
            self.expects[index] = Some(self.answered);
        }
        if let Some((stamp, version)) = self.store
            && (!self.doors.lookup || self.fence.believes(&stamp, &users()))
        {
            return self.show(index, version);
        }
        let scene = Scene {
            fence: &self.fence,
            depends: &users(),
            flight: self.joinable.map(|(_, stamp)| stamp),
            free: 3,
            joins: true,
        };
        let seat = match (seat(&scene, self.now), self.joinable) {
            (Seat::Lead(_), Some(_)) if !self.doors.join => Seat::Follow,
            (seat, _) => seat,
        };
        match (seat, self.joinable) {
            (Seat::Follow, Some((flight, _))) => {
                self.readers[index] = Reader::Following { flight };
            }
            (Seat::Lead(stamp), _) => {
                let flight = u8::try_from(self.flights.len()).unwrap();
                self.flights.push(None);
                self.joinable = Some((flight, stamp));
                self.readers[index] = Reader::Leading {
                    flight,
                    stamp,
                    version: None,
                };
            }
            (seat, _) => panic!("nobody is seated like this here: {seat:?}"),
        }
        Ok(())
    }

    fn land(&mut self, flight: u8, stamp: Stamp, version: u8) {
        self.flights[usize::from(flight)] = Some((stamp, version));
        if self.joinable.is_some_and(|(current, _)| current == flight) {
            self.joinable = None;
            if self.fence.believes(&stamp, &users()) {
                self.store = Some((stamp, version));
            }
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
    let mut seen = HashSet::new();
    let mut stale = 0;
    let mut open = vec![World::new(doors)];
    while let Some(world) = open.pop() {
        if !seen.insert(world.seen()) {
            continue;
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
    assert!(states > 10_000, "only {states} states were reached");
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
    assert!(enumerate(no_fence_at_flights).1 > 0);
    assert!(enumerate(no_fence_at_the_store).1 > 0);
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
