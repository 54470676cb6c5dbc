//! Pure. The `Cache-Status` field (RFC 9211), which tells a client how the cache handled its
//! request.
//!
//! Renders one list member, named `segment-gateway`. The members of upstream caches stay before it.
//! This module renders decisions and makes none.

use super::key::KeyHash;
use super::reason::{Bypass, Miss};
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

/// Whether a fetched response was stored or shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Stored (`stored`).
    Stored,
    /// Not stored. The reason, where given, becomes the `detail` parameter.
    NotStored(Option<&'static str>),
    /// Fetched for another reader and shared (`collapsed`, RFC 9211, section 2.6).
    Collapsed,
}

/// A request that was forwarded upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The reason why the store did not serve the request.
    pub why: Miss,
    /// The status of the upstream, where it differs from the one that the caller gets.
    pub status: Option<StatusCode>,
    /// Whether the response was stored or shared.
    pub kept: Kept,
    /// The key, where the request has one.
    pub key: Option<KeyHash>,
}

/// A stale response that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The reason why a stale response was served.
    pub need: Need,
    /// How long the response has been stale.
    pub by: Duration,
    /// `Some` if a request to the API was tried first and failed. The inner value is the API's
    /// status, or `None` without a response.
    pub asked: Option<Option<StatusCode>>,
    /// The key of the response.
    pub key: KeyHash,
}

/// The member for a fresh hit: `segment-gateway; hit; ttl=12; key="…"`. `left` is in whole seconds.
pub fn hit(left: u64, key: KeyHash) -> HeaderValue {
    value(format!("{NAME}; hit; ttl={left}; key=\"{key}\""))
}

/// The member for a stale response: `hit` with a negative `ttl`, or `fwd=stale` if a request to the
/// API was tried first.
pub fn stale(stale: &Stale) -> HeaderValue {
    let asked = match stale.asked {
        None => "hit".to_owned(),
        Some(None) => "fwd=stale".to_owned(),
        Some(Some(status)) => format!("fwd=stale; fwd-status={}", status.as_u16()),
    };
    // Rounded up, so that a response that is stale by less than a second does not look fresh.
    let by = stale.by.as_secs() + u64::from(stale.by.subsec_nanos() > 0);
    let (key, need) = (stale.key, stale.need.as_str());
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

/// The member for a forwarded request, such as `segment-gateway; fwd=uri-miss; stored`.
pub fn forwarded(forwarded: &Forwarded) -> HeaderValue {
    let mut text = format!("{NAME}; fwd={}", reason(forwarded.why));
    if let Some(status) = forwarded.status {
        // Writing to a string does not fail.
        let _ = write!(text, "; fwd-status={}", status.as_u16());
    }
    let mut detail = detail(forwarded.why);
    match forwarded.kept {
        Kept::Stored => text.push_str("; stored"),
        Kept::Collapsed => text.push_str("; collapsed"),
        Kept::NotStored(why) => detail = detail.or(why),
    }
    if let Some(key) = forwarded.key {
        let _ = write!(text, "; key=\"{key}\"");
    }
    if let Some(detail) = detail {
        let _ = write!(text, "; detail={detail}");
    }
    value(text)
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
        let not_stored = Kept::NotStored(None);
        let because = Kept::NotStored(Some("set-cookie"));
        let ok = Some(StatusCode::OK);
        let table = [
            (Miss::Absent, None, Kept::Stored, "fwd=uri-miss; stored"),
            (
                Miss::Absent,
                ok,
                because,
                "fwd=uri-miss; fwd-status=200; detail=set-cookie",
            ),
            (
                Miss::Absent,
                None,
                Kept::Collapsed,
                "fwd=uri-miss; collapsed",
            ),
            (Miss::Expired, None, Kept::Stored, "fwd=stale; stored"),
            (
                Miss::Fenced,
                None,
                Kept::Stored,
                "fwd=stale; stored; detail=fenced",
            ),
            (Miss::Fenced, None, because, "fwd=stale; detail=fenced"),
            (Miss::Reload, None, Kept::Stored, "fwd=request; stored"),
            (
                Miss::Settling,
                None,
                not_stored,
                "fwd=bypass; detail=settling",
            ),
            (
                Miss::Bypass(Bypass::Cookie),
                None,
                not_stored,
                "fwd=bypass; detail=cookie",
            ),
            (Miss::Bypass(Bypass::Method), None, not_stored, "fwd=method"),
            (
                Miss::FencedTwice,
                None,
                not_stored,
                "fwd=miss; detail=fenced-twice",
            ),
        ];
        for (why, status, kept, expected) in table {
            let mut ours = Forwarded {
                why,
                status,
                kept,
                key: None,
            };
            assert_eq!(forwarded(&ours), format!("segment-gateway; {expected}"));
            ours.key = Some(key());
            let with_key = forwarded(&ours).to_str().unwrap().to_owned();
            assert!(
                with_key.contains("; key=\"00000000000000ff\""),
                "{with_key}"
            );
            assert_eq!(
                with_key.replace("; key=\"00000000000000ff\"", ""),
                forwarded(&Forwarded { key: None, ..ours })
                    .to_str()
                    .unwrap()
            );
        }
    }

    fn key() -> KeyHash {
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
                None,
                "hit; ttl=-3; key=\"00000000000000ff\"; detail=max-stale",
            ),
            (
                Need::WhileRevalidate,
                0,
                None,
                "hit; ttl=0; key=\"00000000000000ff\"; detail=stale-while-revalidate",
            ),
            (
                Need::IfError,
                9,
                Some(Some(StatusCode::SERVICE_UNAVAILABLE)),
                "fwd=stale; fwd-status=503; ttl=-9; key=\"00000000000000ff\"; detail=stale-if-error",
            ),
            (
                Need::IfError,
                9,
                Some(None),
                "fwd=stale; ttl=-9; key=\"00000000000000ff\"; detail=stale-if-error",
            ),
        ];
        for (need, by, asked, expected) in table {
            let by = Duration::from_secs(by);
            let rendered = stale(&Stale {
                need,
                by,
                asked,
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
            assert_ne!(
                forwarded(&Forwarded {
                    why,
                    status: None,
                    kept: Kept::Stored,
                    key: None,
                }),
                NAME
            );
        }
    }
}
