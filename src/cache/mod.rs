//! Reads: answers that are stored, and fetches that are shared.
//!
//! Promises:
//! - *Isolated.* No answer obtained with one credential is shown to another: the credential is
//!   part of every key.
//! - *Fresh.* Once a write has settled ([`Cache::settle`] has returned), no reader who comes after
//!   it gets data older than a direct read at that moment would have brought: not from the store,
//!   not from a fetch that was under way, not after joining one. Three doors see to it: stored
//!   answers are judged when they are found, fetches when they are joined, and shared answers
//!   once more when they are handed over ([`Cache::accepts`]).
//! - *One fetch.* Of those who ask for one thing at a time, one fetches.
//! - *Bounded.* The store in bytes, the fetches and the marks in number.
//!
//! Pure parts: [`fence`] (what is believed), [`decide`] (who joins, who fetches), [`request`],
//! [`control`], [`storable`] (what may be stored), [`key`], [`unauthorized`], [`cache_status`],
//! [`reason`]. The rest holds state: [`entry`], `store`, [`flight`], [`leader`], `marks`.
//!
//! How to use it, on the path of a read:
//! 1. [`request::examine`] says whether it is a matter for the cache; [`Key::new`] names it.
//! 2. In [`Mode::Fresh`], [`Cache::lookup`]. A hit needs nothing else, not even the tags.
//! 3. Otherwise [`Cache::board`]. A [`Leader`] moves into a task of its own, which calls
//!    [`Leader::departs`] when it sends and ends it; the first reader gets the whole answer from
//!    that task directly. A [`Follower`] waits, and what it gets shared is shown if
//!    [`Cache::accepts`] it; else the reader boards once more, and after that fetches alone.
//!
//! It fetches nothing itself, reads no clock, and serves nothing stale.

use entry::Entry;
use fence::{CredentialHash, Dependency, Tag};
use flight::{Flights, Follower, Plan};
use key::Key;
use leader::Leader;
use marks::Marks;
use parking_lot::Mutex;
use reason::{Miss, Refusal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use unauthorized::{Doubt, Refused, Unauthorized};

pub mod cache_status;
pub mod coding;
pub mod conditional;
pub mod control;
pub mod date;
pub mod decide;
pub mod entry;
pub mod fence;
pub mod flight;
pub mod key;
pub mod leader;
pub mod lifetime;
mod marks;
pub mod range;
pub mod reason;
pub mod request;
pub mod storable;
mod store;
pub mod targeted;
#[cfg(test)]
mod tests;
pub mod unauthorized;
pub mod vary;

pub use decide::Mode;

/// How many credentials with a recent 401 are remembered; about 150 bytes each.
const MAX_UNAUTHORIZED: usize = 10_000;

/// The bounds of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What all stored answers may weigh, headers, keys and bookkeeping included, in bytes.
    pub bytes: u64,
    /// The largest body that is stored or shared, in bytes.
    pub largest_body: usize,
    /// How many shared fetches may be under way.
    pub fetches: usize,
    /// How many marks the fence holds.
    pub marks: usize,
}

/// What a reader asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The key of the answer.
    pub key: &'a Key,
    /// What the answer will depend on, as far as the route knows.
    pub tags: &'a [Tag],
    /// The operation's time to live.
    pub ttl: Duration,
    /// What the reader accepts.
    pub mode: Mode,
}

/// What a reader has to do.
#[derive(Debug)]
pub enum Board<E> {
    /// Show this.
    Hit(Arc<Entry>),
    /// Wait for a fetch under way.
    Follow(Follower<E>),
    /// Have it fetched, for everyone who asks meanwhile.
    Lead(Leader<E>),
    /// Fetch for itself; nothing is stored or shared.
    Alone(Miss),
}

/// What a write changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Nobody knows: anything.
    Everything,
    /// What depends on these; on none of them, nothing.
    Tags(Vec<Tag>),
}

/// The cache's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Stored answers; follows the truth within a moment.
    pub entries: u64,
    /// What they weigh, in bytes; follows the truth within a moment.
    pub bytes: u64,
    /// Answers pushed out for want of room, since the start.
    pub evictions: u64,
    /// Shared fetches under way.
    pub fetches: usize,
    /// Marks of the fence.
    pub marks: usize,
    /// The fence's generation: how often a mark or the floor was raised, plus one.
    pub generation: u64,
    /// How often the fence's floor was raised, since the start.
    pub floor_moves: u64,
}

/// The cache. Cheap to clone. `E` is the error of a failed fetch, handed to everyone who waits.
pub struct Cache<E> {
    inner: Arc<Inner<E>>,
}

pub(crate) struct Inner<E> {
    store: Store,
    marks: Marks,
    flights: Arc<Flights<E>>,
    unauthorized: Mutex<Unauthorized>,
    largest_body: usize,
}

