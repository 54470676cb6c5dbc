//! The result of the cache for a request, in the same words for `Cache-Status`, metrics and log.

use crate::cache::cache_status::{self, Forwarded, Kept, Stale};
use crate::cache::key::KeyHash;
use crate::cache::leader::Completed;
use crate::cache::reason::{Bypass, Miss};
use http::{HeaderValue, StatusCode};

/// The result of the cache for one response.
#[derive(Clone, Debug)]
pub struct CacheStatus {
    /// `None` for a hit, whose headers contain it already.
    value: Option<HeaderValue>,
    result: &'static str,
    reason: &'static str,
}

impl CacheStatus {
    /// A hit. Its stored headers contain the field already.
    pub fn hit() -> Self {
        Self {
            value: None,
            result: "hit",
            reason: "fresh",
        }
    }

    /// A stale response from the store.
    pub fn stale(stale: &Stale) -> Self {
        Self {
            value: Some(cache_status::stale(stale)),
            result: "stale",
            reason: stale.need.as_str(),
        }
    }

    /// A response fetched for this request, because of `why`. `status` is the API's, if the reader
    /// gets another.
    pub fn fetched(
        why: Miss,
        key: KeyHash,
        completed: &Completed,
        status: Option<StatusCode>,
    ) -> Self {
        let kept = match completed.stored {
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

    /// A response fetched for another request and shared.
    pub fn joined(why: Miss, key: KeyHash) -> Self {
        Self::forwarded(Forwarded {
            why,
            status: None,
            kept: Kept::Collapsed,
            key: Some(key),
        })
    }

    /// A response fetched for this request alone.
    pub fn alone(why: Miss, key: Option<KeyHash>) -> Self {
        Self::forwarded(Forwarded {
            why,
            status: None,
            kept: Kept::NotStored(None),
            key,
        })
    }

    /// A request that is not cacheable.
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

    /// Returns the value of the field (RFC 9211), or `None` if the response's headers contain it.
    pub fn value(&self) -> Option<HeaderValue> {
        self.value.clone()
    }

    /// Returns `hit`, `stale`, `miss` or `bypass`.
    pub fn result(&self) -> &'static str {
        self.result
    }

    /// Returns the reason of the result.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}
