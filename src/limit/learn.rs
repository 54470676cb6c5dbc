//! Pure. What a response of the API says of its budget.
//!
//! Successful responses carry `X-RateLimit-Consumed`, `-Remaining` and `-Reset` (a date in the form
//! of RFC 5322). A 429 carries `msBeforeNext` in its body, or `Retry-After`. The wall clock of this
//! machine is never compared with theirs: a time is `Reset` minus the `Date` of the same response,
//! plus one second for the rounding of dates. Nothing here is trusted beyond the bounds that the
//! arithmetic of the window sets.

use http::{HeaderMap, HeaderName, header};
use serde_json::Value;
use std::time::Duration;

/// The names of the API's rate headers, in lower case.
pub const CONSUMED: HeaderName = HeaderName::from_static("x-ratelimit-consumed");
/// See [`CONSUMED`].
pub const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
/// See [`CONSUMED`].
pub const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The largest number that is believed. No limit of the API is near it.
const LARGEST: u32 = 10_000_000;

/// The rate headers of a successful response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The requests counted in the API's window, this one included.
    pub consumed: u32,
    /// The requests left in that window.
    pub remaining: u32,
    /// The time until the window ends, by the clock of the response, plus one second. `None` if the
    /// response does not say.
    pub reset_in: Option<Duration>,
}

impl Allowance {
    /// The limit that the response implies: consumed plus remaining, at least 1.
    pub fn limit(&self) -> u32 {
        self.consumed.saturating_add(self.remaining).max(1)
    }

    /// Reads the headers. `None` unless both counts are there once and are numbers.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let consumed = number(headers, &CONSUMED)?;
        let remaining = number(headers, &REMAINING)?;
        Some(Self {
            consumed,
            remaining,
            reset_in: date(headers, &RESET).and_then(|reset| until(headers, reset)),
        })
    }
}

/// The demand of a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// The time to wait, without bounds. `None` if the response does not say.
    pub wait: Option<Duration>,
    /// The requests counted in the window, this one included if it counts. `None` if the response
    /// does not say.
    pub consumed: Option<u32>,
}

impl Throttle {
    /// Reads a 429: `msBeforeNext` in the body, else `Retry-After` in either form
    /// (RFC 9110, section 10.2.3), else `X-RateLimit-Reset`.
    pub fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        let errors = document["errors"].as_array().into_iter().flatten();
        let data = errors.map(|error| &error["data"]);
        let longest = data.clone().filter_map(ms_before_next).max();
        let most = data.filter_map(consumed_points).max();
        Self {
            wait: longest
                .or_else(|| retry_after(headers))
                .or_else(|| date(headers, &RESET).and_then(|reset| until(headers, reset))),
            consumed: most.or_else(|| number(headers, &CONSUMED)),
        }
    }
}

fn ms_before_next(data: &Value) -> Option<Duration> {
    let ms = data.get("msBeforeNext")?.as_f64()?;
    let ms = Some(ms).filter(|ms| ms.is_finite() && *ms >= 0.0)?;
    Duration::try_from_secs_f64((ms / 1000.0).min(1e9)).ok()
}

fn consumed_points(data: &Value) -> Option<u32> {
    let points = data.get("consumedPoints")?.as_u64()?;
    Some(u32::try_from(points).unwrap_or(u32::MAX).min(LARGEST))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    until(headers, at)
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u32> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim().parse::<u32>().ok()?;
    values.next().is_none().then_some(value.min(LARGEST))
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<std::time::SystemTime> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    // RFC 5322 writes the zone as +0000 where HTTP writes GMT. Both occur.
    let text = text
        .strip_suffix("+0000")
        .or_else(|| text.strip_suffix("UTC"))
        .map_or_else(|| text.to_owned(), |start| format!("{start}GMT"));
    httpdate::parse_http_date(&text).ok()
}

/// `at` minus the `Date` of the same response, plus one second. `None` if `at` lies in the past.
fn until(headers: &HeaderMap, at: std::time::SystemTime) -> Option<Duration> {
    let sent = date(headers, &header::DATE)?;
    let left = at.duration_since(sent).ok()?;
    Some(left + Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn reads_the_documented_headers() {
        let read = Allowance::of(&headers(&[
            ("x-ratelimit-consumed", "3"),
            ("x-ratelimit-remaining", "57"),
            ("x-ratelimit-reset", "Mon, 23 Nov 2026 19:26:29 GMT"),
            ("date", "Mon, 23 Nov 2026 19:25:40 GMT"),
        ]))
        .unwrap();
        assert_eq!(read.limit(), 60);
        assert_eq!(read.reset_in, Some(Duration::from_secs(50)));
    }

    #[test]
    fn believes_no_nonsense() {
        for (consumed, remaining) in [("x", "1"), ("-1", "1"), ("1", ""), ("5000000000", "1")] {
            let map = headers(&[
                ("x-ratelimit-consumed", consumed),
                ("x-ratelimit-remaining", remaining),
            ]);
            assert_eq!(Allowance::of(&map), None, "{consumed}/{remaining}");
        }
        let twice = headers(&[
            ("x-ratelimit-consumed", "1"),
            ("x-ratelimit-consumed", "2"),
            ("x-ratelimit-remaining", "1"),
        ]);
        assert_eq!(Allowance::of(&twice), None);
        let huge = headers(&[
            ("x-ratelimit-consumed", "4000000000"),
            ("x-ratelimit-remaining", "4000000000"),
        ]);
        assert_eq!(Allowance::of(&huge).unwrap().limit(), 2 * LARGEST);
    }

    #[test]
    fn a_date_without_the_answers_own_date_says_nothing() {
        let map = headers(&[
            ("x-ratelimit-consumed", "1"),
            ("x-ratelimit-remaining", "1"),
            ("x-ratelimit-reset", "Mon, 23 Nov 2026 19:26:29 GMT"),
        ]);
        assert_eq!(Allowance::of(&map).unwrap().reset_in, None);
    }

    #[test]
    fn a_429_names_its_wait_in_several_ways() {
        let body = br#"{"errors":[{"type":"RequestError","data":{"remainingPoints":0,"msBeforeNext":57647,"consumedPoints":21}}]}"#;
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [u8], Option<u64>);
        let cases: &[Case<'_>] = &[
            (&[], body, Some(57_647)),
            (&[("retry-after", "7")], body, Some(57_647)),
            (&[("retry-after", "7")], b"{}", Some(7_000)),
            (
                &[
                    ("retry-after", "Mon, 23 Nov 2026 19:26:29 GMT"),
                    ("date", "Mon, 23 Nov 2026 19:26:20 GMT"),
                ],
                b"",
                Some(10_000),
            ),
            (&[("retry-after", "soon")], b"not json", None),
            (&[("retry-after", "99999999999999999999")], b"", None),
            (&[], br#"{"errors":[{"data":{"msBeforeNext":-4}}]}"#, None),
            (&[], br#"{"errors":{"data":1}}"#, None),
        ];
        for (pairs, body, expected) in cases {
            let read = Throttle::of(&headers(pairs), body).wait;
            assert_eq!(read, expected.map(Duration::from_millis), "{pairs:?}");
        }
        let consumed = |body: &[u8]| Throttle::of(&headers(&[("x-ratelimit-consumed", "7")]), body);
        assert_eq!(consumed(body).consumed, Some(21));
        assert_eq!(consumed(b"{}").consumed, Some(7));
        assert_eq!(Throttle::of(&headers(&[]), b"{}").consumed, None);
    }
}
