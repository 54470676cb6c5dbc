//! Pure. How long a response is fresh, and when it may be served stale.
//!
//! Promises RFC 9111, sections 4.2 and 4.2.4, RFC 5861 and RFC 9213, combined with what the
//! operator configures: a time to live per operation, limits of staleness, and a [`Precedence`]. A
//! directive that forbids stale responses prevails over the operator's limits, unless
//! [`Precedence::Operator`] applies.
//!
//! Ages count from the sending of the request, so the time in transit is included (section 4.2.3,
//! `response_delay`). The wall clock matters only behind an HTTP/1.0 hop, which may have dropped an
//! `Age`, and for a response without `Date`. Otherwise the clocks of gateway and API need not
//! agree.

use super::control::{CacheControl, delta_seconds, tokens};
use super::{date, targeted};
use http::header::{self, HeaderMap, HeaderName};
use std::time::{Duration, SystemTime};

#[cfg(test)]
mod tests;

/// The longest heuristic lifetime (RFC 9111, section 4.2.2, recommends caution).
const LONGEST_GUESS: Duration = Duration::from_secs(86_400);

/// The rule that applies where both the API and the operator state a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precedence {
    /// The shorter of both times. What the API forbids stays forbidden.
    #[default]
    Shorter,
    /// The API's time. The operator's applies where the API states none.
    Upstream,
    /// The operator's time. `Cache-Control`, `CDN-Cache-Control` and `Expires` are ignored, except
    /// for `no-transform`.
    Operator,
}

/// The configuration of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The time to live of a success. Without it, only the API states lifetimes.
    pub ttl: Option<Duration>,
    /// The rule for conflicting times.
    pub precedence: Precedence,
    /// How long a stale response may be served during its refresh.
    pub while_revalidate: Option<Duration>,
    /// How long a stale response may be served when the API fails.
    pub if_error: Option<Duration>,
    /// How long a stale response may be served when the budget is exhausted.
    pub if_limited: Option<Duration>,
    /// The heuristic lifetime of a response without a stated one, in percent of the time since
    /// `Last-Modified`. 0 disables it.
    pub heuristic_percent: u32,
    /// Whether responses of any media type may be stored, because the route table does not know the
    /// operation.
    pub any_media_type: bool,
}

/// The caching instructions of a response, after one of its fields has been chosen to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The directives in force.
    pub directives: CacheControl,
    /// The stated lifetime, from a directive or from `Expires`.
    pub stated: Option<Duration>,
}

impl Said {
    /// Reads the header of a response. `now` is the wall clock.
    pub fn of(headers: &HeaderMap, precedence: Precedence, now: SystemTime) -> Self {
        let general = CacheControl::parse(headers.get_all(header::CACHE_CONTROL));
        if precedence == Precedence::Operator {
            let directives = CacheControl {
                // Unrelated to storing: the bytes are still the API's to protect.
                no_transform: general.no_transform,
                ..CacheControl::default()
            };
            return Self {
                directives,
                stated: None,
            };
        }
        if let Some(targeted) = targeted::parse(headers.get_all(targeted::CDN_CACHE_CONTROL)) {
            let directives = CacheControl {
                no_transform: targeted.no_transform || general.no_transform,
                ..targeted
            };
            return Self {
                directives,
                stated: directives.lifetime(),
            };
        }
        Self {
            directives: general,
            stated: general.lifetime().or_else(|| expires(headers, now)),
        }
    }
}

/// The lifetime of a stored response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// The age at the beginning of the fetch.
    pub initial_age: Duration,
    /// The age at which freshness ends.
    pub fresh_for: Duration,
    /// How much longer the response may be served during its refresh.
    pub while_revalidate: Duration,
    /// How much longer the response may be served when the API fails.
    pub if_error: Duration,
    /// How much longer the response may be served when the budget is exhausted.
    pub if_limited: Duration,
    /// Whether the response may be served stale at all, even to a reader that accepts it.
    pub may_be_stale: bool,
    /// Whether the response does not change while it is fresh (RFC 8246).
    pub immutable: bool,
}

/// The class of a status, as far as lifetimes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// A complete success, to which the operator's time to live applies.
    Success,
    /// Another status that permits a heuristic lifetime (RFC 9110, section 15.1).
    Guessable,
    /// A status that is stored only with a stated lifetime.
    Other,
}

impl StatusClass {
    /// The class of a status.
    pub fn of(status: u16) -> Self {
        match status {
            200 | 203 | 204 => Self::Success,
            300 | 301 | 308 | 404 | 405 | 410 | 414 | 501 => Self::Guessable,
            _ => Self::Other,
        }
    }
}

