//! Pure. The prediction for a request, in the same words for `X-Gateway-Shadow`, metrics and log.
//!
//! The header is an Item with parameters (RFC 9651): first what would have happened, then why or
//! when. `hit; compared=same`, `queued; cache=miss; wait=12.345`, `refused; reason=wait;
//! wait=170.000`.

use crate::cache::coding::{self, Coding, Decoder};
use crate::shadow::model::{Departure, Why};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write as _;
use std::time::Duration;

/// The header of the prediction.
pub const SHADOW: HeaderName = HeaderName::from_static("x-gateway-shadow");

/// The result of the cache lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// A fresh response.
    Hit,
    /// A stale response that may be served.
    Stale,
    /// A fetch in flight that would be joined.
    Joined,
    /// Nothing stored: the API would have been asked.
    Miss,
    /// Not cacheable: the API would have been asked.
    Bypass,
    /// A write.
    Write,
}

impl Cached {
    /// Returns the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Joined => "joined",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Write => "none",
        }
    }
}

/// The reason to reject a request before it is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The caller's quota is used up.
    Quota,
    /// The request accepts only stored responses (`only-if-cached`).
    NotCached,
    /// The `Idempotency-Key` is invalid.
    Key,
    /// The request has no credential and needs one.
    NoCredential,
}

/// The prediction for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The result of the cache lookup.
    pub cached: Cached,
    /// The departure, if the request would have needed the API.
    pub started: Option<Departure>,
    /// The reason to reject the request before it is queued.
    pub not_taken: Option<NotTaken>,
    /// Whether the API's response equals the stored one, as far as that was known when its head was
    /// sent.
    pub same: Option<bool>,
}

impl Prediction {
    /// Predicts a response without a request to the API.
    pub fn answered(cached: Cached) -> Self {
        Self {
            cached,
            started: None,
            not_taken: None,
            same: None,
        }
    }

    /// Predicts a request to the API.
    pub fn leaves(cached: Cached, started: Departure) -> Self {
        Self {
            started: Some(started),
            ..Self::answered(cached)
        }
    }

    /// Predicts a rejection before the queue.
    pub fn not_taken(cached: Cached, why: NotTaken) -> Self {
        Self {
            not_taken: Some(why),
            ..Self::answered(cached)
        }
    }

