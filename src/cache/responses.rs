//! The stored responses together with the fence that judges them.
//!
//! Promises that a response is shown only while the fence finds it valid, and that an older
//! response never takes the place of a newer one. Fetches are not known here: a
//! [`Leader`](super::leader::Leader) stores through this module, and decides what it stores.
//!
//! The store keeps bytes, the marks judge writes, [`reuse`] judges ages. What else is remembered
//! about responses stands here too: why one was not stored, and which operations returned a
//! response that could not be shared.

use super::entry::Entry;
use super::key::{CacheKey, CacheKeyHash};
use super::marks::Marks;
use super::reason::{Miss, StoreRefusal};
use super::refusals::StoreRefusals;
use super::request::Wants;
use super::reuse::{self, Freshness, Need};
use super::store::{Store, StoredValue};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// The largest number of remembered rejections, about 100 bytes each.
const MAX_REFUSALS: usize = 10_000;

/// The result of a lookup in the store.
#[derive(Clone, Debug)]
pub enum Found {
    /// A response that can be served.
    Shown(Arc<Entry>, Freshness),
    /// The reason to send a request to the API, and the stored response if it is valid but cannot
    /// be served yet. It may be served if the request fails.
    Not(Miss, Option<Arc<Entry>>),
}

/// Stored responses, and what is known about others.
pub(super) struct Responses {
    pub store: Store,
    pub marks: Marks,
    pub refusals: Mutex<StoreRefusals>,
    /// Operations without a time to live whose latest response could not be shared. Each reader
    /// fetches for itself from these, so that no reader waits for a response that belongs to
    /// another. Readers of all other operations wait for one fetch.
    pub unshared: Mutex<HashSet<u32>>,
    /// The largest body that is stored or shared, in bytes.
    pub largest_body: usize,
}

impl Responses {
    /// Creates an empty store of this many bytes, with a fence of this many marks.
    pub fn new(bytes: u64, marks: usize, largest_body: usize) -> Self {
        Self {
            store: Store::new(bytes),
            marks: Marks::new(marks),
            refusals: Mutex::new(StoreRefusals::new(MAX_REFUSALS)),
            unshared: Mutex::default(),
            largest_body,
        }
    }

    /// Returns a fresh response that every request with this key may get.
    pub fn lookup(&self, key: &CacheKey, now: Instant) -> Option<Arc<Entry>> {
        match self.store.get(key) {
            Some(StoredValue::Answer(entry))
                if entry.is_fresh(now) && entry.variance().is_none() =>
            {
                self.marks.believes(&entry).then_some(entry)
            }
            _ => None,
        }
    }

    /// Looks up a response under `key` that meets the requirements. `absent` is the reason if there
    /// is none.
    pub fn find(&self, key: &CacheKey, wants: &Wants, absent: Miss, now: Instant) -> Found {
        let Some(StoredValue::Answer(entry)) = self.store.get(key) else {
            return Found::Not(absent, None);
        };
        // The fence first: an invalid response must not even stand in for a failure.
        if !self.marks.believes(&entry) {
            return Found::Not(Miss::Fenced, None);
        }
        match reuse::judge(entry.life(), entry.age(now), wants) {
            Ok(how) => Found::Shown(entry, how),
            Err(why) => Found::Not(why, Some(entry)),
        }
    }

    /// Returns whether a stale response may be served now for the reason `need`.
    pub fn may_stand_in(&self, entry: &Entry, wants: &Wants, need: Need, now: Instant) -> bool {
        reuse::may_stand_in(entry.life(), entry.age(now), wants, need) && self.marks.believes(entry)
    }

    /// Returns the stored response under a key, if it can be validated or may be served when the
    /// API fails.
    pub fn comparable(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        let Some(StoredValue::Answer(entry)) = self.store.get(key) else {
            return None;
        };
        self.is_comparable(&entry).then_some(entry)
    }

    /// Returns whether a 304 can confirm an entry. After a write that invalidated it, only a tag
    /// that promises equal bytes can.
    pub fn is_comparable(&self, entry: &Entry) -> bool {
        let is_strong = || entry.validators().is_some_and(|own| own.is_strong());
        self.marks.believes(entry) || is_strong()
    }

    /// Records whether the response to a fetch was stored. `Ok` says whether it could be shared.
    pub fn note(&self, key: &CacheKey, stored: Result<bool, StoreRefusal>, now: Instant) {
        let operation = key.operation();
        match stored {
            Ok(true) => drop(self.unshared.lock().remove(&operation)),
            Ok(false) => drop(self.unshared.lock().insert(operation)),
            Err(why) => {
                if why.is_of_the_answer() {
                    self.unshared.lock().insert(operation);
                }
                self.refusals.lock().note(key.hash(), why, now);
            }
        }
    }

    /// Returns why the store last rejected a response under this key, and when.
    pub fn refused(&self, key: CacheKeyHash) -> Option<(StoreRefusal, Instant)> {
        self.refusals.lock().of(key)
    }

    /// Removes the stored response under a key if its fetch began before `began`.
    pub fn end_older(&self, key: &CacheKey, began: Instant) {
        if let Some(StoredValue::Answer(entry)) = self.store.get(key)
            && entry.stamp().at() < began
        {
            self.store.remove(key);
        }
    }

    /// Stores a response if it is valid and none from a later fetch is stored.
    ///
    /// # Errors
    /// With the reason why it is not stored.
    pub fn store_if_believed(
        &self,
        primary: &CacheKey,
        entry: &Arc<Entry>,
        now: Instant,
    ) -> Result<(), StoreRefusal> {
        if !self.marks.believes(entry) {
            let settling = self.marks.read().settling(entry.depends(), now);
            return Err(if settling {
                StoreRefusal::Settling
            } else {
                StoreRefusal::Fenced
            });
        }
        let key = match entry.variance() {
            None => primary.clone(),
            Some(variance) => {
                let fields = Arc::clone(&variance.fields);
                // The fields come first: a lookup finds the variant only through them.
                if !self
                    .store
                    .insert(primary.clone(), StoredValue::Varies(fields))
                {
                    return Err(StoreRefusal::TooLarge);
                }
                primary.variant(&variance.fields, &variance.selection)
            }
        };
        // A fetch that began later may have stored its response first.
        let newer = |slot: StoredValue| matches!(slot, StoredValue::Answer(old) if old.stamp() > entry.stamp());
        if self.store.get(&key).is_some_and(newer) {
            return Err(StoreRefusal::Superseded);
        }
        if self
            .store
            .insert(key, StoredValue::Answer(Arc::clone(entry)))
        {
            Ok(())
        } else {
            Err(StoreRefusal::TooLarge)
        }
    }
}
