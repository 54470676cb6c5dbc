//! Pure. Whether an answer may be stored, for how long, and whether those who joined its fetch
//! may have it.
//!
//! Promises RFC 9111, section 3, as a shared cache reads it, with one stated exception: the key
//! holds the credential, so answers to requests with `Authorization`, and `private` ones, may be
//! stored. Stricter than it has to be in three things: an answer that sets a cookie, one that says
//! that the credential is not accepted, and parts of answers are never stored.
//!
//! An answer that is not stored may still be shared with those who joined its fetch, if nothing
//! in it is meant for one reader: what the credential may not see, what does not exist and what
//! fails is the same for all of them; a cookie is not, nor what the request's own fields have
//! brought about (400, 415, a redirect).

use super::coding;
use super::conditional::Validators;
use super::control::tokens;
use super::lifetime::{Kind, Lifetime, Rules, Said};
use super::reason::Refusal;
use super::vary;
use http::StatusCode;
use http::header::{self, HeaderMap};
use std::time::SystemTime;

#[cfg(test)]
mod tests;

/// What is known of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What the operator has configured.
    pub rules: &'a Rules,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The length of its body in bytes; at least this many, as long as it is not complete.
    pub body_bytes: usize,
    /// The largest body that is stored, in bytes.
    pub largest_body: usize,
    /// The wall clock when the request for it was sent.
    pub now: SystemTime,
}

/// What may be done with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Stored, and shared with those who joined its fetch.
    Store(Lifetime),
    /// Stored, to be validated before it is used again; for the reader alone who asked.
    Validate(Lifetime),
    /// Shared with those who joined its fetch, not stored.
    Share(Refusal),
    /// For the reader alone who asked.
    Keep(Refusal),
}

/// Judges an answer. A head alone can only be judged worse later: what is kept stays so.
pub fn judge(facts: &Facts<'_>) -> Verdict {
    let Facts {
        rules,
        headers,
        now,
        ..
    } = *facts;
    let said = Said::of(headers, rules.precedence, now);
    if let Some(reason) = not_for_others(facts, &said) {
        return Verdict::Keep(reason);
    }
    let status = facts.status.as_u16();
    let unstored = match status {
        // The operation's credential is in doubt: no answer of it outlives its own moment.
        401 | 403..=404 | 500.. => Verdict::Share(Refusal::Status),
        _ => Verdict::Keep(Refusal::Status),
    };
    if matches!(status, 401 | 407 | 429) {
        return unstored;
    }
    let kind = Kind::of(status);
    let life = Lifetime::of(rules, &said, kind, headers, now);
    let success = kind == Kind::Success;
    match life {
        Some(life) if !life.is_over() => Verdict::Store(life),
        // Nobody gives it a life, or it is over: what a later answer may be compared with is worth
        // keeping all the same.
        _ if success && Validators::of(headers).is_some() => {
            Verdict::Validate(life.unwrap_or_else(|| Lifetime::over(headers, now)))
        }
        Some(_) if !success => unstored,
        // Too old for the operator's own time to live, not for the API's.
        Some(life) if said.stated.is_none_or(|stated| stated > life.initial_age) => {
            Verdict::Share(Refusal::Expired)
        }
        Some(_) => Verdict::Keep(Refusal::Expired),
        None if success => Verdict::Keep(Refusal::NoLifetime),
        None => unstored,
    }
}

fn not_for_others(facts: &Facts<'_>, said: &Said) -> Option<Refusal> {
    let headers = facts.headers;
    let directives = &said.directives;
    let partial = matches!(
        facts.status,
        StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
    ) || headers.contains_key(header::CONTENT_RANGE);
    // `must-understand` lifts `no-store` where the status is understood, and forbids storing where
    // it is not (RFC 9111, section 5.2.2.3).
    let understood = is_understood(facts.status.as_u16());
    let no_store = directives.no_store && !(directives.must_understand && understood);
    let not_validatable = directives.no_cache && Validators::of(headers).is_none();
    let table = [
        (partial, Refusal::Partial),
        (facts.status.is_informational(), Refusal::Status),
        (no_store, Refusal::NoStore),
        (
            directives.must_understand && !understood,
            Refusal::NotUnderstood,
        ),
        (not_validatable, Refusal::NoCache),
        (
            // The second was the same under another name (RFC 2965).
            headers.contains_key(header::SET_COOKIE) || headers.contains_key("set-cookie2"),
            Refusal::SetCookie,
        ),
        (vary::fields(headers).is_none(), Refusal::Vary),
        (!coding::is_known(headers), Refusal::ContentEncoding),
        (headers.contains_key(header::TRAILER), Refusal::Unsuitable),
        (
            tokens(headers.get_all(header::CONTENT_LENGTH))
                .nth(1)
                .is_some(),
            Refusal::Unsuitable,
        ),
        (facts.body_bytes > facts.largest_body, Refusal::TooLarge),
    ];
    table
        .into_iter()
        .find(|(met, _)| *met)
        .map(|(_, reason)| reason)
}

/// Whether an answer of this status takes the place of an older one although it is not stored
/// itself: what is shown is to be the most recent (RFC 9111, section 4). Where the API fails, or
/// refuses the credential or the moment, the older one may still be right.
pub fn is_last_word(status: StatusCode) -> bool {
    !status.is_server_error() && !matches!(status.as_u16(), 206 | 304 | 401 | 408 | 429)
}

/// The statuses whose rules for caches are kept here (RFC 9110, section 15).
fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308 | 404 | 405 | 410 | 414 | 501
    )
}
