//! Pure. Whether a response may be stored, for how long, and whether the readers that joined its
//! fetch may share it.
//!
//! Promises RFC 9111, section 3, for a shared cache, with one exception: the key contains the
//! credential, so responses to requests with `Authorization`, and `private` ones, may be stored.
//! Four rules are stricter than the RFC. Responses that set a cookie, responses that reject the
//! credential, and partial responses are never stored. Nor are those in a media type that is not
//! the API's, unless the operation is unknown: something in front of the API may have answered in
//! its place, and its page is no user. Such a response does not end an older stored one either.
//!
//! A response that is not stored may still be shared with the readers that joined its fetch, unless
//! it is meant for one of them. A denied permission, a missing resource and a failure are the same
//! for all of them. A cookie is not, and neither is a status that the request's own fields caused
//! (400, 415, a redirect).

use super::coding;
use super::conditional::Validators;
use super::control::tokens;
use super::lifetime::{Lifetime, Rules, Said, StatusClass};
use super::media::MediaType;
use super::reason::StoreRefusal;
use super::vary;
use http::StatusCode;
use http::header::{self, HeaderMap};
use std::time::SystemTime;

#[cfg(test)]
mod tests;

/// The facts about a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFacts<'a> {
    /// The configuration of the operation.
    pub rules: &'a Rules,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The length of the body in bytes. A lower bound until the body is complete.
    pub body_bytes: usize,
    /// The largest body that is stored, in bytes.
    pub largest_body: usize,
    /// The wall-clock time at which the request was sent.
    pub now: SystemTime,
}

/// The decision about a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storability {
    /// Stored, and shared with the readers that joined the fetch.
    Store(Lifetime),
    /// Stored, and validated before each further use. Served only to the reader that led the fetch.
    Validate(Lifetime),
    /// Not stored, but shared with the readers that joined the fetch.
    Share(StoreRefusal),
    /// Not stored, and served only to the reader that led the fetch.
    Private(StoreRefusal),
}

/// Decides about a response. A head without its body gives a preliminary decision, which the body
/// can only worsen: [`Storability::Private`] is final.
pub fn judge(facts: &ResponseFacts<'_>) -> Storability {
    let of_api = judge_of_api(facts);
    if facts.rules.any_media_type || is_in_media_type_of_api(facts) {
        return of_api;
    }
    match of_api {
        Storability::Store(_) | Storability::Validate(_) => {
            Storability::Share(StoreRefusal::MediaType)
        }
        // A failure says as much about the API as one in the API's own media type.
        refused if !is_last_word(facts.status) => refused,
        Storability::Share(_) => Storability::Share(StoreRefusal::MediaType),
        Storability::Private(_) => Storability::Private(StoreRefusal::MediaType),
    }
}

/// Whether a response is in a media type of the API, or has no content to have one.
fn is_in_media_type_of_api(facts: &ResponseFacts<'_>) -> bool {
    match MediaType::of(facts.headers) {
        MediaType::Api => true,
        MediaType::Absent => facts.status == StatusCode::NO_CONTENT,
        MediaType::Other => false,
    }
}

/// Decides about a response of the API.
fn judge_of_api(facts: &ResponseFacts<'_>) -> Storability {
    let ResponseFacts {
        rules,
        headers,
        now,
        ..
    } = *facts;
    let said = Said::of(headers, rules.precedence, now);
    if let Some(reason) = not_for_others(facts, &said) {
        return Storability::Private(reason);
    }
    let status = facts.status.as_u16();
    let unstored = match status {
        // Equal for all readers of the key, so it can be shared even if it is not stored.
        401 | 403..=404 | 500.. => Storability::Share(StoreRefusal::Status),
        _ => Storability::Private(StoreRefusal::Status),
    };
    // These describe the credential or the moment. They are not stored even with a stated lifetime.
    if matches!(status, 401 | 407 | 429) {
        return unstored;
    }
    let kind = StatusClass::of(status);
    let life = Lifetime::of(rules, &said, kind, headers, now);
    let success = kind == StatusClass::Success;
    match life {
        Some(life) if !life.is_over() => Storability::Store(life),
        // Without a lifetime, or after it: a response with a validator is still worth storing,
        // because a later request can validate it.
        _ if success && Validators::of(headers).is_some() => {
            Storability::Validate(life.unwrap_or_else(|| Lifetime::over(headers, now)))
        }
        Some(_) if !success => unstored,
        // Too old for the operator's time to live, but not for the API's.
        Some(life) if said.stated.is_none_or(|stated| stated > life.initial_age) => {
            Storability::Share(StoreRefusal::Expired)
        }
        Some(_) => Storability::Private(StoreRefusal::Expired),
        None if success => Storability::Private(StoreRefusal::NoLifetime),
        None => unstored,
    }
}

fn not_for_others(facts: &ResponseFacts<'_>, said: &Said) -> Option<StoreRefusal> {
    let headers = facts.headers;
    let directives = &said.directives;
    let partial = matches!(
        facts.status,
        StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
    ) || headers.contains_key(header::CONTENT_RANGE);
    // `must-understand` overrides `no-store` for an understood status, and forbids storing any
    // other (RFC 9111, section 5.2.2.3).
    let understood = is_understood(facts.status.as_u16());
    let no_store = directives.no_store && !(directives.must_understand && understood);
    let not_validatable = directives.no_cache && Validators::of(headers).is_none();
    let table = [
        (partial, StoreRefusal::Partial),
        (facts.status.is_informational(), StoreRefusal::Status),
        (no_store, StoreRefusal::NoStore),
        (
            directives.must_understand && !understood,
            StoreRefusal::NotUnderstood,
        ),
        (not_validatable, StoreRefusal::NoCache),
        (
            // `Set-Cookie2` is an obsolete equivalent (RFC 2965).
            headers.contains_key(header::SET_COOKIE) || headers.contains_key("set-cookie2"),
            StoreRefusal::SetCookie,
        ),
        (vary::fields(headers).is_none(), StoreRefusal::Vary),
        (!coding::is_known(headers), StoreRefusal::ContentEncoding),
        (
            headers.contains_key(header::TRAILER),
            StoreRefusal::Unsuitable,
        ),
        (
            tokens(headers.get_all(header::CONTENT_LENGTH))
                .nth(1)
                .is_some(),
            StoreRefusal::Unsuitable,
        ),
        (
            facts.body_bytes > facts.largest_body,
            StoreRefusal::TooLarge,
        ),
    ];
    table
        .into_iter()
        .find(|(met, _)| *met)
        .map(|(_, reason)| reason)
}

/// Whether a response of this status replaces an older stored one although it is not stored itself.
/// Readers should get the most recent response (RFC 9111, section 4). If the API fails, or rejects
/// the credential or the moment, the older response may still be right.
pub fn is_last_word(status: StatusCode) -> bool {
    !status.is_server_error() && !matches!(status.as_u16(), 206 | 304 | 401 | 408 | 429)
}

/// The statuses whose caching rules the gateway implements (RFC 9110, section 15).
fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308 | 404 | 405 | 410 | 414 | 501
    )
}
