//! Pure. What of a request and of an answer passes the gateway, and what is refused at its edge.
//!
//! Hop-by-hop fields do not pass (RFC 9110, section 7.6.1), nor do the gateway's own. What could be
//! understood in two ways is refused rather than repaired, because the API might understand it in
//! the other.

use super::request_id::REQUEST_ID;
use crate::cache::date;
use crate::credential;
use crate::error::GatewayError;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Uri, Version};
use std::time::SystemTime;

/// Removed in both directions, besides whatever `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Not sent upstream: the gateway's own, what it answers itself, and what names its callers.
const NOT_FORWARDED: [HeaderName; 5] = [
    header::EXPECT,
    header::FORWARDED,
    HeaderName::from_static("prefer"),
    HeaderName::from_static("priority"),
    header::TRAILER,
];

/// Fields that `Connection` must not name: a later hop would see the request without them.
const END_TO_END: [&str; 4] = ["authorization", "host", "accept", "cookie"];

/// Says that an answer is the recorded one of an earlier request.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What begins the paths of the gateway's own.
pub const OWN: &str = "/_gateway";

/// Method-override fields in the field; with one of them a request may be any write.
const OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// What probes, scrapers and people ask the listener of operators for; the API has none of these.
const OPERATORS: [&str; 8] = [
    "/metrics", "/livez", "/readyz", "/status", "/live", "/cache", "/log", "/writes",
];
/// What operators' own programs send, perhaps with the token of operators, which is nobody else's.
const OPERATORS_OWN: HeaderName = HeaderName::from_static("x-gateway-admin");

/// Whether a page of operators is asked for, which somebody looks for on the wrong port: by a
/// program of operators, or without a credential by its path, or at `/` by a browser. It would cost
/// the API a request to say so.
fn is_lost<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let path = request.uri().path();
    if headers.contains_key(OPERATORS_OWN) {
        return true;
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let wants_page = || {
        let mut accepts = headers.get_all(header::ACCEPT).iter();
        accepts.any(|accept| accept.as_bytes().starts_with(b"text/html"))
    };
    is_read
        && !credential::is_named(headers)
        && (OPERATORS.contains(&path) || path == "/" && wants_page())
}

/// Refuses what is never forwarded and what is ambiguous.
pub fn check<B>(request: &Request<B>) -> Result<(), GatewayError> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(GatewayError::MethodRefused);
    }
    check_target(request.uri(), request.version())?;
    if is_lost(request) {
        return Err(GatewayError::WrongListener);
    }
    let headers = request.headers();
    for (name, problem) in [
        (header::HOST, "The request has more than one Host"),
        (
            header::AUTHORIZATION,
            "The request has more than one Authorization",
        ),
        (
            header::CONTENT_LENGTH,
            "The request has more than one Content-Length",
        ),
        (
            header::CONTENT_TYPE,
            "The request has more than one Content-Type",
        ),
    ] {
        if headers.get_all(&name).iter().nth(1).is_some() {
            return Err(GatewayError::BadRequest(problem));
        }
    }
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(GatewayError::BadRequest(AMBIGUOUS_LENGTH));
    }
    check_encoding(headers)?;
    if headers.contains_key(header::UPGRADE) {
        return Err(GatewayError::BadRequest(
            "Protocol upgrades are not accepted",
        ));
    }
    if request.version() == Version::HTTP_11 && !headers.contains_key(header::HOST) {
        return Err(GatewayError::BadRequest(
            "The request has no Host (RFC 9112, section 3.2)",
        ));
    }
    if let Some(host) = headers.get(header::HOST)
        && !host.is_empty()
        && Authority::try_from(host.as_bytes()).is_err()
    {
        return Err(GatewayError::BadRequest(
            "Host is not the name of a host (RFC 9112, section 3.2)",
        ));
    }
    let mut connection = headers.get_all(header::CONNECTION).iter();
    if connection.any(|value| value.to_str().is_err()) {
        return Err(GatewayError::BadRequest(
            "Connection names something that is not a field",
        ));
    }
    let names_end_to_end = connection_names(headers)
        .any(|name| END_TO_END.contains(&name.as_str()) || name.starts_with("content-"));
    if names_end_to_end {
        return Err(GatewayError::BadRequest(
            "Connection names a field that belongs to the whole way (Authorization, Host, Accept, \
            Cookie or Content-*)",
        ));
    }
    Ok(())
}

/// Said where a message has both `Transfer-Encoding` and `Content-Length` (RFC 9112, 6.3).
pub const AMBIGUOUS_LENGTH: &str = "The request has both Transfer-Encoding and Content-Length";

