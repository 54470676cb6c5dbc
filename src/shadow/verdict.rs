//! Pure. What would have become of a request, in the words of `X-Gateway-Shadow`, metrics and log
//! alike.
//!
//! The field is an item of RFC 9651 with parameters: what would have happened, then why or when.
//! `hit; compared=same`, `queued; cache=miss; wait=12.345`, `refused; reason=wait; wait=170.000`.

use crate::cache::coding::{self, Coding, Decoder};
use crate::shadow::model::{Departure, Why};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write as _;
use std::time::Duration;

/// The field of an answer.
pub const SHADOW: HeaderName = HeaderName::from_static("x-gateway-shadow");

/// What the cache would have had for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// A fresh answer.
    Hit,
    /// A stale answer, which somebody permits.
    Stale,
    /// A fetch under way.
    Joined,
    /// Nothing: the API would have been asked.
    Miss,
    /// Nothing: it is no matter for the cache.
    Bypass,
    /// It is a write.
    Write,
}

impl Cached {
    /// The label.
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

/// Why a request would have been refused before any line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// Its caller asks for more than its quota.
    Quota,
    /// It accepts nothing but what is stored (`only-if-cached`).
    NotCached,
    /// Its `Idempotency-Key` is none.
    Key,
    /// It needs a credential and names none.
    NoCredential,
}

/// What would have become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// What the cache would have had.
    pub cached: Cached,
    /// When it would have left, if the API would have been asked for it alone.
    pub departure: Option<Departure>,
    /// Why not even that would have been asked.
    pub not_taken: Option<NotTaken>,
    /// Whether the API's answer was the one that would have been shown from the store, as far as
    /// that was known when its head was passed on.
    pub same: Option<bool>,
}

impl Foreseen {
    /// It would have been answered without a request of its own to the API.
    pub fn answered(cached: Cached) -> Self {
        Self {
            cached,
            departure: None,
            not_taken: None,
            same: None,
        }
    }

    /// It would have left for the API.
    pub fn leaves(cached: Cached, departure: Departure) -> Self {
        Self {
            departure: Some(departure),
            ..Self::answered(cached)
        }
    }

    /// It would have been refused before any line.
    pub fn not_taken(cached: Cached, why: NotTaken) -> Self {
        Self {
            not_taken: Some(why),
            ..Self::answered(cached)
        }
    }

    /// `hit`, `stale`, `joined`, `at-once`, `queued`, `merged` or `refused`.
    pub fn verdict(&self) -> &'static str {
        if self.not_taken.is_some() {
            return "refused";
        }
        match self.departure {
            None => self.cached.as_str(),
            Some(Departure::AtOnce) => "at-once",
            Some(Departure::Queued(_)) => "queued",
            Some(Departure::Merged(_)) => "merged",
            Some(Departure::Refused(_)) => "refused",
        }
    }

    /// How long it would have waited for its budget; nothing if it would not have left.
    pub fn wait(&self) -> Option<Duration> {
        match self.departure? {
            Departure::AtOnce => Some(Duration::ZERO),
            Departure::Queued(wait) | Departure::Merged(wait) => Some(wait),
            Departure::Refused(_) => None,
        }
    }

    /// Why it would have been refused: `quota`, `not-cached`, `key`, `no-credential`, `wait`,
    /// `full` or `overloaded`.
    pub fn reason(&self) -> Option<&'static str> {
        match (self.not_taken, self.departure) {
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

    /// The value of the field.
    pub fn value(&self) -> HeaderValue {
        let mut text = self.verdict().to_owned();
        // Writing to a string does not fail.
        if matches!(self.cached, Cached::Miss | Cached::Bypass) {
            let _ = write!(text, "; cache={}", self.cached.as_str());
        }
        if let Some(reason) = self.reason() {
            let _ = write!(text, "; reason={reason}");
        }
        let shown = match self.departure {
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

/// How a comparison is named.
pub const fn compared(same: bool) -> &'static str {
    if same { "same" } else { "different" }
}

/// Whether a body with this header is what is stored as `stored`: equal bytes once both are
/// decoded. Nothing if it cannot be decoded, or is longer than `most` then.
pub fn is_same_body(
    stored: (&Bytes, Coding),
    headers: &HeaderMap,
    body: &Bytes,
    most: usize,
) -> Option<bool> {
    let coding = coding::examine(headers, body, most).ok()?;
    let (before, its) = stored;
    let is_plain = |coding| coding == Coding::Plain;
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
        let leaves = Foreseen::leaves;
        let table = [
            (Foreseen::answered(Cached::Hit), "hit"),
            (
                Foreseen {
                    same: Some(true),
                    ..Foreseen::answered(Cached::Hit)
                },
                "hit; compared=same",
            ),
            (
                Foreseen {
                    same: Some(false),
                    ..Foreseen::answered(Cached::Hit)
                },
                "hit; compared=different",
            ),
            (Foreseen::answered(Cached::Stale), "stale"),
            (Foreseen::answered(Cached::Joined), "joined"),
            (leaves(Cached::Write, Departure::AtOnce), "at-once"),
            (
                leaves(Cached::Bypass, Departure::AtOnce),
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
                Foreseen::not_taken(Cached::Miss, NotTaken::NotCached),
                "refused; cache=miss; reason=not-cached",
            ),
            (
                Foreseen::not_taken(Cached::Write, NotTaken::Quota),
                "refused; reason=quota",
            ),
            (
                Foreseen::not_taken(Cached::Write, NotTaken::Key),
                "refused; reason=key",
            ),
        ];
        for (foreseen, expected) in table {
            assert_eq!(foreseen.value(), expected, "{foreseen:?}");
            let verdict = expected.split(';').next().unwrap();
            assert_eq!(foreseen.verdict(), verdict);
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
