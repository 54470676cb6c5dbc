//! Pure. The fence decides which responses are too old to be served after a write.
//!
//! Promises that a response is valid only if its fetch began after every write to the data it
//! depends on had settled. One counter, the *generation*, grows with every settled write. The
//! *marks* of what the write touched take its value. A fetch notes its *stamp*, the present
//! generation, before it sends its request. A response is valid while no mark of its dependencies
//! is above its stamp.
//!
//! A mark also holds an instant, the end of the settle time. For a while after a write the API
//! itself may return older data. A response whose fetch began in that time must never be
//! valid, not even later. Comparing the beginning of the fetch with the end of the settle time
//! expresses this without a timer that raises the mark a second time.
//!
//! Validity depends on marks and stamp alone, not on the present. A response that is valid at one
//! generation stays valid until the generation changes. The fast path of a cache hit relies on
//! this.
//!
//! Nothing is scanned or deleted when a mark rises. The table is bounded: dropping the lowest mark
//! raises the floor, a mark that every response depends on. Forgetting a mark can therefore only
//! invalidate responses.
//!
//! The fence does not know lifetimes, keeps no responses, and does not read the clock.

use super::key::{CacheKeyHash, CredentialHash};
use foldhash::HashMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

#[cfg(test)]
mod tests;

/// A name for data that responses depend on, such as `users` or `user:42`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// Creates the tag of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name of the tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that has a mark and that responses depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// Data, for all credentials alike.
    Tag(Tag),
    /// All responses to one credential.
    Credential(CredentialHash),
    /// All responses to one credential for one operation (its index in the route table).
    Access(CredentialHash, u32),
    /// All responses of one operation.
    Operation(u32),
    /// All responses for one path, whatever their query: the target of a write (RFC 9111, section
    /// 4.4).
    Path(Arc<str>),
    /// All responses with one key.
    Key(CacheKeyHash),
    /// Data whose writes are unknown: any write may have changed it.
    AnyWrite,
}

/// The beginning of a fetch: the generation and the instant. Taken before the request is sent,
/// never later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    generation: u64,
    at: Instant,
}

impl Stamp {
    /// The instant at which the fetch began.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The generation at which the fetch began.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a fetch with this stamp began no earlier than the stamp `came` of a reader. Its
    /// response is then as new as one that the reader fetches itself, even during a settle time.
    pub fn is_after(&self, came: &Self) -> bool {
        self.generation >= came.generation && self.at >= came.at
    }
}

/// The last write to something.
#[derive(Clone, Copy, Debug)]
struct Mark {
    generation: u64,
    /// The end of the settle time.
    settle_end: Instant,
}

impl Mark {
    fn permits(&self, stamp: &Stamp) -> bool {
        self.generation <= stamp.generation && self.settle_end <= stamp.at
    }
}

/// The marks, the floor and the generation.
#[derive(Clone, Debug)]
pub struct Fence {
    generation: u64,
    floor: Option<Mark>,
    floor_moves: u64,
    marks: HashMap<Dependency, Mark>,
    /// An index of the marks by generation, so that the lowest is found without a scan.
    order: BTreeSet<(u64, Dependency)>,
    max_marks: usize,
}

impl Fence {
    /// Creates a fence without marks, for which every response is valid. It never holds more than
    /// `max_marks`.
    pub fn new(max_marks: usize) -> Self {
        Self {
            // Not 0, because 0 stands for "no generation" elsewhere.
            generation: 1,
            floor: None,
            floor_moves: 0,
            marks: HashMap::default(),
            order: BTreeSet::new(),
            max_marks,
        }
    }

    /// The stamp of a fetch that begins now.
    pub fn stamp(&self, now: Instant) -> Stamp {
        Stamp {
            generation: self.generation,
            at: now,
        }
    }

    /// Whether a response with this stamp and these dependencies is valid.
    pub fn believes(&self, stamp: &Stamp, depends: &[Dependency]) -> bool {
        let permitted = |mark: Option<&Mark>| mark.is_none_or(|mark| mark.permits(stamp));
        permitted(self.floor.as_ref()) && depends.iter().all(|name| permitted(self.marks.get(name)))
    }

    /// Whether a fetch that begins now could never become valid, because something that it depends
    /// on is in its settle time. Its response may be neither stored nor shared.
    pub fn settling(&self, depends: &[Dependency], now: Instant) -> bool {
        // No mark is above the present generation, so only the instants can make the result `true`.
        !self.believes(&self.stamp(now), depends)
    }

    /// The instant from which the API reflects every ended write to these dependencies. `None` if
    /// no such write is known.
    pub fn settled_at(&self, depends: &[Dependency]) -> Option<Instant> {
        let marks = depends.iter().filter_map(|name| self.marks.get(name));
        let marks = marks.chain(&self.floor);
        marks.map(|mark| mark.settle_end).max()
    }

    /// Records that a write to these names ended. The API may return older data until
    /// `settle_end`. Does nothing without names.
    pub fn raise(&mut self, names: impl IntoIterator<Item = Dependency>, settle_end: Instant) {
        let mut names = names.into_iter().peekable();
        if names.peek().is_none() {
            return;
        }
        self.generation += 1;
        // One generation for all names: the write happened once.
        for name in names {
            self.mark(name, settle_end);
        }
    }

    /// Records the end of a write whose effects are unknown: no response with an earlier stamp is
    /// valid.
    pub fn raise_floor(&mut self, settle_end: Instant) {
        self.generation += 1;
        let floor = self.lift_floor(Mark {
            generation: self.generation,
            settle_end,
        });
        // The floor implies all other marks, except those that settle later.
        self.marks
            .retain(|_, mark| mark.settle_end > floor.settle_end);
        let marks = &self.marks;
        self.order.retain(|(_, name)| marks.contains_key(name));
    }

    /// The present generation. It grows with every raise, and validity changes only with it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The number of marks, at most the bound given to [`Fence::new`].
    pub fn marks(&self) -> usize {
        self.marks.len()
    }

    /// The number of times that the floor was raised, by writes to everything and by dropped marks.
    pub fn floor_moves(&self) -> u64 {
        self.floor_moves
    }

    fn mark(&mut self, name: Dependency, settle_end: Instant) {
        let mut mark = Mark {
            generation: self.generation,
            settle_end,
        };
        if let Some(old) = self.marks.insert(name.clone(), mark) {
            self.order.remove(&(old.generation, name.clone()));
            // A write that settles early must not shorten the settle time of an earlier write.
            if old.settle_end > settle_end {
                mark.settle_end = old.settle_end;
                self.marks.insert(name.clone(), mark);
            }
        }
        self.order.insert((mark.generation, name));
        while self.marks.len() > self.max_marks {
            self.drop_lowest();
        }
    }

    fn drop_lowest(&mut self) {
        let Some((_, name)) = self.order.pop_first() else {
            return;
        };
        if let Some(mark) = self.marks.remove(&name) {
            self.lift_floor(mark);
        }
    }

    fn lift_floor(&mut self, mark: Mark) -> Mark {
        let floor = match self.floor {
            None => mark,
            Some(floor) => Mark {
                generation: floor.generation.max(mark.generation),
                settle_end: floor.settle_end.max(mark.settle_end),
            },
        };
        self.floor = Some(floor);
        self.floor_moves += 1;
        floor
    }
}
