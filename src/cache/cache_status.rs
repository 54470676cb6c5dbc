//! Pure. The `Cache-Status` field (RFC 9211), which tells a client how the cache handled its
//! request.
//!
//! Renders one list member, named `segment-gateway`. The members of upstream caches stay before it.
//! This module renders decisions and makes none.

use super::key::CacheKeyHash;
use super::reason::{Bypass, Miss, StoreRefusal};
use super::reuse::Need;
use http::header::HeaderName;
use http::{HeaderValue, StatusCode};
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

/// The name of the field.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The name of this cache in the field (RFC 9211, section 2).
const NAME: &str = "segment-gateway";

/// The request to the API before a stale response was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiAttempt {
    /// There was none.
    None,
    /// It got no response.
    Unanswered,
    /// It failed with this status.
    Failed(StatusCode),
}

/// A stale response that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The reason why a stale response was served.
    pub need: Need,
    /// How long the response has been stale.
    pub by: Duration,
    /// The request to the API that was tried first, if any.
    pub tried: ApiAttempt,
    /// The key of the response.
    pub key: CacheKeyHash,
}

/// The result of the cache for one response, in the same words for `Cache-Status`, metrics and log.
#[derive(Clone, Debug)]
pub struct CacheStatus {
    /// `None` for a hit, whose headers contain it already.
    value: Option<HeaderValue>,
    /// `hit`, `stale`, `miss` or `bypass`.
    result: &'static str,
    /// The gateway's own word for why.
    reason: &'static str,
}

impl CacheStatus {
    /// Returns the status of a hit. Its stored headers contain the field already.
    pub fn hit() -> Self {
        Self {
            value: None,
            result: "hit",
            reason: "fresh",
        }
    }

    /// Returns the status of a stale response from the store.
    pub fn stale(served: &Stale) -> Self {
        Self {
            value: Some(stale(served)),
            result: "stale",
            reason: served.need.as_str(),
        }
    }

    /// Returns the status of a response fetched for this request, because of `why`. `status` is the
    /// API's, if the reader gets another.
    pub fn fetched(
        why: Miss,
        key: CacheKeyHash,
        stored: Result<(), StoreRefusal>,
        status: Option<StatusCode>,
    ) -> Self {
        let (kept, refusal) = match stored {
            Ok(()) => (Some("stored"), None),
            Err(refusal) => (None, Some(refusal.as_str())),
        };
        Self::forwarded(why, status, kept, refusal, Some(key))
    }

    /// Returns the status of a response fetched for another request and shared (RFC 9211, section
    /// 2.6).
    pub fn joined(why: Miss, key: CacheKeyHash) -> Self {
        Self::forwarded(why, None, Some("collapsed"), None, Some(key))
    }

    /// Returns the status of a response fetched for this request alone: neither stored nor shared.
    /// `key` is its key, if it has one.
    pub fn alone(why: Miss, key: Option<CacheKeyHash>) -> Self {
        Self::forwarded(why, None, None, None, key)
    }

    /// Returns the status of a request that is not cacheable.
    pub fn bypass(why: Bypass) -> Self {
        Self::alone(Miss::Bypass(why), None)
    }

    /// Returns the status of a write, which no cache serves.
    pub fn write() -> Self {
        Self::bypass(Bypass::Method)
    }

    /// Returns the status of a forwarded request, such as `segment-gateway; fwd=uri-miss; stored`.
    /// `kept` says what became of the response, or `refusal` why it was not stored.
    fn forwarded(
        why: Miss,
        status: Option<StatusCode>,
        kept: Option<&str>,
        refusal: Option<&str>,
        key: Option<CacheKeyHash>,
    ) -> Self {
        // Every response of the API has this field, so one allocation and little formatting.
        let mut text = String::with_capacity(128);
        text.push_str(NAME);
        text.push_str("; fwd=");
        text.push_str(reason(why));
        if let Some(status) = status {
            text.push_str("; fwd-status=");
            text.push_str(status.as_str());
        }
        if let Some(kept) = kept {
            text.push_str("; ");
            text.push_str(kept);
        }
        if let Some(key) = key {
            // Writing to a string does not fail.
            let _ = write!(text, "; key=\"{key}\"");
        }
        // Why the store did not serve it is worth more than why the response was not stored.
        if let Some(detail) = detail(why).or(refusal) {
            text.push_str("; detail=");
            text.push_str(detail);
        }
        let is_bypass = matches!(why, Miss::Bypass(_));
        Self {
            value: Some(value(text)),
            result: if is_bypass { "bypass" } else { "miss" },
            reason: why.as_str(),
        }
    }