impl Lifetime {
    /// The lifetime of a response. `None` if neither side gives it one. It may already be over.
    pub fn of(
        rules: &Rules,
        said: &Said,
        kind: StatusClass,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Option<Self> {
        let initial_age = initial_age(headers, now);
        let ttl = rules.ttl.filter(|_| kind == StatusClass::Success);
        let fresh_for = match (rules.precedence, said.stated, ttl) {
            // The operator's time counts from the receipt, so an age from upstream must not shorten
            // it.
            (Precedence::Operator, _, ttl) => ttl? + initial_age,
            (Precedence::Upstream, Some(stated), _) => stated,
            (Precedence::Shorter, Some(stated), Some(ttl)) => stated.min(ttl),
            (_, stated, ttl) => stated
                .or(ttl)
                .or_else(|| guess(rules, said, kind, headers, now))?,
        };
        let directives = &said.directives;
        let time = |operator: Option<Duration>, upstream: Option<Duration>| match (
            rules.precedence,
            operator,
            upstream,
        ) {
            (Precedence::Shorter, Some(operator), Some(upstream)) => operator.min(upstream),
            (Precedence::Operator, operator, _) => operator.unwrap_or_default(),
            (_, operator, upstream) => upstream.or(operator).unwrap_or_default(),
        };
        Some(Self {
            initial_age,
            fresh_for: if directives.no_cache {
                Duration::ZERO
            } else {
                fresh_for
            },
            while_revalidate: time(rules.while_revalidate, directives.stale_while_revalidate),
            if_error: time(rules.if_error, directives.stale_if_error),
            if_limited: rules.if_limited.unwrap_or_default(),
            may_be_stale: directives.may_be_stale(),
            immutable: directives.immutable,
        })
    }

    /// The lifetime of a response that must be validated before each use.
    pub fn over(headers: &HeaderMap, now: SystemTime) -> Self {
        Self {
            initial_age: initial_age(headers, now),
            ..Self::default()
        }
    }

    /// Whether the lifetime is over on receipt.
    pub fn is_over(&self) -> bool {
        self.fresh_for <= self.initial_age
    }
}

/// The heuristic lifetime, where the operator enables it (RFC 9111, section 4.2.2).
fn guess(
    rules: &Rules,
    said: &Said,
    kind: StatusClass,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<Duration> {
    let guessable = kind != StatusClass::Other || said.directives.public;
    if rules.heuristic_percent == 0 || !guessable {
        return None;
    }
    let modified = date::parse(only(headers, header::LAST_MODIFIED)?, now)?;
    let unchanged = sent(headers, now).duration_since(modified).ok()?;
    let part = unchanged / 100 * rules.heuristic_percent;
    Some(part.min(LONGEST_GUESS))
}

/// The lifetime from `Expires`, relative to `Date` (RFC 9111, sections 4.2.1 and 5.3). An
/// unreadable or repeated `Expires` lies in the past.
fn expires(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if !headers.contains_key(header::EXPIRES) {
        return None;
    }
    let expires = only(headers, header::EXPIRES).and_then(|value| date::parse(value, now));
    let lifetime = expires.and_then(|expires| expires.duration_since(sent(headers, now)).ok());
    Some(lifetime.unwrap_or_default())
}

/// The time of the response by its `Date`, or else now (RFC 9110, section 6.6.1).
fn sent(headers: &HeaderMap, now: SystemTime) -> SystemTime {
    let date = headers.get(header::DATE);
    date.and_then(|date| date::parse(date, now)).unwrap_or(now)
}

/// The only value of a field. `None` if there are none or several.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&http::HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// The age on receipt, without the time in transit (RFC 9111, sections 4.2.3 and 5.1): the first
/// member of `Age`, or zero if it is not a number. An HTTP/1.0 hop need not send an `Age`. Behind
/// one, the time from `Date` to the sending of the request counts if that is longer.
fn initial_age(headers: &HeaderMap, now: SystemTime) -> Duration {
    let stated = tokens(headers.get_all(header::AGE)).next();
    let stated = stated.and_then(delta_seconds).unwrap_or_default();
    let old_hop = tokens(headers.get_all(header::VIA)).any(|hop| {
        let protocol = hop.split(u8::is_ascii_whitespace).next().unwrap_or(hop);
        protocol == b"1.0" || protocol.eq_ignore_ascii_case(b"http/1.0")
    });
    if !old_hop {
        return stated;
    }
    let apparent = now.duration_since(sent(headers, now));
    stated.max(apparent.unwrap_or_default())
}
