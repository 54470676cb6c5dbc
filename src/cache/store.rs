//! The store: answers by key, within a number of bytes.
//!
//! Promises a bound on memory and nothing else. Freshness and belief are judged by others, with
//! instants they are given: the map's own clock cannot be replaced in a test, and its predicates
//! of invalidation miss some of what they match. So nothing here expires and nothing is scanned on
//! the path of a request; what is dead is overwritten by the next answer under its key, or pushed
//! out.
//!
//! Under a key stands an answer, or, where answers vary, which request fields choose among them:
//! those stand under keys of their own.
//!
//! The least recently used goes first. A policy that prefers what was often used would keep dead
//! entries that once were popular and turn fresh ones away.

use super::entry::Entry;
use super::key::Key;
use foldhash::quality::RandomState;
use http::HeaderName;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Map;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a list of fields takes in the store besides their names, in bytes.
const FIELDS_BYTES: usize = 256;

/// What stands under a key.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// An answer.
    Answer(Arc<Entry>),
    /// The fields by which the answers under this key were chosen.
    Varies(Arc<[HeaderName]>),
}

/// Answers by key. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Store {
    map: Map<Key, Slot, RandomState>,
    capacity: u64,
    evictions: Arc<AtomicU64>,
}

impl Store {
    /// Holds at most about this many bytes; what exceeds it is pushed out soon, not at once.
    pub(super) fn new(capacity_bytes: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&evictions);
        let map = Map::builder()
            .max_capacity(capacity_bytes)
            .weigher(weight)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            // A key is looked up for every hit and is long. Its hash is quick and seeded by chance:
            // who does not see hashes or time look-ups cannot choose paths that meet in one place,
            // and what is stored at all has been answered by the API.
            .build_with_hasher(RandomState::default());
        Self {
            map,
            capacity: capacity_bytes,
            evictions,
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Slot> {
        self.map.get(key)
    }

    /// Stores what it is given in place of what is older; `false` if it is larger than the whole
    /// store.
    pub(super) fn insert(&self, key: Key, slot: Slot) -> bool {
        // The map would take it in and push it out again, and count it in between.
        if u64::from(weight(&key, &slot)) > self.capacity {
            return false;
        }
        self.map.insert(key, slot);
        true
    }

    pub(super) fn remove(&self, key: &Key) {
        self.map.invalidate(key);
    }

    pub(super) fn clear(&self) {
        self.map.invalidate_all();
    }

    /// All answers, one after the other. It takes its time, and no lock over it.
    pub(super) fn answers(&self) -> impl Iterator<Item = (Arc<Key>, Arc<Entry>)> + '_ {
        self.map.iter().filter_map(|(key, slot)| match slot {
            Slot::Answer(entry) => Some((key, entry)),
            Slot::Varies(_) => None,
        })
    }

    /// How many answers are held, and lists of fields; follows the truth within a moment.
    pub(super) fn entries(&self) -> u64 {
        self.map.entry_count()
    }

    /// How many bytes they weigh; follows the truth within a moment.
    pub(super) fn bytes(&self) -> u64 {
        self.map.weighted_size()
    }

    /// How many were pushed out for want of room.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Does at once what the map otherwise does along the way, so that the counts are exact.
    pub(super) fn tidy(&self) {
        self.map.run_pending_tasks();
    }
}

fn weight(key: &Key, slot: &Slot) -> u32 {
    let bytes = match slot {
        Slot::Answer(entry) => entry.weight_bytes(),
        Slot::Varies(fields) => {
            let names = fields.iter().map(|name| name.as_str().len() + 32);
            FIELDS_BYTES + names.sum::<usize>()
        }
    };
    // Neither comes near 4 GiB; if one did, it would not fit.
    u32::try_from(bytes + key.len_bytes()).unwrap_or(u32::MAX)
}
