//! Pure. The request fields that choose among responses, besides those that are part of every key.
//!
//! Promises RFC 9111, section 4.1: a response that was chosen by request fields is served only to
//! requests with equal fields, compared after joining their lines. No other normalisation takes
//! place, because that would need the grammar of each field. `Vary: *` matches nothing.

use super::control::tokens;
use super::fields::is_left_out;
use http::header::{self, HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Fields that are part of every key, or equal in every fetch.
const IN_EVERY_KEY: [HeaderName; 4] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    header::ORIGIN,
];
/// The largest number of fields by which a stored response may vary.
const MOST_FIELDS: usize = 8;

/// The fields that chose a response, without those of every key. In lower case, sorted, without
/// duplicates. `None` for `*`, for too many fields, and for malformed names.
pub fn fields(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for token in tokens(headers.get_all(header::VARY)) {
        let name = HeaderName::from_bytes(token).ok()?;
        if token == b"*" {
            return None;
        }
        // A field that no fetch sends cannot choose a response.
        if !IN_EVERY_KEY.contains(&name) && !is_left_out(&name) {
            names.push(name);
        }
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    (names.len() <= MOST_FIELDS).then_some(names)
}

/// The hashed values of the choosing fields in one request.
pub type SelectionHash = [u8; 32];

/// The selection of these fields in a request.
pub fn selection(fields: &[HeaderName], request: &HeaderMap) -> SelectionHash {
    let mut digest = Sha256::new();
    for name in fields {
        let mut lines = request.get_all(name).iter().peekable();
        // An absent field differs from an empty one.
        digest.update([u8::from(lines.peek().is_some())]);
        for (nth, line) in lines.enumerate() {
            if nth > 0 {
                digest.update(b", ");
            }
            digest.update(line.as_bytes().trim_ascii());
        }
        // A separator, which no value contains.
        digest.update([b'\n']);
    }
    digest.finalize().into()
}

/// The requests for which a response was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variance {
    /// The fields.
    pub fields: Arc<[HeaderName]>,
    /// Their values in the request of the fetch, hashed.
    pub selection: SelectionHash,
}

impl Variance {
    /// The variance of a response to a request. `None` if the response serves all requests with the
    /// key.
    pub fn of(answer: &HeaderMap, request: &HeaderMap) -> Option<Self> {
        let fields = fields(answer).filter(|fields| !fields.is_empty())?;
        Some(Self {
            selection: selection(&fields, request),
            fields: fields.into(),
        })
    }

    /// Whether the response serves this request as well.
    pub fn permits(&self, request: &HeaderMap) -> bool {
        selection(&self.fields, request) == self.selection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn fields_are_sorted_and_those_of_every_key_left_out() {
        let of = |values: &[&'static str]| {
            let lines: Vec<_> = values.iter().map(|value| ("vary", *value)).collect();
            fields(&headers(&lines)).map(|names| {
                let names: Vec<_> = names.iter().map(HeaderName::to_string).collect();
                names.join(" ")
            })
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(&[]), some(""));
        assert_eq!(
            of(&["Accept, accept-encoding, Origin,AUTHORIZATION,"]),
            some("")
        );
        assert_eq!(of(&["User-Agent, Range, x-request-id"]), some(""));
        assert_eq!(of(&["X-B, x-a", "X-A"]), some("x-a x-b"));
        assert_eq!(of(&["*"]), None);
        assert_eq!(of(&["x-a", "accept, *"]), None);
        assert_eq!(of(&["x a"]), None);
        assert_eq!(of(&["a,b,c,d,e,f,g,h"]), some("a b c d e f g h"));
        assert_eq!(of(&["a,b,c,d,e,f,g,h,i"]), None);
    }

    #[test]
    fn an_answer_is_for_requests_that_say_the_same() {
        let answer = headers(&[("vary", "x-a, x-b")]);
        let asked = headers(&[("x-a", "1, 2")]);
        let variance = Variance::of(&answer, &asked).unwrap();
        let cases: [(&[(&str, &str)], bool); 9] = [
            (&[("x-a", "1, 2")], true),
            (&[("x-a", "1,2")], false),
            (&[("x-a", "1"), ("x-a", "2")], true),
            (&[("x-a", "1, 2"), ("x-other", "9")], true),
            (&[("x-a", "1")], false),
            (&[("x-a", "2, 1")], false),
            (&[("x-a", "1, 2"), ("x-b", "")], false),
            (&[("x-b", "1, 2")], false),
            (&[], false),
        ];
        for (lines, expected) in cases {
            assert_eq!(variance.permits(&headers(lines)), expected, "{lines:?}");
        }
        assert_eq!(Variance::of(&headers(&[("vary", "accept")]), &asked), None);
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let fields = fields(&headers(&[("vary", "x-a, x-b")])).unwrap();
        let of = |lines: &[(&'static str, &'static str)]| selection(&fields, &headers(lines));
        assert_ne!(
            of(&[("x-a", "1"), ("x-b", "2")]),
            of(&[("x-a", "2"), ("x-b", "1")])
        );
        assert_ne!(of(&[("x-a", "1,2")]), of(&[("x-a", "12")]));
        assert_ne!(of(&[("x-a", "")]), of(&[]));
    }
}
