//! How the cache dealt with a request, in the words of `Cache-Status`, metrics and log alike.

use crate::cache::cache_status::{self, Forwarded, Kept};
use crate::cache::leader::Landed;
use crate::cache::reason::{Bypass, Miss};
use http::HeaderValue;

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

    /// Fetched for this request, because of `why`.
    pub fn fetched(why: Miss, landed: &Landed) -> Self {
        let kept = match landed.stored {
            Ok(()) => Kept::Stored,
            Err(refusal) => Kept::NotStored(Some(refusal.as_str())),
        };
        Self::forwarded(why, kept)
    }

    /// Fetched for another request and shared.
    pub fn joined(why: Miss) -> Self {
        Self::forwarded(why, Kept::Collapsed)
    }

    /// Fetched for this request alone.
    pub fn alone(why: Miss) -> Self {
        Self::forwarded(why, Kept::NotStored(None))
    }

    /// Not a matter for the cache.
    pub fn bypass(why: Bypass) -> Self {
        Self::alone(Miss::Bypass(why))
    }

    /// The answers of this operation are not cached.
    pub fn uncached() -> Self {
        Self::bypass(Bypass::Uncached)
    }

    /// A write.
    pub fn write() -> Self {
        Self::bypass(Bypass::Method)
    }

    fn forwarded(why: Miss, kept: Kept) -> Self {
        Self {
            value: Some(cache_status::forwarded(&Forwarded {
                why,
                status: None,
                kept,
            })),
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

    /// `hit`, `miss` or `bypass`.
    pub fn result(&self) -> &'static str {
        self.result
    }

    /// Why.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}
