//! Pure. The `Cache-Status` field (RFC 9211): how the cache dealt with a request, for whoever
//! reads the answer.
//!
//! It renders one member, named `segment-gateway`; what an upstream cache says stays before it.

use super::reason::{Bypass, Miss};
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
}

/// `segment-gateway; hit; ttl=12`. Whole seconds, rounded down.
pub fn hit(remaining: Duration) -> HeaderValue {
    static USUAL: LazyLock<Usual> = LazyLock::new(|| Usual::new("segment-gateway; hit; ttl="));
    USUAL.value(remaining.as_secs())
}

/// The value of `Age` (RFC 9111, section 5.1). Whole seconds, rounded down.
pub fn age(age: Duration) -> HeaderValue {
    static USUAL: LazyLock<Usual> = LazyLock::new(|| Usual::new(""));
    USUAL.value(age.as_secs())
}

/// Values that end in a number of seconds. Every hit has two of them, so the usual ones are made
/// once, as text that lives as long as the process: a copy of such a value allocates nothing, and
/// counts nothing that threads would have to share.
struct Usual {
    before: &'static str,
    values: Box<[HeaderValue]>,
}

impl Usual {
    /// Larger numbers are written each time. No default time to live is larger.
    const NUMBERS: u64 = 600;

    fn new(before: &'static str) -> Self {
        let usual = |number| {
            let text: &'static str = Box::leak(format!("{before}{number}").into_boxed_str());
            HeaderValue::from_static(text)
        };
        Self {
            before,
            values: (0..Self::NUMBERS).map(usual).collect(),
        }
    }

    fn value(&self, number: u64) -> HeaderValue {
        let usual = usize::try_from(number).ok();
        match usual.and_then(|number| self.values.get(number)) {
            Some(usual) => usual.clone(),
            None => value(format!("{}{number}", self.before)),
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
    if let Some(detail) = detail {
        let _ = write!(text, "; detail={detail}");
    }
    value(text)
}

/// The registered reasons (RFC 9211, section 2.2).
fn reason(why: Miss) -> &'static str {
    match why {
        Miss::Absent => "uri-miss",
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
        Miss::Absent | Miss::Expired | Miss::Reload | Miss::Bypass(Bypass::Method) => None,
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
            let rendered = forwarded(&Forwarded { why, status, kept });
            assert_eq!(rendered, format!("segment-gateway; {expected}"));
        }
        for (remaining, ttl) in [
            (Duration::from_millis(12_900), "12"),
            (Duration::from_millis(999), "0"),
            (Duration::from_secs(599), "599"),
            (Duration::from_secs(600), "600"),
            (Duration::from_secs(10), "10"),
            (Duration::MAX, "18446744073709551615"),
        ] {
            assert_eq!(hit(remaining), format!("segment-gateway; hit; ttl={ttl}"));
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
                    kept: Kept::Stored
                }),
                NAME
            );
        }
    }
}
