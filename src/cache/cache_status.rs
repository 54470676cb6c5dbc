//! Pure. The `Cache-Status` field (RFC 9211): how the cache dealt with a request, for whoever
//! reads the answer.
//!
//! It renders one member, named `segment-gateway`; what an upstream cache says stays before it.

use super::key::KeyHash;
use super::reason::{Bypass, Miss};
use super::reuse::Need;
use http::header::HeaderName;
use http::{HeaderValue, StatusCode};
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

/// The field.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The name under which this cache speaks (RFC 9211, section 2).
const NAME: &str = "segment-gateway";

/// What became of an answer that was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was stored (`stored`).
    Stored,
    /// It was not, and `detail` may say why.
    NotStored(Option<&'static str>),
    /// It was fetched for another reader and shared (`collapsed`, RFC 9211, section 2.6).
    Collapsed,
}

/// A request that went upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Why.
    pub why: Miss,
    /// The upstream's status, where it differs from the one the caller gets.
    pub status: Option<StatusCode>,
    /// What became of the answer.
    pub kept: Kept,
    /// The key, where there is one.
    pub key: Option<KeyHash>,
}

/// A stale answer that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Why.
    pub need: Need,
    /// For how long it has been stale.
    pub by: Duration,
    /// Whether the API was asked first, in vain, and what it said if it said something.
    pub asked: Option<Option<StatusCode>>,
    /// The key.
    pub key: KeyHash,
}

/// `segment-gateway; hit; ttl=12; key="…"`. `left` is in whole seconds.
pub fn hit(left: u64, key: KeyHash) -> HeaderValue {
    value(format!("{NAME}; hit; ttl={left}; key=\"{key}\""))
}

/// A stale answer: a hit with a negative `ttl`, or, if the API was asked first, what was forwarded.
pub fn stale(stale: &Stale) -> HeaderValue {
    let asked = match stale.asked {
        None => "hit".to_owned(),
        Some(None) => "fwd=stale".to_owned(),
        Some(Some(status)) => format!("fwd=stale; fwd-status={}", status.as_u16()),
    };
    // Rounded up: what has been stale for less than a second is not fresh.
    let by = stale.by.as_secs() + u64::from(stale.by.subsec_nanos() > 0);
    let (key, need) = (stale.key, stale.need.as_str());
    let minus = if by > 0 { "-" } else { "" };
    value(format!(
        "{NAME}; {asked}; ttl={minus}{by}; key=\"{key}\"; detail={need}"
    ))
}

/// The value of `Age` (RFC 9111, section 5.1). Whole seconds, rounded down.
pub fn age(age: Duration) -> HeaderValue {
    static USUAL: LazyLock<Usual> = LazyLock::new(Usual::new);
    USUAL.value(age.as_secs())
}

/// Numbers of seconds. Every hit has one, so the usual ones are made once, as text that lives as
/// long as the process: a copy of such a value allocates nothing, and counts nothing that threads
/// would have to share.
struct Usual(Box<[HeaderValue]>);

impl Usual {
    /// Larger numbers are written each time. No default time to live is larger.
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

/// `segment-gateway; fwd=uri-miss; stored` and the like.
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

/// The registered reasons (RFC 9211, section 2.2).
fn reason(why: Miss) -> &'static str {
    match why {
        Miss::Absent => "uri-miss",
        Miss::Variant => "vary-miss",
        Miss::Expired | Miss::Fenced => "stale",
        Miss::Reload => "request",
        Miss::NotShared | Miss::Lost | Miss::NotWaiting | Miss::FencedTwice => "miss",
        Miss::Bypass(Bypass::Method) => "method",
        Miss::Settling | Miss::TooManyFetches | Miss::Bypass(_) => "bypass",
    }
}

/// Our own word, where the registered one does not say it all.
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
    // Names and numbers only: it is always a valid value.
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
