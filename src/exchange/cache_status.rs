//! How the cache dealt with a request, in the words of `Cache-Status`, metrics and log alike.

use crate::cache::cache_status::{self, Forwarded, Kept, Stale};
use crate::cache::key::KeyHash;
use crate::cache::leader::Landed;
use crate::cache::reason::{Bypass, Miss};
use http::{HeaderValue, StatusCode};

/// What the cache had to do with an answer.
#[derive(Clone, Debug)]
pub struct CacheStatus {
    /// `None` for a hit, whose header has it already.
    value: Option<HeaderValue>,
    result: &'static str,
    reason: &'static str,
}

impl CacheStatus {
    /// From the store; the field stands in the answer's header already.
    pub fn hit() -> Self {
        Self {
            value: None,
            result: "hit",
            reason: "fresh",
        }
    }

    /// From the store, although it is stale.
    pub fn stale(stale: &Stale) -> Self {
        Self {
            value: Some(cache_status::stale(stale)),
            result: "stale",
            reason: stale.need.as_str(),
        }
    }

    /// Fetched for this request, because of `why`. `status` is the API's, where the reader sees
    /// another.
    pub fn fetched(why: Miss, key: KeyHash, landed: &Landed, status: Option<StatusCode>) -> Self {
        let kept = match landed.stored {
            Ok(()) => Kept::Stored,
            Err(refusal) => Kept::NotStored(Some(refusal.as_str())),
        };
        Self::forwarded(Forwarded {
            why,
            status,
            kept,
            key: Some(key),
        })
    }

    /// Fetched for another request and shared.
    pub fn joined(why: Miss, key: KeyHash) -> Self {
        Self::forwarded(Forwarded {
            why,
            status: None,
            kept: Kept::Collapsed,
            key: Some(key),
        })
    }

    /// Fetched for this request alone.
    pub fn alone(why: Miss, key: Option<KeyHash>) -> Self {
        Self::forwarded(Forwarded {
            why,
            status: None,
            kept: Kept::NotStored(None),
            key,
        })
    }

    /// Not a matter for the cache.
    pub fn bypass(why: Bypass) -> Self {
        Self::alone(Miss::Bypass(why), None)
    }

    /// A write.
    pub fn write() -> Self {
        Self::bypass(Bypass::Method)
    }

    fn forwarded(forwarded: Forwarded) -> Self {
        let why = forwarded.why;
        Self {
            value: Some(cache_status::forwarded(&forwarded)),
            result: if matches!(why, Miss::Bypass(_)) {
                "bypass"
            } else {
                "miss"
            },
            reason: why.as_str(),
        }
    }

    /// The field's value (RFC 9211), unless the answer's header has it already.
    pub fn value(&self) -> Option<HeaderValue> {
        self.value.clone()
    }

    /// `hit`, `stale`, `miss` or `bypass`.
    pub fn result(&self) -> &'static str {
        self.result
    }

    /// Why.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}
