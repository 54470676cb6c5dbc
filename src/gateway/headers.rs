//! Pure. The headers that the gateway adds to a response: `Cache-Status` (RFC 9211), `RateLimit`
//! and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), and `Server-Timing`.
//!
//! A hit gets none of these here: its stored headers are complete.

use crate::cache::cache_status::{CACHE_STATUS, CacheStatus};
use crate::exchange::timing::Timing;
use crate::limit::budgets::BudgetStatus;
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use std::time::Duration;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Adds the result of the cache. A response without one is that to a write.
pub(crate) fn show_cache(
    headers: &mut HeaderMap,
    cache: Option<&CacheStatus>,
    error: Option<&str>,
    via: &HeaderValue,
) {
    if let Some(kind) = error {
        mark_own(headers, kind, via);
        return;
    }
    let value = cache.map_or_else(|| CacheStatus::write().value(), CacheStatus::value);
    if let Some(value) = value {
        headers.append(CACHE_STATUS, value);
    }
}

/// Marks an error of the gateway itself: neither a hit nor forwarded.
pub(crate) fn mark_own(headers: &mut HeaderMap, kind: &str, via: &HeaderValue) {
    let value = HeaderValue::try_from(format!("segment-gateway; detail={kind}"));
    let value = value.unwrap_or(HeaderValue::from_static("segment-gateway"));
    headers.append(CACHE_STATUS, value);
    headers.append(header::VIA, via.clone());
}

/// Adds `RateLimit` and `RateLimit-Policy` of the budget.
pub(crate) fn show_budget(headers: &mut HeaderMap, standing: &BudgetStatus) {
    let (name, rate) = (&*standing.budget, &standing.rate);
    let limit = u64::from(rate.limit);
    let remaining = u64::from(standing.remaining);
    for (field, [(first, number), (second, time)]) in [
        (
            RATE_LIMIT_POLICY,
            [("\";q=", limit), (";w=", whole_seconds(rate.window))],
        ),
        (
            RATE_LIMIT,
            [("\";r=", remaining), (";t=", whole_seconds(standing.reset))],
        ),
    ] {
        let mut text = HeaderText::default();
        text.push("\"").push(name);
        text.push(first).number(number);
        text.push(second).number(time);
        text.append_to(headers, field);
    }
}

/// Adds the times of a request that was queued or sent. `merged` is the size of its batch.
pub(crate) fn show_timing(headers: &mut HeaderMap, timing: &Timing) {
    if !timing.sent && timing.queued.is_zero() {
        return;
    }
    let mut text = HeaderText::default();
    text.push("queue;dur=").tenths(timing.queued);
    text.push(", upstream;dur=").tenths(timing.upstream);
    if timing.throttled > 0 {
        text.push(", throttled;desc=\"");
        text.number(timing.throttled.into()).push("\"");
    }
    if timing.merged > 1 {
        text.push(", merged;desc=\"");
        text.number(timing.merged as u64).push("\"");
    }
    text.append_to(headers, SERVER_TIMING);
}

/// Returns the duration in whole seconds, rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// The text of a header, put together without a formatter: every response that is no hit has three
/// of them.
struct HeaderText(String);

impl Default for HeaderText {
    fn default() -> Self {
        // Almost every text fits.
        Self(String::with_capacity(64))
    }
}

impl HeaderText {
    fn push(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.push(itoa::Buffer::new().format(number))
    }

    /// Adds a duration in milliseconds, to the tenth.
    fn tenths(&mut self, duration: Duration) -> &mut Self {
        let tenths = u64::try_from((duration.as_micros() + 50) / 100).unwrap_or(u64::MAX);
        self.number(tenths / 10).push(".").number(tenths % 10)
    }

    /// Appends the header, unless the text is no value.
    fn append_to(&self, headers: &mut HeaderMap, name: HeaderName) {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::policy::Rate;

    #[test]
    fn the_times_of_a_request_are_shown_in_milliseconds() {
        let micros = Duration::from_micros;
        let timing = |queued, upstream, throttled, merged, sent| Timing {
            queued: micros(queued),
            upstream: micros(upstream),
            throttled,
            merged,
            sent,
            ..Timing::default()
        };
        for (timing, expected) in [
            (timing(0, 0, 0, 0, false), None),
            (
                timing(0, 0, 0, 0, true),
                Some("queue;dur=0.0, upstream;dur=0.0"),
            ),
            (
                timing(49, 950, 0, 1, true),
                Some("queue;dur=0.0, upstream;dur=1.0"),
            ),
            (
                timing(61_234_567, 51, 2, 9, true),
                Some(
                    "queue;dur=61234.6, upstream;dur=0.1, throttled;desc=\"2\", merged;desc=\"9\"",
                ),
            ),
        ] {
            let mut headers = HeaderMap::new();
            show_timing(&mut headers, &timing);
            let shown = headers.get(SERVER_TIMING);
            assert_eq!(shown.map(|value| value.to_str().unwrap()), expected);
        }
    }

    #[test]
    fn a_budget_is_shown_in_whole_seconds() {
        let mut headers = HeaderMap::new();
        let status = BudgetStatus {
            budget: "public api".into(),
            rate: Rate {
                limit: 60,
                window: Duration::from_millis(59_001),
            },
            remaining: 7,
            reset: Duration::ZERO,
        };
        show_budget(&mut headers, &status);
        assert_eq!(headers[RATE_LIMIT_POLICY], "\"public api\";q=60;w=60");
        assert_eq!(headers[RATE_LIMIT], "\"public api\";r=7;t=0");
    }
}
