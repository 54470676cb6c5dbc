//! The store: responses by key, within a bound on bytes.
//!
//! Promises the bound on memory and nothing else. Other modules judge freshness and validity, at
//! instants that they pass. The map's own expiry is not used, because tests cannot replace its
//! clock. Neither are its predicates for invalidation, because they miss some matching entries. So
//! nothing expires here, and no request causes a scan. A dead entry stays until the next response
//! under its key overwrites it, or until it is evicted.
//!
//! A key leads to a response. Where responses vary, it leads to the request fields that choose
//! among them, and each variant has a key of its own.
//!
//! The least recently used entry is evicted first. A policy that favours frequent use would keep
//! dead entries that once were popular, and reject fresh ones.

use super::entry::Entry;
use super::key::CacheKey;
use foldhash::quality::RandomState;
use http::HeaderName;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Map;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The memory of a list of fields in bytes, without the names.
const FIELDS_BYTES: usize = 256;

/// The value of a key.
#[derive(Clone, Debug)]
pub(super) enum StoredValue {
    /// A response.
    Answer(Arc<Entry>),
    /// The fields that choose among the responses under this key.
    Varies(Arc<[HeaderName]>),
}

/// Responses by key. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Store {
    map: Map<CacheKey, StoredValue, RandomState>,
    capacity: u64,
    evictions: Arc<AtomicU64>,
}

impl Store {
    /// Creates a store of about this many bytes. Excess entries are evicted soon, not immediately.
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
            // Every hit hashes a long key, so the hash must be fast. Its seed is random: a client
            // that sees neither hashes nor lookup times cannot choose paths that collide. Besides,
            // only keys to which the API has responded are stored.
            .build_with_hasher(RandomState::default());
        Self {
            map,
            capacity: capacity_bytes,
            evictions,
        }
    }

    pub(super) fn get(&self, key: &CacheKey) -> Option<StoredValue> {
        self.map.get(key)
    }

    /// Stores a value in place of an older one. Returns `false` if the value is larger than the
    /// whole store.
    pub(super) fn insert(&self, key: CacheKey, slot: StoredValue) -> bool {
        // The map would accept the value, evict it immediately, and count it in between.
        if u64::from(weight(&key, &slot)) > self.capacity {
            return false;
        }
        self.map.insert(key, slot);
        true
    }

    pub(super) fn remove(&self, key: &CacheKey) {
        self.map.invalidate(key);
    }

    pub(super) fn clear(&self) {
        self.map.invalidate_all();
    }

    /// Iterates over all responses. Slow, but holds no lock in between.
    pub(super) fn answers(&self) -> impl Iterator<Item = (Arc<CacheKey>, Arc<Entry>)> + '_ {
        self.map.iter().filter_map(|(key, slot)| match slot {
            StoredValue::Answer(entry) => Some((key, entry)),
            StoredValue::Varies(_) => None,
        })
    }

    /// The number of responses and lists of fields. Lags behind changes for a moment.
    pub(super) fn entries(&self) -> u64 {
        self.map.entry_count()
    }

    /// The weight of the contents in bytes. Lags behind changes for a moment.
    pub(super) fn bytes(&self) -> u64 {
        self.map.weighted_size()
    }

    /// The number of evicted values.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Runs the map's pending maintenance, so that the counts are exact.
    pub(super) fn tidy(&self) {
        self.map.run_pending_tasks();
    }
}

fn weight(key: &CacheKey, slot: &StoredValue) -> u32 {
    let bytes = match slot {
        StoredValue::Answer(entry) => entry.weight_bytes(),
        StoredValue::Varies(fields) => {
            let names = fields.iter().map(|name| name.as_str().len() + 32);
            FIELDS_BYTES + names.sum::<usize>()
        }
    };
    // No value comes near 4 GiB. If one did, it would not fit into the store.
    u32::try_from(bytes + key.len_bytes()).unwrap_or(u32::MAX)
}
