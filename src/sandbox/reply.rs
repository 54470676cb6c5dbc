//! Pure. The form of responses: envelopes, headers, media types.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, DATE, ETAG, IF_NONE_MATCH, RETRY_AFTER, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use sha2::{Digest, Sha256};

use super::rate_window::LimitDecision;
use super::request::{ApiError, quoted};

/// A finished response.
pub(super) type ApiResponse = Response<Bytes>;

const MEDIA_TYPES: [&str; 4] = [
    "application/json",
    "application/vnd.segment.v1+json",
    "application/vnd.segment.v1beta+json",
    "application/vnd.segment.v1alpha+json",
];
const CONSUMED: HeaderName = HeaderName::from_static("x-ratelimit-consumed");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// The version of the state that a read saw or a write made. The API has no such header; tests use
/// it to judge whether a response was too old.
const VERSION: HeaderName = HeaderName::from_static("x-sandbox-version");

/// Returns the media type of the response: the one of the API's that `Accept` prefers, or
/// `application/json` (RFC 9110, section 12.5.1). Of equally preferred ones the first counts.
pub(super) fn media_type(headers: &HeaderMap) -> &'static str {
    let mut best = (0.0, MEDIA_TYPES[0]);
    let accepts = headers.get_all(http::header::ACCEPT);
    for range in accepts
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts
            .find_map(|part| part.strip_prefix("q="))
            .map_or(Ok(1.0), str::parse::<f64>);
        let known = match name {
            "*/*" | "application/*" => Some(MEDIA_TYPES[0]),
            _ => MEDIA_TYPES
                .into_iter()
                .find(|known| known.eq_ignore_ascii_case(name)),
        };
        if let (Some(known), Ok(weight)) = (known, weight)
            && weight > best.0
        {
            best = (weight, known);
        }
    }
    best.1
}

