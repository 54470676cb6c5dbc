//! Pure. The part of `Priority` (RFC 9218) that the gateway understands: `u=0` to `u=7`.
//!
//! It orders what one caller has waiting and says nothing to other callers. A field that is not
//! what the RFC describes is ignored, as it asks (section 4), and so is what is not understood of one
//! that is; of several `u` the last one counts (RFC 9651, section 3.2).

use crate::limit::turns::Urgency;
use http::HeaderMap;

/// How urgent the request is; 3 if it does not say.
pub fn urgency(headers: &HeaderMap) -> Urgency {
    said(headers).unwrap_or_default()
}

/// The same of a write; one that nobody waits for is less urgent than the others if it does not say.
pub fn urgency_of_write(headers: &HeaderMap, deferred: bool) -> Urgency {
    let unsaid = if deferred {
        Urgency::DEFERRED
    } else {
        Urgency::default()
    };
    said(headers).unwrap_or(unsaid)
}

fn said(headers: &HeaderMap) -> Option<Urgency> {
    let mut found = None;
    for line in headers.get_all("priority") {
        let Ok(line) = line.to_str() else {
            return None;
        };
        for member in line.split(',') {
            // Parameters of a member mean nothing here.
            let member = member.split(';').next().unwrap_or_default().trim();
            let (name, value) = member.split_once('=').unwrap_or((member, "?1"));
            if name == "u" {
                found = value.parse().ok().and_then(Urgency::new);
            }
        }
    }
    found
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
