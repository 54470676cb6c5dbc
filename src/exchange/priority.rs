//! Pure. The supported part of `Priority` (RFC 9218): `u=0` to `u=7`.
//!
//! The urgency orders the queued requests of one caller, and does not affect other callers. A
//! header that is no Dictionary (RFC 9651) is ignored as a whole, as the RFC asks (section 4).
//! Unknown members of a Dictionary are ignored. Of several `u` the last one counts.

use crate::cache::targeted::{MemberValue, dictionary};
use crate::limit::turns::Urgency;
use http::header::{HeaderMap, HeaderName};

const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// Returns the urgency of a request; 3 by default.
pub fn urgency(headers: &HeaderMap) -> Urgency {
    said(headers).unwrap_or_default()
}

/// Returns the urgency of a write. A deferred write, for which no caller waits, is less urgent by
/// default.
pub fn urgency_of_write(headers: &HeaderMap, deferred: bool) -> Urgency {
    let unsaid = if deferred {
        Urgency::DEFERRED
    } else {
        Urgency::default()
    };
    said(headers).unwrap_or(unsaid)
}

fn said(headers: &HeaderMap) -> Option<Urgency> {
    let lines = headers.get_all(PRIORITY);
    // Few requests have the header. The others have nothing to parse.
    lines.iter().next()?;
    let members = dictionary(lines)?;
    let (_, value) = members.iter().rfind(|(name, _)| name == "u")?;
    match value {
        MemberValue::Number(number) => u8::try_from(*number).ok().and_then(Urgency::new),
        MemberValue::Flag(_) | MemberValue::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_urgency_is_found_and_what_is_none_is_ignored() {
        let of = |u| Urgency::new(u).unwrap();
        let cases: &[(&[&str], Urgency)] = &[
            (&[], of(3)),
            (&["u=0"], of(0)),
            (&["u=7, i"], of(7)),
            (&["i, u=1;x=2"], of(1)),
            (&["i", " u=5 "], of(5)),
            (&["u=2, u=6"], of(6)),
            (&["u=8"], of(3)),
            (&["u=-1"], of(3)),
            (&["u"], of(3)),
            (&["U=1"], of(3)),
            (&["u=high"], of(3)),
            (&["urgent"], of(3)),
            (&["x=\"a, u=1, b\""], of(3)),
            (&["x=\"a, u=1\", u=2"], of(2)),
            (&["x=(a u), u=2"], of(2)),
            (&["u=1, x=\"a"], of(3)),
            (&["u=1, ???"], of(3)),
            (&["u=1", "%"], of(3)),
            (&["u=2, u=8"], of(3)),
            (&["u=1.5"], of(3)),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append("priority", value.parse().unwrap());
            }
            assert_eq!(urgency(&headers), *expected, "{values:?}");
        }
    }
}