    /// Returns `hit`, `stale`, `joined`, `at-once`, `queued`, `merged` or `refused`.
    pub fn verdict(&self) -> &'static str {
        if self.not_taken.is_some() {
            return "refused";
        }
        match self.started {
            None => self.cached.as_str(),
            Some(Departure::Immediate) => "at-once",
            Some(Departure::Queued(_)) => "queued",
            Some(Departure::Merged(_)) => "merged",
            Some(Departure::Refused(_)) => "refused",
        }
    }

    /// Returns the wait for the budget, or `None` if the request would not have been sent.
    pub fn wait(&self) -> Option<Duration> {
        match self.started? {
            Departure::Immediate => Some(Duration::ZERO),
            Departure::Queued(wait) | Departure::Merged(wait) => Some(wait),
            Departure::Refused(_) => None,
        }
    }

    /// Returns the reason of a rejection: `quota`, `not-cached`, `key`, `no-credential`, `wait`,
    /// `full` or `overloaded`.
    pub fn reason(&self) -> Option<&'static str> {
        match (self.not_taken, self.started) {
            (Some(NotTaken::Quota), _) => Some("quota"),
            (Some(NotTaken::NotCached), _) => Some("not-cached"),
            (Some(NotTaken::Key), _) => Some("key"),
            (Some(NotTaken::NoCredential), _) => Some("no-credential"),
            (None, Some(Departure::Refused(why))) => Some(match why {
                Why::Wait(_) => "wait",
                Why::Full => "full",
                Why::TooManyBudgets => "overloaded",
            }),
            (None, _) => None,
        }
    }

    /// Returns the value of the header.
    pub fn value(&self) -> HeaderValue {
        let mut text = self.verdict().to_owned();
        // Writing to a string does not fail. A hit and a write say nothing about the cache: the
        // first word does.
        if matches!(self.cached, Cached::Miss | Cached::Bypass) {
            let _ = write!(text, "; cache={}", self.cached.as_str());
        }
        if let Some(reason) = self.reason() {
            let _ = write!(text, "; reason={reason}");
        }
        // Also how long a rejected request would have had to wait.
        let shown = match self.started {
            Some(Departure::Refused(Why::Wait(wait))) => Some(wait),
            _ => self.wait().filter(|wait| !wait.is_zero()),
        };
        if let Some(wait) = shown {
            let _ = write!(text, "; wait={:.3}", wait.as_secs_f64());
        }
        if let Some(same) = self.same {
            let _ = write!(text, "; compared={}", compared(same));
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// Returns the word for a comparison.
pub const fn compared(same: bool) -> &'static str {
    if same { "same" } else { "different" }
}

/// Returns whether a body equals the `stored` one after decoding both. Returns `None` if it cannot
/// be decoded, or is longer than `most` then.
pub fn is_same_body(
    stored: (&Bytes, Coding),
    headers: &HeaderMap,
    body: &Bytes,
    most: usize,
) -> Option<bool> {
    // Two codings of the same bytes are the same response to a reader.
    let coding = coding::examine(headers, body, most).ok()?;
    let (before, its) = stored;
    let is_plain = |coding| coding == Coding::Plain;
    // Equal bytes in one coding are equal without decoding.
    if is_plain(its) == is_plain(coding) && before == body {
        return Some(true);
    }
    if is_plain(its) && is_plain(coding) {
        return Some(false);
    }
    Some(decoded(before, its)? == decoded(body, coding)?)
}

fn decoded(body: &Bytes, coding: Coding) -> Option<Bytes> {
    let Coding::Gzip(length) = coding else {
        return Some(body.clone());
    };
    let mut decoder = Decoder::new(body.clone(), length);
    let mut all = Vec::with_capacity(length);
    while let Some(piece) = decoder.piece().ok()? {
        all.extend_from_slice(&piece);
    }
    Some(all.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    #[test]
    fn the_field_says_what_would_have_happened() {
        let seconds = Duration::from_secs;
        let leaves = Prediction::leaves;
        let table = [
            (Prediction::answered(Cached::Hit), "hit"),
            (
                Prediction {
                    same: Some(true),
                    ..Prediction::answered(Cached::Hit)
                },
                "hit; compared=same",
            ),
            (
                Prediction {
                    same: Some(false),
                    ..Prediction::answered(Cached::Hit)
                },
                "hit; compared=different",
            ),
            (Prediction::answered(Cached::Stale), "stale"),
            (Prediction::answered(Cached::Joined), "joined"),
            (leaves(Cached::Write, Departure::Immediate), "at-once"),
            (
                leaves(Cached::Bypass, Departure::Immediate),
                "at-once; cache=bypass",
            ),
            (
                leaves(Cached::Miss, Departure::Queued(seconds(12))),
                "queued; cache=miss; wait=12.000",
            ),
            (
                leaves(
                    Cached::Write,
                    Departure::Merged(Duration::from_millis(60_250)),
                ),
                "merged; wait=60.250",
            ),
            (
                leaves(Cached::Write, Departure::Refused(Why::Wait(seconds(170)))),
                "refused; reason=wait; wait=170.000",
            ),
            (
                leaves(Cached::Miss, Departure::Refused(Why::Full)),
                "refused; cache=miss; reason=full",
            ),
            (
                leaves(Cached::Write, Departure::Refused(Why::TooManyBudgets)),
                "refused; reason=overloaded",
            ),
            (
                Prediction::not_taken(Cached::Miss, NotTaken::NotCached),
                "refused; cache=miss; reason=not-cached",
            ),
            (
                Prediction::not_taken(Cached::Write, NotTaken::Quota),
                "refused; reason=quota",
            ),
            (
                Prediction::not_taken(Cached::Write, NotTaken::Key),
                "refused; reason=key",
            ),
        ];
        for (prediction, expected) in table {
            assert_eq!(prediction.value(), expected, "{prediction:?}");
            let verdict = expected.split(';').next().unwrap();
            assert_eq!(prediction.verdict(), verdict);
        }
    }

    #[test]
    fn bodies_are_compared_as_they_are_meant() {
        let gzip = |text: &[u8], level| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(text).unwrap();
            Bytes::from(encoder.finish().unwrap())
        };
        let text = Bytes::from("abcabcabc".repeat(100));
        let other = Bytes::from("abcabcabd".repeat(100));
        let length = text.len();
        let mut coded = HeaderMap::new();
        coded.insert("content-encoding", HeaderValue::from_static("gzip"));
        let plain = HeaderMap::new();
        let zipped = (&gzip(&text, 9), Coding::Gzip(length));
        let as_it_is = (&text, Coding::Plain);
        let most = 10_000;
        for (stored, headers, body, expected) in [
            (as_it_is, &plain, text.clone(), Some(true)),
            (as_it_is, &plain, other.clone(), Some(false)),
            (as_it_is, &coded, gzip(&text, 1), Some(true)),
            (as_it_is, &coded, gzip(&other, 1), Some(false)),
            (zipped, &plain, text.clone(), Some(true)),
            (zipped, &plain, other.clone(), Some(false)),
            (zipped, &coded, gzip(&text, 1), Some(true)),
            (zipped, &coded, gzip(&text, 9), Some(true)),
            (zipped, &coded, gzip(&other, 9), Some(false)),
            (zipped, &coded, text.clone(), None),
        ] {
            assert_eq!(is_same_body(stored, headers, &body, most), expected);
        }
        let mut unknown = HeaderMap::new();
        unknown.insert("content-encoding", HeaderValue::from_static("br"));
        assert_eq!(is_same_body(as_it_is, &unknown, &text, most), None);
        assert_eq!(is_same_body(as_it_is, &coded, &gzip(&text, 9), 10), None);
    }
}