/// A body in another coding than `chunked` could not be told from one in that coding alone.
fn check_encoding(headers: &HeaderMap) -> Result<(), GatewayError> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(one), None) => one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if plain {
        return Ok(());
    }
    Err(GatewayError::BadRequest(
        "Transfer-Encoding has another coding than chunked, and only that one is understood",
    ))
}

fn check_target(uri: &Uri, version: Version) -> Result<(), GatewayError> {
    if uri.scheme().is_some() || (uri.authority().is_some() && version < Version::HTTP_2) {
        return Err(GatewayError::BadRequest(
            "The request target is in absolute form; use the gateway as base URL, not as proxy",
        ));
    }
    if !uri.path().starts_with('/') {
        return Err(GatewayError::BadRequest("The request target is not a path"));
    }
    Ok(())
}

/// Whether the path is one of the gateway's own, which are never forwarded: as it is written, or as
/// a server may read it that decodes paths, skips empty segments and resolves dots.
pub fn is_own(path: &str) -> bool {
    if path == OWN
        || path
            .strip_prefix(OWN)
            .is_some_and(|rest| rest.starts_with('/'))
    {
        return true;
    }
    let plain = !path.contains('%') && !path.contains("//") && !path.contains("/.");
    !plain && first_segment(path).as_deref() == Some(OWN.trim_start_matches('/').as_bytes())
}

/// The first segment of the path that is meant.
fn first_segment(path: &str) -> Option<Vec<u8>> {
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
    let mut meant: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => drop(meant.pop()),
            segment => meant.push(segment),
        }
    }
    meant.first().map(|first| first.to_vec())
}

/// Whether a field asks the API to treat the request as another method.
pub fn overrides_method(headers: &HeaderMap) -> bool {
    OVERRIDES.iter().any(|name| headers.contains_key(*name))
}

/// The header of the request as it goes upstream. `Host` and `Via` are set by the client.
pub fn request_headers(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = connection_names(headers).collect();
    let mut forwarded = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers {
        let text = name.as_str();
        let dropped = HOP_BY_HOP.contains(name)
            || NOT_FORWARDED.contains(name)
            || *name == header::HOST
            || *name == header::CONTENT_LENGTH
            || text.starts_with("x-gateway-")
            || text.starts_with("x-forwarded-")
            || named.iter().any(|n| n == text);
        if !dropped {
            forwarded.append(name.clone(), value.clone());
        }
    }
    forwarded
}

/// Removes from an answer what belongs to the hop to the API, its id included, since the answer's
/// own is the one that the log has, and what only the gateway may say, and adds `via`.
pub fn clean_answer(headers: &mut HeaderMap, via: &HeaderValue) {
    headers.remove(REQUEST_ID);
    headers.remove(REPLAYED);
    let is_own = |name: &&HeaderName| name.as_str().starts_with("x-gateway-");
    let mut removed: Vec<HeaderName> = headers.keys().filter(is_own).cloned().collect();
    removed.extend(connection_names(headers).filter_map(|name| name.parse().ok()));
    for name in HOP_BY_HOP.iter().chain(&removed) {
        headers.remove(name);
    }
    headers.append(header::VIA, via.clone());
}

/// Gives an answer the date at which it came if it has none that can be read (RFC 9110, section
/// 6.6.1).
pub fn date_answer(headers: &mut HeaderMap, now: SystemTime) {
    let mut dates = headers.get_all(header::DATE).iter();
    let only = dates.next().filter(|_| dates.next().is_none());
    if only.is_some_and(|date| date::parse(date, now).is_some()) {
        return;
    }
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
        headers.insert(header::DATE, date);
    }
}

