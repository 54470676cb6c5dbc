//! Pure. How long an answer is fresh, and in which need it may be shown after that.
//!
//! Promises RFC 9111, sections 4.2 and 4.2.4, RFC 5861 and RFC 9213, with the operator's word
//! where one is given: a time to live of the operation, times of staleness, and whose word counts
//! ([`Precedence`]). What forbids staleness forbids it whatever the operator has configured, unless
//! the operator's word is the only one that counts.
//!
//! Ages are counted from the sending of the request, so the time on the way is in them (section
//! 4.2.3, `response_delay`). The wall clock is asked only where an HTTP/1.0 hop may have lost an
//! `Age`; our clock and the API's need not agree otherwise.

use super::control::{Directives, delta_seconds, tokens};
use super::{date, targeted};
use http::header::{self, HeaderMap, HeaderName};
use std::time::{Duration, SystemTime};

#[cfg(test)]
mod tests;

/// A lifetime by guess is never longer (RFC 9111, section 4.2.2, asks for care).
const LONGEST_GUESS: Duration = Duration::from_secs(86_400);

/// Whose word counts where the API and the operator both say something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precedence {
    /// The shorter of both times; what the API forbids is forbidden.
    #[default]
    Shorter,
    /// The API's; the operator's where the API says nothing.
    Upstream,
    /// The operator's; `Cache-Control`, `CDN-Cache-Control` and `Expires` are not looked at.
    Operator,
}

/// What the operator has configured for an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Time to live of a success; without one the API's word alone counts.
    pub ttl: Option<Duration>,
    /// Whose word counts.
    pub precedence: Precedence,
    /// How long a stale answer may be shown while a new one is fetched.
    pub while_revalidate: Option<Duration>,
    /// How long a stale answer may be shown when the API fails.
    pub if_error: Option<Duration>,
    /// How long a stale answer may be shown when the budget is spent.
    pub if_limited: Option<Duration>,
    /// Percent of the time since `Last-Modified` that an answer without a stated lifetime is
    /// believed for; 0 is not at all.
    pub heuristic_percent: u32,
}

/// What an answer says about its storing, after it is settled which fields count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The directives in force.
    pub directives: Directives,
    /// The lifetime that is stated, by a directive or by `Expires`.
    pub stated: Option<Duration>,
}

impl Said {
    /// Reads the header of an answer. `now` is the wall clock.
    pub fn of(headers: &HeaderMap, precedence: Precedence, now: SystemTime) -> Self {
        let general = Directives::parse(headers.get_all(header::CACHE_CONTROL));
        if precedence == Precedence::Operator {
            let directives = Directives {
                // Not about storing: the bytes are the API's.
                no_transform: general.no_transform,
                ..Directives::default()
            };
            return Self {
                directives,
                stated: None,
            };
        }
        if let Some(targeted) = targeted::parse(headers.get_all(targeted::CDN_CACHE_CONTROL)) {
            let directives = Directives {
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

/// The life of a stored answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Its age when its fetch began.
    pub initial_age: Duration,
    /// The age up to which it is fresh.
    pub fresh_for: Duration,
    /// How much longer it may be shown while a new one is fetched.
    pub while_revalidate: Duration,
    /// How much longer it may be shown when the API fails.
    pub if_error: Duration,
    /// How much longer it may be shown when the budget is spent.
    pub if_limited: Duration,
    /// Whether it may be shown stale at all, also to readers who ask for it.
    pub may_be_stale: bool,
    /// It does not change while it is fresh (RFC 8246).
    pub immutable: bool,
}

/// The kind of status, as far as lifetimes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A complete success, which the operator's time to live is meant for.
    Success,
    /// Another status for which a lifetime may be guessed (RFC 9110, section 15.1).
    Guessable,
    /// One that is stored with a stated lifetime only.
    Other,
}

impl Kind {
    /// The kind of a status.
    pub fn of(status: u16) -> Self {
        match status {
            200 | 203 | 204 => Self::Success,
            300 | 301 | 308 | 404 | 405 | 410 | 414 | 501 => Self::Guessable,
            _ => Self::Other,
        }
    }
}

impl Lifetime {
    /// The life of an answer, or `None` if nobody gives it one. It may be over already.
    pub fn of(
        rules: &Rules,
        said: &Said,
        kind: Kind,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Option<Self> {
        let initial_age = initial_age(headers, now);
        let ttl = rules.ttl.filter(|_| kind == Kind::Success);
        let fresh_for = match (rules.precedence, said.stated, ttl) {
            // An age from upstream says nothing about the operator's time.
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

    /// The life of an answer that has to be validated before each use.
    pub fn over(headers: &HeaderMap, now: SystemTime) -> Self {
        Self {
            initial_age: initial_age(headers, now),
            ..Self::default()
        }
    }

    /// Whether it is over when the answer comes.
    pub fn is_over(&self) -> bool {
        self.fresh_for <= self.initial_age
    }
}

/// A lifetime by guess, where the operator wants one (RFC 9111, section 4.2.2).
fn guess(
    rules: &Rules,
    said: &Said,
    kind: Kind,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<Duration> {
    let guessable = kind != Kind::Other || said.directives.public;
    if rules.heuristic_percent == 0 || !guessable {
        return None;
    }
    let modified = date::parse(only(headers, header::LAST_MODIFIED)?, now)?;
    let unchanged = sent(headers, now).duration_since(modified).ok()?;
    let part = unchanged / 100 * rules.heuristic_percent;
    Some(part.min(LONGEST_GUESS))
}

/// The lifetime by `Expires` (RFC 9111, sections 4.2.1 and 5.3): from the answer's own `Date`.
/// What cannot be read, or is there twice, is past.
fn expires(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if !headers.contains_key(header::EXPIRES) {
        return None;
    }
    let expires = only(headers, header::EXPIRES).and_then(|value| date::parse(value, now));
    let lifetime = expires.and_then(|expires| expires.duration_since(sent(headers, now)).ok());
    Some(lifetime.unwrap_or_default())
}

/// When the answer was sent, by its `Date`; without one, now (RFC 9110, section 6.6.1).
fn sent(headers: &HeaderMap, now: SystemTime) -> SystemTime {
    let date = headers.get(header::DATE);
    date.and_then(|date| date::parse(date, now)).unwrap_or(now)
}

/// The only value of a field; none if there are several.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&http::HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// The age of the answer when it came, the time on the way not included (RFC 9111, sections 4.2.3
/// and 5.1): the first member of `Age`, or none if that is not a number. Behind an HTTP/1.0 hop,
/// which need not send an `Age`, the time from its `Date` to the sending of the request if that is
/// more.
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
