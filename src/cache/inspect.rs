//! Inspection for operators: the state of a key, and purges.
//!
//! Both iterate over the whole store, which takes about a microsecond per response and holds no
//! lock meanwhile. Neither is on the path of a request.

use super::fence::Dependency;
use super::key::{CredentialHash, KeyHash};
use super::reason::StoreRefusal;
use super::{Cache, Purge};
use http::StatusCode;
use std::time::{Duration, Instant};

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
    /// The status.
    pub status: StatusCode,
    /// The credential to which the response belongs.
    pub credential: CredentialHash,
    /// The operation, as an index in the route table.
    pub operation: u32,
    /// The age.
    pub age: Duration,
    /// The remaining freshness.
    pub fresh_for: Duration,
    /// How long the response has been stale.
    pub stale_for: Duration,
    /// Whether a write or a purge invalidated the response.
    pub fenced: bool,
    /// The generation of the fence at which the fetch began.
    pub generation: u64,
    /// The tags on which the response depends.
    pub tags: Vec<String>,
    /// Whether any write invalidates the response.
    pub any_write: bool,
    /// The request fields by which the response was chosen.
    pub varies_by: Vec<String>,
    /// The memory that the response takes in bytes, without its key.
    pub bytes: usize,
    /// The number of times that the response was served.
    pub shown: u32,
}

impl Cache {
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
    pub fn state(&self, key: KeyHash, now: Instant) -> KeyState {
        let stored = self
            .responses
            .store
            .answers()
            .filter(|(_, entry)| entry.key() == key)
            .map(|(stored_under, entry)| {
                let tags = entry.depends().iter().filter_map(|name| match name {
                    Dependency::Tag(tag) => Some(tag.to_string()),
                    _ => None,
                });
                let fields = entry.variance().map(|variance| variance.fields.iter());
                Stored {
                    status: entry.status(),
                    credential: stored_under.credential(),
                    operation: stored_under.operation(),
                    age: entry.age(now),
                    fresh_for: entry.remaining(now),
                    stale_for: entry.stale_for(now),
                    fenced: !self.responses.marks.believes(&entry),
                    generation: entry.stamp().generation(),
                    tags: tags.collect(),
                    any_write: entry.depends().contains(&Dependency::AnyWrite),
                    varies_by: fields
                        .into_iter()
                        .flatten()
                        .map(ToString::to_string)
                        .collect(),
                    bytes: entry.weight_bytes(),
                    shown: entry.shown(),
                }
            })
            .collect();
        let refused = self.responses.refused(key);
        KeyState {
            stored,
            refused: refused.map(|(why, at)| (why, now.saturating_duration_since(at))),
        }
    }
}
