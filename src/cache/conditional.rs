//! Pure. Conditional requests in both directions: from readers to the gateway, and from the gateway
//! to the API.
//!
//! Promises RFC 9110, section 13, and RFC 9111, section 4.3:
//!
//! - A reader's `If-None-Match` is compared weakly and takes precedence over `If-Modified-Since`.
//! - A request to the API carries validators that the API gave, never a tag that the gateway made.
//! - A 304 confirms the stored response unless its fields show that it is about another one.
//! - A malformed tag matches nothing and is never sent.

use super::control::{is_hop_by_hop, tokens};
use super::date;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

#[cfg(test)]
mod tests;

/// The prefix of the tags that the gateway makes. No request with such a tag goes upstream.
const OWN: &str = "\"sg-";

/// An entity tag (RFC 9110, section 8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// Whether the tag promises an equal meaning only, not equal bytes.
    weak: bool,
    /// The opaque part, with its quotes.
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Parses a single tag. `None` if it is malformed.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::first(text.trim_ascii())?;
        rest.is_empty().then_some(tag)
    }

    /// The tag of a response, if the response has exactly one.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::ETAG).iter();
        let tag = Self::parse(values.next()?.as_bytes());
        tag.filter(|_| values.next().is_none())
    }

    /// Splits off the tag at the start of a text.
    fn first(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // A backslash escapes nothing in a tag, so the next quote ends it.
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|byte| *byte == b'"')?;
        // Visible characters except the quote, and anything beyond ASCII.
        let fit = |byte: &u8| *byte == 0x21 || *byte >= 0x23 && *byte != 0x7f;
        if !inner[..end].iter().all(fit) {
            return None;
        }
        let (opaque, rest) = quoted.split_at(end + 2);
        Some((Self { weak, opaque }, rest))
    }

    /// Compares weakly (RFC 9110, section 8.8.3.2): the two may stand for different bytes of equal
    /// meaning.
    pub fn is_like(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }

    /// Compares strongly (same section): the two promise equal bytes. A weak tag equals none, not
    /// even itself.
    pub fn is_same(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Whether the tag is strong, which promises equal bytes.
    pub fn is_strong(&self) -> bool {
        !self.weak
    }
}

/// Whether the gateway made this tag.
pub fn is_own(tag: &HeaderValue) -> bool {
    let text = tag.as_bytes();
    text.strip_prefix(b"W/")
        .unwrap_or(text)
        .starts_with(OWN.as_bytes())
}

/// A strong tag for a body that came without one: the first half of its SHA-256. Equal bytes get
/// equal tags, also after they were evicted and fetched again.
pub fn own_tag(body: &[u8]) -> HeaderValue {
    let digest: [u8; 32] = Sha256::digest(body).into();
    let mut text = OWN.to_owned();
    for byte in &digest[..16] {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    // Half of the digest is enough: a tag need not withstand a forger of bodies.
    text.push('"');
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"sg-\""))
}

/// The weak form of a tag, for a representation with the same meaning in other bytes, such as a
/// decoded one.
pub fn weakened(tag: &HeaderValue) -> HeaderValue {
    if tag.as_bytes().starts_with(b"W/") {
        return tag.clone();
    }
    let text = [b"W/", tag.as_bytes()].concat();
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| tag.clone())
}

/// Removes `If-None-Match` from a read that goes to the API if it holds a tag that the gateway
/// made, which the API does not know. Other conditions stay: with such a tag they fail at the API,
/// as they should.
pub fn without_own(headers: &mut HeaderMap) {
    let has_own = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        // The tag may stand anywhere in a list.
        memchr::memmem::find(value.as_bytes(), OWN.as_bytes()).is_some()
    });
    if has_own {
        headers.remove(header::IF_NONE_MATCH);
    }
}

/// Whether a request has a condition that a 304 can answer.
pub fn has_condition(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_NONE_MATCH) || headers.contains_key(header::IF_MODIFIED_SINCE)
}

/// The validators of a stored response: its tag and its time of modification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    /// The API's entity tag, never one that the gateway made.
    tag: Option<HeaderValue>,
    /// The value of `Last-Modified`, as the API wrote it.
    modified: Option<HeaderValue>,
}

