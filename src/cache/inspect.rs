//! What operators ask of the cache: what stands under a key, and that something be forgotten.
//!
//! Both look through the whole store, which takes its time (about a microsecond for each answer)
//! and holds no lock meanwhile. Not on the path of a request.

use super::fence::{CredentialHash, Dependency};
use super::key::KeyHash;
use super::reason::Refusal;
use super::{Cache, Purge};
use http::StatusCode;
use std::time::{Duration, Instant};

/// What is known of one key.
#[derive(Clone, Debug)]
pub struct State {
    /// The answers under it, one for each variant.
    pub stored: Vec<Stored>,
    /// Why the latest answer that was not stored was not, and how long ago that was.
    pub refused: Option<(Refusal, Duration)>,
}

/// A stored answer, as operators see it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its status.
    pub status: StatusCode,
    /// Whose answer it is.
    pub credential: CredentialHash,
    /// The operation, by its index in the route table.
    pub operation: u32,
    /// Its age.
    pub age: Duration,
    /// How much longer it is fresh.
    pub fresh_for: Duration,
    /// For how long it has been stale.
    pub stale_for: Duration,
    /// Whether a write, or a purge, has made it unbelievable.
    pub fenced: bool,
    /// The generation of the fence in which its fetch began.
    pub generation: u64,
    /// The tags that it depends on.
    pub tags: Vec<String>,
    /// Whether any write makes it unbelievable.
    pub any_write: bool,
    /// The request fields that it was chosen by.
    pub varies_by: Vec<String>,
    /// What it weighs, in bytes, its key not included.
    pub bytes: usize,
    /// How often it was shown.
    pub shown: u32,
}

impl<E> Cache<E> {
    /// Forgets what is meant: from the moment this returns it is not shown any more, and neither
    /// is what was being fetched. Says how many stored answers that were.
    pub fn purge(&self, what: &Purge, now: Instant) -> u64 {
        let inner = &self.inner;
        // The marks first: they are the promise, the rest counts and gives the memory back.
        let mark = match what {
            Purge::Everything => None,
            Purge::Tag(tag) => Some(Dependency::Tag(tag.clone())),
            Purge::Operation(operation) => Some(Dependency::Operation(*operation)),
            Purge::Credential(credential) => Some(Dependency::Credential(*credential)),
            Purge::Key(key) => Some(Dependency::Key(*key)),
        };
        let Some(mark) = mark else {
            inner.marks.raise_floor(now);
            let count = inner.store.answers().count() as u64;
            inner.store.clear();
            return count;
        };
        inner.marks.raise([mark.clone()], now);
        let mut count = 0;
        for (key, entry) in inner.store.answers() {
            // One that was fetched after the mark is not meant.
            if entry.depends().contains(&mark) && !inner.marks.believes(&entry) {
                inner.store.remove(&key);
                count += 1;
            }
        }
        count
    }

    /// The credentials of stored answers, as often as they have some.
    pub fn credentials(&self) -> impl Iterator<Item = CredentialHash> + '_ {
        self.inner.store.answers().map(|(key, _)| key.credential())
    }

    /// What is known of a key.
    pub fn state(&self, key: KeyHash, now: Instant) -> State {
        let inner = &self.inner;
        let stored = inner
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
                    fenced: !inner.marks.believes(&entry),
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
        let refused = inner.refusals.lock().of(key);
        State {
            stored,
            refused: refused.map(|(why, at)| (why, now.saturating_duration_since(at))),
        }
    }
}
