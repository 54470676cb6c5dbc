//! The two messages of an attempt, made fit for the hop that they are on: the request for the one
//! to the API, the response for the one back to the caller.
//!
//! What belongs to the other hop ends here: the version, the framing fields, the extensions. What
//! the caller and the API say to each other is not changed. Which headers are forwarded at all is
//! decided by the callers of this module.

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION, VIA};
use http::uri::PathAndQuery;
use http::{Extensions, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;

use super::attempt::Attempt;
use super::body::{AnswerBody, End, Limits};
use super::framing;
use super::outcome::Unknown;
use super::spec::{ClientSpec, Destination};
use crate::clock::Clock;

/// Rewrites a request for the hop to the API. `None` if its path does not fit the base: nothing is
/// sent.
pub(super) fn request(
    request: Request<Bytes>,
    spec: &ClientSpec,
    proxy_authorization: Option<&HeaderValue>,
) -> Option<Request<Full<Bytes>>> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned();
    parts.uri = spec
        .base
        .join(path.unwrap_or(PathAndQuery::from_static("/")))?;
    // The caller's version and the extensions of the server side do not belong to this hop.
    parts.version = Version::HTTP_11;
    parts.extensions = Extensions::new();
    framing::of_request(&mut parts.headers, &parts.method, body.len());
    // hyper sets `Host` from the URL.
    parts.headers.remove(HOST);
    parts.headers.append(VIA, spec.via.clone());
    if let Some(value) = proxy_authorization {
        parts.headers.insert(PROXY_AUTHORIZATION, value.clone());
    }
    Some(Request::from_parts(parts, Full::new(body)))
}

/// Makes a final response fit to be passed on, or rejects it as malformed: the outcome is unknown.
/// `limits` apply to its body.
/// The log names the server that it is `from`.
pub(super) fn response(
    response: Response<Incoming>,
    from: Destination,
    limits: Limits,
    clock: Clock,
) -> Attempt {
    let from = from.as_str();
    // hyper consumes 1xx responses, except for an unrequested 101, which is not final.
    if response.status().is_informational() {
        return Attempt::Unknown(Unknown::Malformed);
    }
    if framing::has_unknown_coding(response.headers()) {
        tracing::warn!(from, "response has an unsupported transfer coding");
        return Attempt::Unknown(Unknown::Malformed);
    }
    let end = if response.version() == Version::HTTP_2 {
        End::Stream
    } else {
        End::Framing
    };
    let mut response = response.map(|body| AnswerBody::new(body, end, limits, clock));
    let status = response.status();
    // RFC 9110, section 15.3.6: a 205 has no body. Its framing fields are removed below.
    if status == StatusCode::RESET_CONTENT {
        response.body_mut().forget();
    }
    if framing::of_answer(status, response.headers_mut()) {
        tracing::warn!(
            from,
            "response has both Transfer-Encoding and Content-Length: Content-Length is ignored"
        );
    }
    // All that belongs to the hop from the API is removed, except for an unusual reason phrase.
    *response.version_mut() = Version::default();
    let phrase = response.extensions_mut().remove::<ReasonPhrase>();
    *response.extensions_mut() = Extensions::new();
    if let Some(phrase) = phrase {
        response.extensions_mut().insert(phrase);
    }
    Attempt::Answered(response)
}