impl Validators {
    /// The validators that the API gave, if any.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        // Several tags say nothing, and the API does not know one that the gateway made.
        let tag = headers
            .get(header::ETAG)
            .filter(|tag| EntityTag::of(headers).is_some() && !is_own(tag));
        // A repeated `Last-Modified` says nothing, either.
        let mut modified = headers.get_all(header::LAST_MODIFIED).iter();
        let modified = modified.next().filter(|_| modified.next().is_none());
        // Only the syntax matters here, so any present will do for a year of two digits.
        let modified =
            modified.filter(|value| date::parse(value, SystemTime::UNIX_EPOCH).is_some());
        (tag.is_some() || modified.is_some()).then(|| Self {
            tag: tag.cloned(),
            modified: modified.cloned(),
        })
    }

    /// Whether the tag promises equal bytes.
    pub fn is_strong(&self) -> bool {
        let tag = self.tag.as_ref().map(HeaderValue::as_bytes);
        tag.and_then(EntityTag::parse)
            .is_some_and(|tag| tag.is_strong())
    }

    /// Adds the conditions for a validation to a request (RFC 9111, section 4.3.1): both, since a
    /// server that knows no tags compares the time.
    pub fn put(&self, headers: &mut HeaderMap) {
        if let Some(tag) = &self.tag {
            headers.insert(header::IF_NONE_MATCH, tag.clone());
        }
        if let Some(modified) = &self.modified {
            headers.insert(header::IF_MODIFIED_SINCE, modified.clone());
        }
    }

    /// Whether a 304 with these headers may be about the response with these validators (RFC 9111,
    /// section 4.3.4). A 304 without validators confirms it, because the request asked about a
    /// single response.
    pub fn are_confirmed_by(&self, headers: &HeaderMap) -> bool {
        let asked = self.tag.as_ref().map(HeaderValue::as_bytes);
        let asked = asked.and_then(EntityTag::parse);
        // The first of three that both name decides: a strong tag, a weak one, the time.
        match (asked, EntityTag::of(headers)) {
            (Some(asked), Some(named)) if named.is_strong() => asked.is_same(&named),
            (Some(asked), Some(named)) => asked.is_like(&named),
            // The stored response has no tag, so a response with one is another.
            (None, Some(named)) if named.is_strong() => false,
            _ => match (&self.modified, headers.get(header::LAST_MODIFIED)) {
                (Some(asked), Some(named)) => asked == named,
                _ => true,
            },
        }
    }
}

/// Whether a field describes the bytes of the message that carries it. A 304 has no bytes, so such
/// a field in it says nothing about the stored ones.
pub fn is_of_the_bytes(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 5] = [
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        HeaderName::from_static("content-digest"),
    ];
    NAMES.contains(name)
}

/// The header of a stored response after a 304 (RFC 9111, section 3.2). Fields of the 304 replace
/// stored ones, except for those that describe the bytes or belong to the hop.
pub fn renewed(stored: &HeaderMap, not_modified: &HeaderMap) -> HeaderMap {
    let named: Vec<&[u8]> = tokens(not_modified.get_all(header::CONNECTION)).collect();
    let is_of_the_hop = |name: &HeaderName| {
        let text = name.as_str().as_bytes();
        is_hop_by_hop(name) || named.iter().any(|other| other.eq_ignore_ascii_case(text))
    };
    let mut headers = stored.clone();
    // All values of a field are replaced, even if there were more of them.
    for name in not_modified.keys() {
        if is_of_the_bytes(name) || is_of_the_hop(name) {
            continue;
        }
        headers.remove(name);
        for value in not_modified.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// Whether a reader already has the response (RFC 9110, section 13.2.2; RFC 9111, section 4.3.2).
/// `shown` is the header that the reader would otherwise get with a 200; `received` is the time at
/// which the response was received.
pub fn is_not_modified(request: &HeaderMap, shown: &HeaderMap, received: SystemTime) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        return none_match(request, shown);
    }
    let mut values = request.get_all(header::IF_MODIFIED_SINCE).iter();
    let (Some(since), None) = (values.next(), values.next()) else {
        return false;
    };
    let Some(since) = date::parse(since, received) else {
        return false;
    };
    let field = |name| {
        shown
            .get(name)
            .and_then(|value| date::parse(value, received))
    };
    // Without `Last-Modified`, the last change was at the latest when the response was sent.
    let changed = field(header::LAST_MODIFIED)
        .or_else(|| field(header::DATE))
        .unwrap_or(received);
    changed <= since
}

/// Evaluates `If-None-Match`: `*` matches any response, a tag one with the same opaque part.
fn none_match(request: &HeaderMap, shown: &HeaderMap) -> bool {
    let current = EntityTag::of(shown);
    request.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let text = value.as_bytes().trim_ascii();
        text == b"*" || current.is_some_and(|current| lists(text, &current))
    })
}

/// Whether a list of tags contains one that matches weakly. A malformed element ends the list.
fn lists(mut text: &[u8], wanted: &EntityTag<'_>) -> bool {
    loop {
        while let Some((b',' | b' ' | b'\t', rest)) = text.split_first() {
            text = rest;
        }
        let Some((tag, rest)) = EntityTag::first(text) else {
            return false;
        };
        let rest = rest.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return false;
        }
        if tag.is_like(wanted) {
            return true;
        }
        text = rest;
    }
}

/// Whether `If-Range` permits a partial response (RFC 9110, section 13.1.5). The condition must be
/// the same strong tag, or the exact `Last-Modified` if that lies at least a second before `Date`.
pub fn permits_range(request: &HeaderMap, shown: &HeaderMap, received: SystemTime) -> bool {
    let mut values = request.get_all(header::IF_RANGE).iter();
    let Some(condition) = values.next() else {
        return true;
    };
    if values.next().is_some() {
        return false;
    }
    if let Some(tag) = EntityTag::parse(condition.as_bytes()) {
        return EntityTag::of(shown).is_some_and(|current| current.is_same(&tag));
    }
    let field = |name| {
        shown
            .get(name)
            .and_then(|value| date::parse(value, received))
    };
    let (Some(asked), Some(changed)) = (
        date::parse(condition, received),
        field(header::LAST_MODIFIED),
    ) else {
        return false;
    };
    let sent = field(header::DATE).unwrap_or(received);
    asked == changed && changed + Duration::from_secs(1) <= sent
}