fn connection_names(headers: &HeaderMap) -> impl Iterator<Item = String> + '_ {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn who_looks_for_a_page_of_operators_hears_where_it_is() {
        let host = ("host", "gateway");
        let browser = ("accept", "text/html,application/xhtml+xml");
        let token = ("authorization", "Bearer t");
        let cases: &[(Request<()>, bool)] = &[
            (request("GET", "/metrics", &[host]), true),
            (request("HEAD", "/livez", &[host]), true),
            (request("GET", "/", &[host, browser]), true),
            (request("GET", "/", &[host]), false),
            (request("GET", "/", &[host, browser, token]), false),
            (request("GET", "/metrics", &[host, token]), false),
            (request("POST", "/metrics", &[host]), false),
            (request("GET", "/users", &[host, browser]), false),
            (
                request(
                    "POST",
                    "/writes/pause",
                    &[host, token, ("x-gateway-admin", "1")],
                ),
                true,
            ),
        ];
        for (asked, lost) in cases {
            let found = check(asked) == Err(GatewayError::WrongListener);
            assert_eq!(found, *lost, "{asked:?}");
        }
    }

    #[test]
    fn what_is_refused_at_the_edge() {
        let host = ("host", "gateway");
        let cases: &[(Request<()>, bool)] = &[
            (request("GET", "/users", &[host]), true),
            (request("BREW", "/users", &[host]), true),
            (request("GET", "/users", &[]), false),
            (request("CONNECT", "api:443", &[host]), false),
            (request("TRACE", "/users", &[host]), false),
            (request("GET", "/users", &[("host", "a b/c")]), false),
            (request("GET", "/users", &[("host", "[::1]:8080")]), true),
            (request("GET", "/users", &[("host", "")]), true),
            (request("GET", "http://other/users", &[host]), false),
            (request("OPTIONS", "*", &[host]), false),
            (request("GET", "/users", &[host, ("upgrade", "h2c")]), false),
            (request("GET", "/users", &[host, host]), false),
            (
                request(
                    "GET",
                    "/u",
                    &[host, ("authorization", "a"), ("authorization", "a")],
                ),
                false,
            ),
            (
                request(
                    "POST",
                    "/u",
                    &[
                        host,
                        ("transfer-encoding", "chunked"),
                        ("content-length", "3"),
                    ],
                ),
                false,
            ),
            (
                request(
                    "GET",
                    "/u",
                    &[host, ("connection", "keep-alive, Authorization")],
                ),
                false,
            ),
            (
                request(
                    "GET",
                    "/u",
                    &[host, ("connection", "x"), ("connection", "content-type")],
                ),
                false,
            ),
            (
                request("GET", "/u", &[host, ("connection", "close, x-mine")]),
                true,
            ),
            (
                request(
                    "GET",
                    "/u",
                    &[host, ("connection", "authorization, \u{e9}")],
                ),
                false,
            ),
        ];
        for (request, accepted) in cases {
            assert_eq!(check(request).is_ok(), *accepted, "{request:?}");
        }
    }

    #[test]
    fn what_a_server_may_read_otherwise_is_refused() {
        let cases: [(&[&str], &str, bool); 6] = [
            (&["close, x-mine"], "connection", true),
            (&["authorization, \u{e9}"], "connection", false),
            (&["Chunked"], "transfer-encoding", true),
            (&["gzip, chunked"], "transfer-encoding", false),
            (&["chunked", "chunked"], "transfer-encoding", false),
            (&["chunked, chunked"], "transfer-encoding", false),
        ];
        for (values, name, accepted) in cases {
            let mut fields = vec![("host", "gateway")];
            fields.extend(values.iter().map(|value| (name, *value)));
            let request = request("POST", "/u", &fields);
            assert_eq!(check(&request).is_ok(), accepted, "{request:?}");
        }
    }

    #[test]
    fn the_gateways_own_paths_are_known_in_every_spelling() {
        for path in [
            "/_gateway",
            "/_gateway/x",
            "/_gateway/../users",
            "/%5Fgateway/x",
            "/%5fgate%77ay",
            "//_gateway/x",
            "/./_gateway/x",
            "/a/../_gateway/x",
            "/a/b/%2e%2E/../_gateway/x",
            "/../_gateway",
            "/_gateway%2Fx",
            "/%2F_gateway/x",
        ] {
            assert!(is_own(path), "{path}");
        }
        for path in [
            "/",
            "/_gateways",
            "/users/_gateway",
            "/users/%5Fgateway",
            "/users/./x//_gateway",
            "/%255Fgateway/x",
            "/..",
        ] {
            assert!(!is_own(path), "{path}");
        }
    }

    #[test]
    fn what_does_not_pass_upstream() {
        let request = request(
            "POST",
            "/users",
            &[
                ("host", "gateway"),
                ("authorization", "Bearer t"),
                ("accept", "application/json"),
                ("x-custom", "1"),
                ("x-custom", "2"),
                ("connection", "close, X-Hop"),
                ("x-hop", "1"),
                ("te", "trailers"),
                ("keep-alive", "5"),
                ("proxy-authorization", "basic"),
                ("expect", "100-continue"),
                ("prefer", "wait=3"),
                ("priority", "u=1"),
                ("forwarded", "for=a"),
                ("x-forwarded-for", "a"),
                ("x-gateway-caller", "billing"),
                ("content-length", "12"),
                ("content-type", "application/json"),
            ],
        );
        let passed = request_headers(request.headers());
        let mut names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "authorization",
                "content-type",
                "x-custom",
                "x-custom"
            ]
        );
    }

    #[test]
    fn an_answer_keeps_everything_but_its_hop() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("x-ratelimit-remaining", "3"),
            ("x-request-id", "theirs"),
            ("x-gateway-shadow", "hit"),
            ("idempotency-replayed", "true"),
            ("content-type", "application/vnd.segment.v1+json"),
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        clean_answer(
            &mut headers,
            &HeaderValue::from_static("1.1 segment-gateway"),
        );
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "via", "x-ratelimit-remaining"]);
    }
}
