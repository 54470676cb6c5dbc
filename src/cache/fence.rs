//! Pure. The fence: which answers are too old to be believed, after a write.
//!
//! Promises that an answer is believed only if its fetch began after every write to the data it
//! depends on had settled. One counter, the generation, grows with every settled write, and the
//! *marks* of what the write touched take its value. A fetch notes its *stamp* before it asks
//! upstream. A stamp is believed while no mark of its dependencies is above it.
//!
//! Why a mark also holds an instant: for a while after a write the API itself may answer with older
//! data (it is *settling*), so a fetch that began in that time must not be believed either, not
//! even afterwards. Comparing the fetch's beginning with the end of settling says exactly that,
//! and needs no timer that raises the mark a second time.
//!
//! Belief depends on marks and stamp alone, not on the present: what was believed at one generation
//! is believed until the generation changes. The fast path of a cache hit rests on this.
//!
//! Nothing is scanned or deleted when a mark rises. The table is bounded: dropping the lowest mark
//! raises the floor, a mark that every answer depends on, so forgetting only ever disbelieves.

use super::key::KeyHash;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;

/// A credential as its keyed hash; the token itself is never known here.
pub type CredentialHash = [u8; 16];

/// A name for data that answers depend on, e.g. `users` or `user:42`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something with a mark.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// Data, for every credential alike.
    Tag(Tag),
    /// Everything that one credential was shown.
    Credential(CredentialHash),
    /// What one credential was shown by one operation (its index in the route table).
    Access(CredentialHash, u32),
    /// What anyone was shown by one operation.
    Operation(u32),
    /// What was shown under one path, whatever its query: the target of a write (RFC 9111, section
    /// 4.4).
    Path(Arc<str>),
    /// What was shown under one key.
    Key(KeyHash),
    /// What nobody can tell the writes of: any write may have changed it.
    AnyWrite,
}

/// When a fetch began: taken before the upstream is asked, never later.
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

    /// The generation in which the fetch began.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a fetch with this stamp began after whoever came with that one, so that its answer
    /// is as new as one that they fetch themselves, also of data that settles.
    pub fn is_after(&self, came: &Self) -> bool {
        self.generation >= came.generation && self.at >= came.at
    }
}

/// When something was last written.
#[derive(Clone, Copy, Debug)]
struct Mark {
    generation: u64,
    /// The end of settling.
    settled: Instant,
}

impl Mark {
    fn permits(&self, stamp: &Stamp) -> bool {
        self.generation <= stamp.generation && self.settled <= stamp.at
    }
}

/// The marks, their floor and the generation.
#[derive(Clone, Debug)]
pub struct Fence {
    generation: u64,
    floor: Option<Mark>,
    floor_moves: u64,
    marks: HashMap<Dependency, Mark>,
    /// The same marks by generation, so that the lowest is found without a scan.
    order: BTreeSet<(u64, Dependency)>,
    max_marks: usize,
}

impl Fence {
    /// A fence without marks, which believes everything and never holds more than `max_marks`.
    pub fn new(max_marks: usize) -> Self {
        Self {
            // Not 0, so that 0 can stand for "no generation" elsewhere.
            generation: 1,
            floor: None,
            floor_moves: 0,
            marks: HashMap::new(),
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

    /// Whether an answer with this stamp and these dependencies may be shown to a reader.
    pub fn believes(&self, stamp: &Stamp, depends: &[Dependency]) -> bool {
        let permitted = |mark: Option<&Mark>| mark.is_none_or(|mark| mark.permits(stamp));
        permitted(self.floor.as_ref()) && depends.iter().all(|name| permitted(self.marks.get(name)))
    }

    /// Whether a fetch that began now could never be believed, because something it depends on is
    /// still settling. Its answer may be neither stored nor shared.
    pub fn settling(&self, depends: &[Dependency], now: Instant) -> bool {
        // Marks are never above the present generation, so only their instants can refuse.
        !self.believes(&self.stamp(now), depends)
    }

    /// A write to these ended; the API may answer with older data until `settled`. Without names
    /// nothing changes.
    pub fn raise(&mut self, names: impl IntoIterator<Item = Dependency>, settled: Instant) {
        let mut names = names.into_iter().peekable();
        if names.peek().is_none() {
            return;
        }
        self.generation += 1;
        for name in names {
            self.mark(name, settled);
        }
    }

    /// A write to nobody knows what ended: no answer with an earlier stamp is believed.
    pub fn raise_floor(&mut self, settled: Instant) {
        self.generation += 1;
        let floor = self.lift_floor(Mark {
            generation: self.generation,
            settled,
        });
        // The others say nothing that the floor does not say.
        self.marks.retain(|_, mark| mark.settled > floor.settled);
        let marks = &self.marks;
        self.order.retain(|(_, name)| marks.contains_key(name));
    }

    /// Grows with every raise. While it stands still, so does every belief.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many marks are held; at most the bound given at the start.
    pub fn marks(&self) -> usize {
        self.marks.len()
    }

    /// How often the floor was raised, by writes to everything and by dropped marks.
    pub fn floor_moves(&self) -> u64 {
        self.floor_moves
    }

    fn mark(&mut self, name: Dependency, settled: Instant) {
        let mut mark = Mark {
            generation: self.generation,
            settled,
        };
        if let Some(old) = self.marks.insert(name.clone(), mark) {
            self.order.remove(&(old.generation, name.clone()));
            // A quick write does not shorten the settling of a slow one before it.
            if old.settled > settled {
                mark.settled = old.settled;
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
                settled: floor.settled.max(mark.settled),
            },
        };
        self.floor = Some(floor);
        self.floor_moves += 1;
        floor
    }
}