    /// Returns the value of the field, or `None` if the response's headers contain it.
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

/// The member for a fresh hit: `segment-gateway; hit; ttl=12; key="…"`. `left` is in whole seconds.
pub fn hit(left: u64, key: CacheKeyHash) -> HeaderValue {
    value(format!("{NAME}; hit; ttl={left}; key=\"{key}\""))
}

/// The member for a stale response: `hit` with a negative `ttl`, or `fwd=stale` if a request to the
/// API was tried first.
fn stale(stale: &Stale) -> HeaderValue {
    let asked = match stale.tried {
        ApiAttempt::None => "hit".to_owned(),
        ApiAttempt::Unanswered => "fwd=stale".to_owned(),
        ApiAttempt::Failed(status) => format!("fwd=stale; fwd-status={}", status.as_u16()),
    };
    // Rounded up, so that a response that is stale by less than a second does not look fresh.
    let by = stale.by.as_secs() + u64::from(stale.by.subsec_nanos() > 0);
    let (key, need) = (stale.key, stale.need.as_str());
    // RFC 9211, section 2.4: a stale response has a negative `ttl`.
    let minus = if by > 0 { "-" } else { "" };
    value(format!(
        "{NAME}; {asked}; ttl={minus}{by}; key=\"{key}\"; detail={need}"
    ))
}

/// The value of `Age` (RFC 9111, section 5.1), in whole seconds, rounded down.
pub fn age(age: Duration) -> HeaderValue {
    static USUAL: LazyLock<Usual> = LazyLock::new(Usual::new);
    USUAL.value(age.as_secs())
}

/// Header values of small numbers of seconds. Every hit needs one, so they are made once from text
/// that lives as long as the process. A clone of such a value allocates nothing and touches no
/// reference count that threads share.
struct Usual(Box<[HeaderValue]>);

impl Usual {
    /// The first number that is formatted on each use. No default time to live is larger.
    const NUMBERS: u64 = 600;

    fn new() -> Self {
        let usual = |number: u64| {
            let text: &'static str = Box::leak(number.to_string().into_boxed_str());
            HeaderValue::from_static(text)
        };
        Self((0..Self::NUMBERS).map(usual).collect())
    }

    fn value(&self, number: u64) -> HeaderValue {
        let usual = usize::try_from(number).ok();
        match usual.and_then(|number| self.0.get(number)) {
            Some(usual) => usual.clone(),
            None => value(number.to_string()),
        }
    }
}

/// The registered reason for forwarding (RFC 9211, section 2.2).
fn reason(why: Miss) -> &'static str {
    match why {
        Miss::Absent => "uri-miss",
        Miss::Variant => "vary-miss",
        Miss::Expired | Miss::Fenced => "stale",
        Miss::Reload => "request",
        Miss::NotShared | Miss::NotWaiting | Miss::FencedTwice => "miss",
        Miss::Bypass(Bypass::Method) => "method",
        Miss::Settling | Miss::TooManyFetches | Miss::Bypass(_) => "bypass",
    }
}

/// The gateway's own reason, where the registered one is less exact.
fn detail(why: Miss) -> Option<&'static str> {
    match why {
        Miss::Absent
        | Miss::Variant
        | Miss::Expired
        | Miss::Reload
        | Miss::Bypass(Bypass::Method) => None,
        other => Some(other.as_str()),
    }
}

