//! Pure. Whether an answer may be stored, for how long, and whether those who joined its fetch
//! may have it.
//!
//! Promises RFC 9111, section 3, as a shared cache reads it, with one stated exception: the key
//! holds the credential, so answers to requests with `Authorization`, and `private` ones, may be
//! stored. The API's own directives shorten the operation's time to live and never lengthen it.
//!
//! An answer that is not stored may still be shared with those who joined its fetch, if nothing
//! in it is meant for one reader: what the credential may not see, what does not exist and what
//! fails is the same for all of them; a cookie is not, nor what the request's own fields have
//! brought about (400, 415, a redirect). Statuses of 400 and above are never stored.

use super::control::{Directives, delta_seconds, tokens};
use super::reason::Refusal;
use http::StatusCode;
use http::header::{self, HeaderMap};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// What the key holds of the request, by the header it came in; an answer may vary by these. A
/// cacheable fetch always sends one `Accept-Encoding`.
const IN_KEY: [&str; 4] = ["accept", "accept-encoding", "authorization", "origin"];

/// What is known of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The operation's time to live.
    pub ttl: Duration,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The length of its body in bytes; at least this many, as long as it is not complete.
    pub body_bytes: usize,
    /// The largest body that is stored, in bytes.
    pub largest_body: usize,
}

/// What may be done with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Stored and shared.
    Store {
        /// How long from its beginning it may be shown, its age included.
        fresh_for: Duration,
        /// Its age when it came.
        initial_age: Duration,
    },
    /// Shared with those who joined its fetch, not stored.
    Share(Refusal),
    /// For the reader alone who asked.
    Keep(Refusal),
}

/// Judges an answer. A head alone can only be judged worse later: what is kept stays so.
pub fn judge(facts: &Facts<'_>) -> Verdict {
    let directives = Directives::parse(facts.headers.get_all(header::CACHE_CONTROL));
    if let Some(reason) = not_for_others(facts, &directives) {
        return Verdict::Keep(reason);
    }
    // 200, 203 and 204 are complete answers that need no understanding of ours (RFC 9110, 15.3).
    match facts.status.as_u16() {
        200 | 203 | 204 => {}
        401 | 403 | 404 | 500.. => return Verdict::Share(Refusal::Status),
        _ => return Verdict::Keep(Refusal::Status),
    }
    let stated = directives.lifetime().or_else(|| expires(facts.headers));
    let fresh_for = stated.map_or(facts.ttl, |stated| stated.min(facts.ttl));
    let initial_age = age(facts.headers);
    if stated.is_some_and(|stated| stated <= initial_age) {
        return Verdict::Keep(Refusal::Expired);
    }
    if fresh_for <= initial_age {
        // Too old for our own time to live, not for the API's.
        return Verdict::Share(Refusal::Expired);
    }
    Verdict::Store {
        fresh_for,
        initial_age,
    }
}

fn not_for_others(facts: &Facts<'_>, directives: &Directives) -> Option<Refusal> {
    let headers = facts.headers;
    let encoded = tokens(headers.get_all(header::CONTENT_ENCODING))
        .any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    let partial = matches!(
        facts.status,
        StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
    ) || headers.contains_key(header::CONTENT_RANGE);
    let table = [
        (partial, Refusal::Partial),
        (facts.status.is_informational(), Refusal::Status),
        (directives.no_store, Refusal::NoStore),
        (directives.no_cache, Refusal::NoCache),
        (headers.contains_key(header::SET_COOKIE), Refusal::SetCookie),
        (varies_beyond_key(headers), Refusal::Vary),
        (encoded, Refusal::ContentEncoding),
        (headers.contains_key(header::TRAILER), Refusal::Unsuitable),
        (facts.body_bytes > facts.largest_body, Refusal::TooLarge),
    ];
    table
        .into_iter()
        .find(|(met, _)| *met)
        .map(|(_, reason)| reason)
}

/// Whether the answer depends on more of the request than the key holds; `*` always does
/// (RFC 9110, section 12.5.5).
fn varies_beyond_key(headers: &HeaderMap) -> bool {
    let known = |name: &[u8]| {
        IN_KEY
            .iter()
            .any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
    };
    tokens(headers.get_all(header::VARY)).any(|name| !known(name))
}

/// The lifetime by `Expires` (RFC 9111, sections 4.2.1 and 5.3): from the answer's own `Date`,
/// since our wall clock is not the API's. What cannot be read is past.
fn expires(headers: &HeaderMap) -> Option<Duration> {
    if !headers.contains_key(header::EXPIRES) {
        return None;
    }
    let mut values = headers.get_all(header::EXPIRES).iter();
    let expires = values
        .next()
        .filter(|_| values.next().is_none())
        .and_then(date);
    let sent = headers.get(header::DATE).and_then(date);
    let lifetime = expires
        .zip(sent)
        .and_then(|(expires, sent)| expires.duration_since(sent).ok());
    Some(lifetime.unwrap_or_default())
}

fn date(value: &http::HeaderValue) -> Option<std::time::SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// The age of the answer when it came. A value that cannot be read is ignored (RFC 9111,
/// section 5.1); of several the largest counts.
fn age(headers: &HeaderMap) -> Duration {
    tokens(headers.get_all(header::AGE))
        .filter_map(delta_seconds)
        .max()
        .unwrap_or_default()
}