/// Returns `{"data": …}` in a media type.
pub(super) fn success(status: StatusCode, data: &str, media: &'static str) -> ApiResponse {
    answer(status, format!(r#"{{"data":{data}}}"#), media)
}

/// Returns `{"errors": […]}` with one problem.
pub(super) fn failure(problem: &ApiError, media: &'static str) -> ApiResponse {
    let field = problem.field.as_deref().map_or_else(String::new, |field| {
        format!(r#","field":{}"#, quoted(field))
    });
    let (kind, message, status) = (problem.kind, quoted(&problem.message), problem.status);
    let error = format!(r#"{{"type":"{kind}","message":{message}{field},"status":{status}}}"#);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer(status, format!(r#"{{"errors":[{error}]}}"#), media)
}

/// Returns a 429 whose next request is admitted after `wait`. Milliseconds and seconds are rounded
/// up, so that a client that waits as long is not too early.
pub(super) fn throttled(consumed: u32, wait: Duration, media: &'static str) -> ApiResponse {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    let data =
        format!(r#"{{"remainingPoints":0,"msBeforeNext":{millis},"consumedPoints":{consumed}}}"#);
    let error = format!(r#"{{"type":"RequestError","message":"Too many requests","data":{data}}}"#);
    let mut answer = answer(
        StatusCode::TOO_MANY_REQUESTS,
        format!(r#"{{"errors":[{error}]}}"#),
        media,
    );
    let seconds = u64::try_from(millis.div_ceil(1000)).unwrap_or(u64::MAX);
    answer
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

/// Returns a 502 or 503 of a balancer in front of the API: no envelope, no rate headers.
pub(super) fn balancer(status: StatusCode) -> ApiResponse {
    let text = status.canonical_reason().unwrap_or("Error");
    answer(
        status,
        format!("<html><body><h1>{text}</h1></body></html>"),
        "text/html",
    )
}

/// Adds the rate headers. The reset is an RFC 5322 date, in whole seconds rounded down, as dates
/// are.
pub(super) fn add_rate(answer: &mut ApiResponse, verdict: &LimitDecision, wall: SystemTime) {
    let headers = answer.headers_mut();
    headers.insert(CONSUMED, HeaderValue::from(verdict.consumed));
    headers.insert(REMAINING, HeaderValue::from(verdict.remaining));
    headers.extend(date(wall + verdict.until_reset).map(|value| (RESET, value)));
}

/// Adds `Date` and the version of the state.
pub(super) fn add_common(answer: &mut ApiResponse, version: u64, wall: SystemTime) {
    let headers = answer.headers_mut();
    headers.insert(VERSION, HeaderValue::from(version));
    headers.extend(date(wall).map(|value| (DATE, value)));
}

/// Compresses the body for a client that accepts `gzip`.
pub(super) fn compress(answer: &mut ApiResponse, request: &HeaderMap) {
    let mut accepted = request.get_all(ACCEPT_ENCODING).iter();
    let named = accepted.any(|value| value.to_str().is_ok_and(|text| text.contains("gzip")));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    if !named || encoder.write_all(answer.body()).is_err() {
        return;
    }
    if let Ok(compressed) = encoder.finish() {
        *answer.body_mut() = compressed.into();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Adds an entity tag, and replaces the response by a 304 if the client has it.
pub(super) fn validate(answer: &mut ApiResponse, request: &HeaderMap) {
    let digest: [u8; 32] = Sha256::digest(answer.body()).into();
    let tag: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("\"{tag}\"");
    let mut known = request.get_all(IF_NONE_MATCH).iter();
    let is_known = known.any(|value| value.to_str().is_ok_and(|text| text.contains(&tag)));
    let headers = answer.headers_mut();
    headers.extend(HeaderValue::try_from(tag).ok().map(|tag| (ETAG, tag)));
    if is_known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        *answer.body_mut() = Bytes::new();
    }
}

fn date(at: SystemTime) -> Option<HeaderValue> {
    // The formatter supports the years 1970 to 9999.
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    if seconds >= 253_402_300_800 {
        return None;
    }
    HeaderValue::try_from(httpdate::fmt_http_date(at)).ok()
}

/// Returns a response with a body in a media type.
pub(super) fn answer(status: StatusCode, body: String, media: &'static str) -> ApiResponse {
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_chooses_the_media_type() {
        let table = [
            ("", "application/json"),
            ("*/*", "application/json"),
            (
                "application/vnd.segment.v1+json",
                "application/vnd.segment.v1+json",
            ),
            (
                "application/vnd.segment.v1alpha+json, application/json",
                "application/vnd.segment.v1alpha+json",
            ),
            (
                "application/json;q=0.5, application/vnd.segment.v1beta+json",
                "application/vnd.segment.v1beta+json",
            ),
            ("text/html", "application/json"),
        ];
        for (accept, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(media_type(&headers), expected, "{accept}");
        }
    }

    #[test]
    fn a_refusal_rounds_up() {
        let answer = throttled(21, Duration::from_micros(57_646_001), "application/json");
        assert_eq!(answer.headers()[RETRY_AFTER], "58");
        let expected = r#"{"errors":[{"type":"RequestError","message":"Too many requests","data":{"remainingPoints":0,"msBeforeNext":57647,"consumedPoints":21}}]}"#;
        assert_eq!(answer.body(), expected);
    }

    #[test]
    fn the_reset_is_a_date() {
        let verdict = LimitDecision {
            admitted: true,
            consumed: 1,
            remaining: 59,
            until_reset: Duration::from_secs(60),
            until_next: Duration::ZERO,
        };
        let mut answer = success(StatusCode::OK, "{}", "application/json");
        add_rate(
            &mut answer,
            &verdict,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_461_929),
        );
        assert_eq!(answer.headers()[RESET], "Mon, 23 Nov 2026 19:26:29 GMT");
        assert_eq!(
            date(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)),
            None
        );
    }
}
