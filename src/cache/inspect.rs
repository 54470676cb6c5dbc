//! Inspection for operators: figures, the state of a key, and purges.
//!
//! The last two iterate over the whole store, which takes about a microsecond per response and
//! holds no lock meanwhile. None is on the path of a request.

use super::Cache;
use super::entry::Entry;
use super::fence::{Dependency, Tag};
use super::key::{CacheKey, CacheKeyHash, CredentialHash};
use super::reason::StoreRefusal;
use http::HeaderName;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The figures of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The number of stored responses. Lags behind changes for a moment.
    pub entries: u64,
    /// Their weight in bytes. Lags behind changes for a moment.
    pub bytes: u64,
    /// The number of evicted responses since the start.
    pub evictions: u64,
    /// The number of shared fetches that have not ended.
    pub fetches: usize,
    /// The number of marks of the fence.
    pub marks: usize,
    /// The generation of the fence: the number of raises, plus one.
    pub generation: u64,
    /// The number of times that the floor of the fence was raised, since the start.
    pub floor_moves: u64,
}

/// The responses that a purge invalidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// All responses.
    Everything,
    /// Responses that depend on this tag.
    Tag(Tag),
    /// All responses of this operation (its index in the route table).
    Operation(u32),
    /// All responses to this credential.
    Credential(CredentialHash),
    /// All variants under this key.
    Key(CacheKeyHash),
}

/// The state of one key.
#[derive(Clone, Debug)]
pub struct KeyState {
    /// The stored responses, one for each variant.
    pub stored: Vec<Stored>,
    /// The reason why a response was last rejected by the store, and how long ago.
    pub refused: Option<(StoreRefusal, Duration)>,
}

/// A stored response, as operators see it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The key under which the response is stored: that of its variant.
    pub key: Arc<CacheKey>,
    /// The response.
    pub entry: Arc<Entry>,
    /// Whether a write or a purge invalidated the response.
    pub fenced: bool,
}

impl Stored {
    /// Returns the tags on which the response depends.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let depends = self.entry.depends().iter();
        depends.filter_map(|name| match name {
            Dependency::Tag(tag) => Some(tag.as_str()),
            _ => None,
        })
    }

    /// Returns whether any write invalidates the response.
    pub fn any_write(&self) -> bool {
        self.entry.depends().contains(&Dependency::AnyWrite)
    }

    /// Returns the request fields by which the response was chosen.
    pub fn varies_by(&self) -> &[HeaderName] {
        let variance = self.entry.variance();
        variance.map_or(&[], |variance| &variance.fields)
    }
}

impl Cache {
    /// Returns the present figures.
    pub fn stats(&self) -> Stats {
        // Read before the fence is locked, because elsewhere its lock is the inner one.
        let fetches = self.flights.count();
        let fence = self.responses.marks.read();
        Stats {
            entries: self.responses.store.entries(),
            bytes: self.responses.store.bytes(),
            evictions: self.responses.store.evictions(),
            fetches,
            marks: fence.marks(),
            generation: fence.generation(),
            floor_moves: fence.floor_moves(),
        }
    }

    /// Runs the pending maintenance of the store, so that [`Cache::stats`] is exact and memory is
    /// freed. The cache never calls it: a caller that needs exact figures does, or a timer. Not for
    /// the path of a request.
    pub fn tidy(&self) {
        self.responses.store.tidy();
    }

    /// Invalidates what `what` names and returns the number of stored responses removed. Once this
    /// returns, none of them is served, and neither is the response of a fetch that was in flight.
    pub fn purge(&self, what: &Purge, now: Instant) -> u64 {
        // The mark comes first, because it alone keeps the promise. Removing entries only frees
        // memory and counts.
        let mark = match what {
            Purge::Everything => None,
            Purge::Tag(tag) => Some(Dependency::Tag(tag.clone())),
            Purge::Operation(operation) => Some(Dependency::Operation(*operation)),
            Purge::Credential(credential) => Some(Dependency::Credential(*credential)),
            Purge::Key(key) => Some(Dependency::Key(*key)),
        };
        let Some(mark) = mark else {
            self.responses.marks.raise_floor(now);
            let count = self.responses.store.answers().count() as u64;
            self.responses.store.clear();
            return count;
        };
        self.responses.marks.raise([mark.clone()], now);
        let mut count = 0;
        for (key, entry) in self.responses.store.answers() {
            // A response that was fetched after the mark rose is valid and stays.
            if entry.depends().contains(&mark) && !self.responses.marks.believes(&entry) {
                self.responses.store.remove(&key);
                count += 1;
            }
        }
        count
    }

    /// The credentials of stored responses, once for each response.
    pub fn credentials(&self) -> impl Iterator<Item = CredentialHash> + '_ {
        self.responses
            .store
            .answers()
            .map(|(key, _)| key.credential())
    }

    /// Returns the state of a key.
    pub fn state(&self, key: CacheKeyHash, now: Instant) -> KeyState {
        let stored = self
            .responses
            .store
            .answers()
            .filter(|(_, entry)| entry.key() == key)
            .map(|(key, entry)| Stored {
                fenced: !self.responses.marks.believes(&entry),
                key,
                entry,
            })
            .collect();
        let refused = self.responses.refused(key);
        KeyState {
            stored,
            refused: refused.map(|(why, at)| (why, now.saturating_duration_since(at))),
        }
    }
}