impl<E> Cache<E> {
    /// An empty cache within these bounds.
    pub fn new(spec: &Spec) -> Self {
        let inner = Inner {
            store: Store::new(spec.bytes),
            marks: Marks::new(spec.marks),
            flights: Arc::new(Flights::new(spec.fetches)),
            unauthorized: Mutex::new(Unauthorized::new(MAX_UNAUTHORIZED)),
            largest_body: spec.largest_body,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A stored answer that is fresh and believed, else why there is none. Takes no lock of ours
    /// while no write settles. For readers in [`Mode::Fresh`].
    pub fn lookup(&self, key: &Key, now: Instant) -> Result<Arc<Entry>, Miss> {
        let Some(entry) = self.inner.store.get(key) else {
            return Err(Miss::Absent);
        };
        if !entry.is_fresh(now) {
            return Err(Miss::Expired);
        }
        if !self.inner.marks.believes(&entry) {
            return Err(Miss::Fenced);
        }
        Ok(entry)
    }

    /// Decides what a reader has to do.
    pub fn board(&self, ask: &Ask<'_>, now: Instant) -> Board<E> {
        let why = match ask.mode {
            Mode::Reload => Miss::Reload,
            Mode::Fresh => match self.lookup(ask.key, now) {
                Ok(entry) => return Board::Hit(entry),
                Err(why) => why,
            },
        };
        let depends: Vec<_> = ask
            .tags
            .iter()
            .cloned()
            .map(Dependency::Tag)
            .chain(ask.key.dependencies())
            .collect();
        let boarded = self.inner.flights.board(ask.key, |current, free| {
            // What stood in the way of a hit may have ended since: a fetch stores its answer
            // and leaves the table in one step, so here it is seen in one place or the other.
            if current.is_none()
                && ask.mode == Mode::Fresh
                && let Ok(entry) = self.lookup(ask.key, now)
            {
                return Plan::Other(Board::Hit(entry));
            }
            let scene = decide::Scene {
                fence: &self.inner.marks.read(),
                depends: &depends,
                flight: current.as_ref().map(|current| current.stamp()),
                free,
                mode: ask.mode,
            };
            match (decide::seat(&scene, now), current) {
                (decide::Seat::Follow, Some(current)) => {
                    Plan::Other(Board::Follow(current.follow(why)))
                }
                (decide::Seat::Lead(stamp), _) => Plan::Lead(stamp),
                (decide::Seat::Alone(why), _) => Plan::Other(Board::Alone(why)),
                // A seat beside nobody: never given, and harmless.
                (decide::Seat::Follow, None) => Plan::Other(Board::Alone(why)),
            }
        });
        match boarded {
            Err(board) => board,
            Ok((ticket, stamp)) => Board::Lead(Leader {
                inner: Arc::clone(&self.inner),
                ticket,
                stamp,
                tags: ask.tags.to_vec(),
                ttl: ask.ttl,
                why,
            }),
        }
    }

    /// Whether a shared answer may be shown at this moment: a write may have settled since its
    /// fetch was joined.
    pub fn accepts(&self, entry: &Entry) -> bool {
        self.inner.marks.believes(entry)
    }

    /// A write ended, or will never be known to have: from the moment this returns, nothing that
    /// it touched is shown if its fetch began before. Until `settled` nothing it touched is
    /// stored or shared, because the API may lag. To be called before the write's caller hears.
    pub fn settle(&self, touched: &Touched, settled: Instant) {
        let marks = &self.inner.marks;
        match touched {
            Touched::Everything => marks.raise_floor(settled),
            Touched::Tags(tags) => marks.raise(tags.iter().cloned().map(Dependency::Tag), settled),
        }
    }

    /// The upstream answered this credential with 401: see [`unauthorized`]. To be called before
    /// the answer is handed on, whatever the request was.
    pub fn unauthorized(&self, credential: &CredentialHash, refused: Refused, now: Instant) {
        let doubt = self
            .inner
            .unauthorized
            .lock()
            .note(*credential, refused, now);
        let name = match doubt {
            Doubt::Operation(operation) => Dependency::Access(*credential, operation),
            Doubt::Credential => Dependency::Credential(*credential),
        };
        self.inner.marks.raise([name], now);
    }

    /// Forgets everything: nothing stored is shown from now on, and nothing whose fetch is under
    /// way.
    pub fn purge_all(&self, now: Instant) {
        // The floor first: it is the promise, the rest gives the memory back.
        self.inner.marks.raise_floor(now);
        self.inner.store.clear();
    }

    /// The cache's figures.
    pub fn stats(&self) -> Stats {
        // Before the fence is locked: elsewhere its lock is the inner one.
        let fetches = self.inner.flights.under_way();
        let fence = self.inner.marks.read();
        Stats {
            entries: self.inner.store.entries(),
            bytes: self.inner.store.bytes(),
            evictions: self.inner.store.evictions(),
            fetches,
            marks: fence.marks(),
            generation: fence.generation(),
            floor_moves: fence.floor_moves(),
        }
    }

    /// Carries out what the store has put off, so that [`Cache::stats`] is exact and memory is
    /// given back. Nobody here calls it: whoever asks for the figures does so before, and a timer
    /// may where nobody asks. Not on the path of a request.
    pub fn tidy(&self) {
        self.inner.store.tidy();
    }
}

impl<E> Inner<E> {
    fn store_if_believed(&self, key: Key, entry: Arc<Entry>, now: Instant) -> Result<(), Refusal> {
        if !self.marks.believes(&entry) {
            let settling = self.marks.read().settling(entry.depends(), now);
            return Err(if settling {
                Refusal::Settling
            } else {
                Refusal::Fenced
            });
        }
        if self.store.insert(key, entry) {
            Ok(())
        } else {
            Err(Refusal::TooLarge)
        }
    }
}

impl Key {
    /// What every answer under this key depends on besides its tags.
    fn dependencies(&self) -> [Dependency; 2] {
        let credential = self.credential();
        [
            Dependency::Credential(credential),
            Dependency::Access(credential, self.operation()),
        ]
    }
}

impl<E> Clone for Cache<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<E> std::fmt::Debug for Cache<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({:?})", self.inner.flights)
    }
}
