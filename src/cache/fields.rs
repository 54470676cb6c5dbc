//! Pure. What becomes of the fields of a read that is a matter for the cache.
//!
//! Promises that no reader's own fields decide what others are shown: a fetch for everybody sends a
//! field only if every key holds it, if the key of this reader does, or if it cannot change the
//! answer. What is known to say nothing of the answer is left out; whatever is not known is a part
//! of the key.
//!
//! Writes, and reads that pass alone, are sent with all their fields.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It is sent: every key holds it, or it follows the request on its way.
    Sent,
    /// It is left out: it says nothing of the answer, or the cache itself heeds it.
    LeftOut,
    /// It is sent, and a part of the key where it is there.
    Keyed,
}

/// See [`Handling::Sent`]. `Content-Type` and `Content-Encoding` are those of a body.
const SENT: [HeaderName; 8] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    header::ORIGIN,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// Heeded here.
const OURS: [&str; 17] = [
    "cache-control",
    "pragma",
    "range",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "content-length",
    "expect",
    "host",
    "prefer",
    "priority",
];

/// Names of the client, the page, the way and the request: telemetry, whatever SDK it comes from.
const TELEMETRY: [&str; 40] = [
    "user-agent",
    "via",
    "referer",
    "from",
    "dnt",
    "upgrade-insecure-requests",
    "forwarded",
    "baggage",
    "b3",
    "sentry-trace",
    "request-id",
    "x-request-id",
    "correlation-id",
    "x-correlation-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "uber-trace-id",
    "newrelic",
    "elastic-apm-traceparent",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "idempotency-key",
    "date",
    "sw8",
    "sw8-correlation",
    "sw8-x",
    "singularityheader",
    "request-context",
    "correlation-context",
    "traceresponse",
    "x-trace-id",
    "x-transaction-id",
    "x-request-start",
    "x-queue-start",
    "x-amz-cf-id",
    "x-azure-ref",
    "x-ms-client-request-id",
    "x-ms-request-id",
];

/// What the names of more such fields begin with.
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

/// What becomes of this field.
pub fn handling(name: &HeaderName, value: &HeaderValue) -> Handling {
    // Any language is none in particular.
    let is_any = || *name == header::ACCEPT_LANGUAGE && value == "*";
    if SENT.contains(name) {
        Handling::Sent
    } else if is_left_out(name) || is_any() {
        Handling::LeftOut
    } else {
        Handling::Keyed
    }
}

/// Whether no fetch for everybody sends this field, whatever it says.
pub fn is_left_out(name: &HeaderName) -> bool {
    let name = name.as_str();
    OURS.contains(&name)
        || TELEMETRY.contains(&name)
        || LEFT_OUT.iter().any(|begin| name.starts_with(begin))
}

/// The fields of a request that its key holds besides those of every key, sorted and each once.
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

/// Leaves in a request for everybody only what is sent with one.
pub fn keep_sent(request: &HeaderMap) -> HeaderMap {
    let kept = request
        .iter()
        .filter(|(name, value)| handling(name, value) != Handling::LeftOut)
        .map(|(name, value)| (name.clone(), value.clone()));
    let mut sent = HeaderMap::with_capacity(request.len());
    for (name, value) in kept {
        sent.append(name, value);
    }
    sent
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
        let sent = keep_sent(&request);
        assert!(!sent.contains_key("user-agent"));
        assert_eq!(sent.len(), 4);
    }
}
