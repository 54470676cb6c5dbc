//! Pure. The plan of a read: what happens to it, from what it asks for and what is stored.
//!
//! There is one plan for three users. [`serve`](super::serve) carries all of it out, the gateway's
//! fast path only a fresh hit, and shadow mode reports it. So they cannot disagree about what the
//! cache does with a read.
//!
//! Promises that a response from the store is served only if the reader accepts it as it is, that
//! `only-if-cached` never reaches the API (RFC 9111, section 5.2.1.7), and that a stale response is
//! preferred to waiting for a budget where that is permitted.
//!
//! Whether a reader joins a fetch or leads one depends on the fetches in flight, and is decided
//! while their table is locked, in [`decide`](crate::cache::decide), which is pure as well. Whether
//! a response is valid and fresh is decided before, in [`fence`](crate::cache::fence) and
//! [`reuse`](crate::cache::reuse).

use crate::cache::entry::Entry;
use crate::cache::reason::{Bypass, Miss};
use crate::cache::reuse::{Freshness, Need};
use std::sync::Arc;
use std::time::Instant;

/// The facts about a read on which its plan depends.
#[derive(Debug)]
pub enum ReadFacts {
    /// The request is not cacheable.
    Uncacheable(Bypass),
    /// The store has a valid response that the reader accepts.
    Stored {
        /// The response.
        entry: Arc<Entry>,
        /// Whether it is fresh, or the reason why it may be served stale.
        freshness: Freshness,
        /// Whether it is read often and will soon be stale.
        is_due: bool,
        /// Whether it would have to be decoded for the reader although that is forbidden.
        must_not_decode: bool,
    },
    /// The store has no response that the reader accepts.
    Missing {
        /// The reason to bypass the cache as long as nothing is stored: the reader wants less than
        /// the whole response.
        asks_for_less: Option<Bypass>,
        /// Whether the operation has a time to live. Without one, the whole might not be stored.
        has_ttl: bool,
        /// A valid response that must be validated before the reader may get it.
        stale: Option<Arc<Entry>>,
        /// Whether the reader may get it nevertheless if the budget is exhausted.
        may_stand_in: bool,
    },
}

impl ReadFacts {
    /// Returns the facts if the store has this fresh response, and the reader requires nothing.
    pub fn fresh(entry: Arc<Entry>, now: Instant) -> Self {
        Self::Stored {
            freshness: Freshness::Fresh,
            is_due: entry.is_due(now),
            must_not_decode: false,
            entry,
        }
    }
}

/// A stored response that is served.
#[derive(Debug)]
pub struct StoredServing {
    /// The response.
    pub entry: Arc<Entry>,
    /// Whether it is fresh, or the reason why it is served stale.
    pub freshness: Freshness,
    /// Whether a newer one is fetched in the background, if a refresh may start.
    pub renew: bool,
}

/// What happens to a read.
#[derive(Debug)]
pub enum ReadPlan {
    /// It is answered from the store.
    Serve(StoredServing),
    /// It joins the fetch of its key, or leads one.
    JoinOrLead {
        /// The response to serve if the fetch fails, as far as that is permitted.
        stale: Option<Arc<Entry>>,
        /// Whether that response is better than waiting for the budget.
        may_stand_in: bool,
    },
    /// It asks the API for itself alone, as cacheable as it is.
    Alone(Miss),
    /// It bypasses the cache.
    PassThrough(Bypass),
    /// It is rejected: it accepts only a stored response, and there is none.
    NotCached,
}

/// Returns the plan of a read. `must_wait` says whether a request to the API would be queued now.
/// It is asked last, and only if a stale response could be served instead.
pub fn plan(facts: ReadFacts, only_if_cached: bool, must_wait: impl FnOnce() -> bool) -> ReadPlan {
    match facts {
        ReadFacts::Stored {
            entry,
            freshness,
            is_due,
            must_not_decode: false,
        } => ReadPlan::Serve(StoredServing {
            entry,
            freshness,
            renew: match freshness {
                Freshness::Fresh => is_due,
                // A reader that accepts any stale response causes no refresh.
                Freshness::Stale(need) => need == Need::WhileRevalidate,
            },
        }),
        // Everything below needs the API.
        _ if only_if_cached => ReadPlan::NotCached,
        ReadFacts::Uncacheable(why) => ReadPlan::PassThrough(why),
        // The reader needs the original bytes. The API has them in a coding that it accepts.
        ReadFacts::Stored { .. } => ReadPlan::Alone(Miss::NotShared),
        ReadFacts::Missing {
            asks_for_less: Some(less),
            has_ttl: false,
            stale: None,
            ..
        } => ReadPlan::PassThrough(less),
        ReadFacts::Missing {
            stale: Some(entry),
            may_stand_in: true,
            ..
        } if must_wait() => ReadPlan::Serve(StoredServing {
            entry,
            freshness: Freshness::Stale(Need::IfLimited),
            renew: true,
        }),
        ReadFacts::Missing {
            stale,
            may_stand_in,
            ..
        } => ReadPlan::JoinOrLead {
            stale,
            may_stand_in,
        },
    }
}

#[cfg(test)]
mod tests;
