//! Pure. The handling of each request field of a cacheable read.
//!
//! Promises that no reader's own fields decide what other readers get. A shared fetch sends a field
//! only if it is part of every key, if it is part of this reader's key, or if it cannot change the
//! response. Fields known to have no influence on the response are left out. Every unknown field
//! becomes part of the key.
//!
//! Writes and uncacheable reads do not pass through here: they are sent with all their fields.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The handling of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Sent upstream: every key contains it, or it only accompanies the request.
    Sent,
    /// Left out: it does not affect the response, or the cache itself acts on it.
    LeftOut,
    /// Sent upstream, and part of the key where present.
    Keyed,
}

// These are matches and not tables: every read that is not on the fast path asks about each of its
// fields.

/// Whether a field is sent because every key contains it, or because it only accompanies the
/// request. `Content-Type` and `Content-Encoding` describe a body, which the key holds.
fn is_sent(name: &str) -> bool {
    matches!(
        name,
        "accept"
            | "accept-encoding"
            | "authorization"
            | "origin"
            | "content-type"
            | "content-encoding"
            | "traceparent"
            | "tracestate"
    )
}

/// Whether the gateway itself acts on a field.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "cache-control"
            | "pragma"
            | "range"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "content-length"
            | "expect"
            | "host"
            | "prefer"
            | "priority"
    )
}

/// Whether a field is telemetry of any SDK: the client, the page, the network path or the request.
fn is_telemetry(name: &str) -> bool {
    matches!(
        name,
        "user-agent"
            | "via"
            | "referer"
            | "from"
            | "dnt"
            | "upgrade-insecure-requests"
            | "forwarded"
            | "baggage"
            | "b3"
            | "sentry-trace"
            | "request-id"
            | "x-request-id"
            | "correlation-id"
            | "x-correlation-id"
            | "x-amzn-trace-id"
            | "x-cloud-trace-context"
            | "uber-trace-id"
            | "newrelic"
            | "elastic-apm-traceparent"
            | "x-real-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "true-client-ip"
            | "idempotency-key"
            | "date"
            | "sw8"
            | "sw8-correlation"
            | "sw8-x"
            | "singularityheader"
            | "request-context"
            | "correlation-context"
            | "traceresponse"
            | "x-trace-id"
            | "x-transaction-id"
            | "x-request-start"
            | "x-queue-start"
            | "x-amz-cf-id"
            | "x-azure-ref"
            | "x-ms-client-request-id"
            | "x-ms-request-id"
    )
}

/// Prefixes of further fields that are left out.
const LEFT_OUT: [&str; 13] = [
    "if-",
    "sec-",
    "x-b3-",
    "x-datadog-",
    "x-dynatrace",
    "x-instana-",
    "x-newrelic-",
    "x-ot-span-",
    "x-stainless-",
    "x-envoy-",
    "x-forwarded-",
    "x-gateway-",
    "cf-",
];

/// The handling of this field.
pub fn handling(name: &HeaderName, value: &HeaderValue) -> Handling {
    // `*` expresses no preference.
    let is_any = || *name == header::ACCEPT_LANGUAGE && value == "*";
    if is_sent(name.as_str()) {
        Handling::Sent
    } else if is_left_out(name) || is_any() {
        Handling::LeftOut
    } else {
        Handling::Keyed
    }
}

/// Whether shared fetches leave this field out whatever its value.
pub fn is_left_out(name: &HeaderName) -> bool {
    let name = name.as_str();
    is_ours(name) || is_telemetry(name) || LEFT_OUT.iter().any(|begin| name.starts_with(begin))
}

/// The request fields that are part of the key, besides those of every key. Sorted, without
/// duplicates.
pub fn keyed(request: &HeaderMap) -> Vec<HeaderName> {
    let keyed =
        |(name, value): &(&HeaderName, &HeaderValue)| handling(name, value) == Handling::Keyed;
    let mut names: Vec<_> = request
        .iter()
        .filter(keyed)
        .map(|(name, _)| name.clone())
        .collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use Handling::{Keyed, LeftOut, Sent};

    fn handled(name: &str, value: &str) -> Handling {
        handling(&name.parse().unwrap(), &value.parse().unwrap())
    }

    #[test]
    fn what_becomes_of_each_field() {
        for (expected, names) in [
            (
                Sent,
                "accept accept-encoding authorization origin content-type content-encoding \
                traceparent tracestate",
            ),
            (
                LeftOut,
                "user-agent referer cache-control pragma if-none-match if-range range connection \
                baggage sentry-trace x-request-id x-b3-traceid x-datadog-trace-id sec-fetch-mode \
                sec-ch-ua x-stainless-lang x-stainless-retry-count x-envoy-attempt-count \
                x-forwarded-for x-gateway-caller cf-ray via prefer idempotency-key date sw8 \
                sw8-correlation x-instana-t x-dynatrace x-dynatrace-application singularityheader \
                x-newrelic-id newrelic request-context correlation-context traceresponse x-trace-id \
                x-transaction-id x-request-start x-queue-start x-amz-cf-id x-azure-ref \
                x-ms-client-request-id x-ms-request-id",
            ),
            (
                Keyed,
                "accept-language accept-charset content-language x-api-version x-tenant \
                x-requested-with segment-version save-data",
            ),
        ] {
            for name in names.split_whitespace() {
                assert_eq!(handled(name, "x"), expected, "{name}");
            }
        }
        assert_eq!(handled("accept-language", "*"), LeftOut);
    }

    #[test]
    fn a_request_is_known_by_what_is_not_known() {
        let mut request = HeaderMap::new();
        for (name, value) in [
            ("x-b", "1"),
            ("accept", "a"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("user-agent", "sdk"),
        ] {
            request.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(keyed(&request), ["x-a", "x-b"]);
    }
}
