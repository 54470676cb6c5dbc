//! Pure. The headers that the gateway adds to a response: `Cache-Status` (RFC 9211), `RateLimit`
//! and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), and `Server-Timing`.
//!
//! A hit gets none of these here: its stored headers are complete.

use crate::cache::cache_status::{CACHE_STATUS, CacheStatus};
use crate::exchange::timing::Timing;
use crate::gateway::report::millis;
use crate::limit::budgets::BudgetStatus;
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

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
    let name = &standing.budget;
    let window = standing.rate.window.as_secs_f64().ceil();
    let reset = standing.reset.as_secs_f64().ceil();
    let policy = format!("\"{name}\";q={};w={window}", standing.rate.limit);
    let state = format!("\"{name}\";r={};t={reset}", standing.remaining);
    for (field, text) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(field, value);
        }
    }
}

/// Adds the times of a request that was queued or sent. `merged` is the size of its batch.
pub(crate) fn show_timing(headers: &mut HeaderMap, timing: &Timing) {
    if !timing.sent && timing.queued.is_zero() {
        return;
    }
    let (queued, upstream) = (millis(timing.queued), millis(timing.upstream));
    let mut text = format!("queue;dur={queued:.1}, upstream;dur={upstream:.1}");
    if timing.throttled > 0 {
        text.push_str(&format!(", throttled;desc=\"{}\"", timing.throttled));
    }
    if timing.merged > 1 {
        text.push_str(&format!(", merged;desc=\"{}\"", timing.merged));
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.append(SERVER_TIMING, value);
    }
}