fn value(text: String) -> HeaderValue {
    // Names and numbers only, so the value is always valid.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendered() {
        let (stored, shared) = (Some("stored"), Some("collapsed"));
        let because = Some("set-cookie");
        let ok = Some(StatusCode::OK);
        let cookie = Miss::Bypass(Bypass::Cookie);
        let method = Miss::Bypass(Bypass::Method);
        let table = [
            (Miss::Absent, None, stored, None, "fwd=uri-miss; stored"),
            (
                Miss::Absent,
                ok,
                None,
                because,
                "fwd=uri-miss; fwd-status=200; detail=set-cookie",
            ),
            (Miss::Absent, None, shared, None, "fwd=uri-miss; collapsed"),
            (Miss::Expired, None, stored, None, "fwd=stale; stored"),
            (
                Miss::Fenced,
                None,
                stored,
                None,
                "fwd=stale; stored; detail=fenced",
            ),
            (
                Miss::Fenced,
                None,
                None,
                because,
                "fwd=stale; detail=fenced",
            ),
            (Miss::Reload, None, stored, None, "fwd=request; stored"),
            (
                Miss::Settling,
                None,
                None,
                None,
                "fwd=bypass; detail=settling",
            ),
            (cookie, None, None, None, "fwd=bypass; detail=cookie"),
            (method, None, None, None, "fwd=method"),
            (
                Miss::FencedTwice,
                None,
                None,
                None,
                "fwd=miss; detail=fenced-twice",
            ),
        ];
        for (why, status, kept, refusal, expected) in table {
            let rendered = |key| {
                let found = CacheStatus::forwarded(why, status, kept, refusal, key);
                found.value().unwrap().to_str().unwrap().to_owned()
            };
            let expected = format!("segment-gateway; {expected}");
            assert_eq!(rendered(None), expected);
            let with_key = rendered(Some(key()));
            let named = "; key=\"00000000000000ff\"";
            assert!(with_key.contains(named), "{with_key}");
            assert_eq!(with_key.replace(named, ""), expected);
        }
    }

    fn key() -> CacheKeyHash {
        "00000000000000ff".parse().unwrap()
    }

    #[test]
    fn hits() {
        let of = |text: &str| format!("segment-gateway; {text}");
        assert_eq!(hit(12, key()), of("hit; ttl=12; key=\"00000000000000ff\""));
        let table = [
            (
                Need::Accepted,
                3,
                ApiAttempt::None,
                "hit; ttl=-3; key=\"00000000000000ff\"; detail=max-stale",
            ),
            (
                Need::WhileRevalidate,
                0,
                ApiAttempt::None,
                "hit; ttl=0; key=\"00000000000000ff\"; detail=stale-while-revalidate",
            ),
            (
                Need::IfError,
                9,
                ApiAttempt::Failed(StatusCode::SERVICE_UNAVAILABLE),
                "fwd=stale; fwd-status=503; ttl=-9; key=\"00000000000000ff\"; detail=stale-if-error",
            ),
            (
                Need::IfError,
                9,
                ApiAttempt::Unanswered,
                "fwd=stale; ttl=-9; key=\"00000000000000ff\"; detail=stale-if-error",
            ),
        ];
        for (need, by, tried, expected) in table {
            let by = Duration::from_secs(by);
            let rendered = stale(&Stale {
                need,
                by,
                tried,
                key: key(),
            });
            assert_eq!(rendered, of(expected));
        }
    }

    #[test]
    fn ages_are_whole_seconds() {
        for (seconds, text) in [
            (Duration::from_millis(12_900), "12"),
            (Duration::from_millis(999), "0"),
            (Duration::from_secs(599), "599"),
            (Duration::from_secs(600), "600"),
            (Duration::MAX, "18446744073709551615"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn every_detail_is_a_token() {
        // RFC 8941, section 3.3.4: a token begins with a letter; ours need nothing beyond these.
        for why in Miss::all() {
            let detail = why.as_str();
            assert!(detail.starts_with(|c: char| c.is_ascii_lowercase()));
            assert!(
                detail.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{detail}"
            );
            let found = CacheStatus::fetched(why, key(), Ok(()), None);
            assert_ne!(found.value().unwrap(), NAME);
        }
    }
}
