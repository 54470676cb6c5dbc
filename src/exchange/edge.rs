//! Pure. The edge rules: which parts of a request and of a response are forwarded, and which
//! requests are rejected.
//!
//! Hop-by-hop headers are not forwarded (RFC 9110, section 7.6.1), nor are the gateway's own. A
//! request that can be understood in two ways is rejected rather than repaired, because the API
//! might understand it in the other way.
//!
//! Paths and bodies pass unchanged. What the route table says about an operation is not known here,
//! and the bytes of a head are checked before, by the watched stream of the connection.

use crate::cache::date;
use crate::credential;
use crate::error::GatewayError;
use crate::exchange::request_id::REQUEST_ID;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Uri, Version};
use std::time::SystemTime;

/// Returns whether a header belongs to one hop, besides those that `Connection` names. Such headers
/// are removed in both directions. An offer to upgrade is ignored, which every offer allows (RFC
/// 9110, section 7.8).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Returns whether a header is not for the API: the gateway answers it itself, or it concerns
/// callers, balancers and meshes in front. `traceparent` and `tracestate` are forwarded.
fn is_for_gateway(name: &str) -> bool {
    matches!(
        name,
        "expect"
            | "prefer"
            | "priority"
            | "trailer"
            // The gateway's own id, which its log contains.
            | "x-request-id"
            // Names of hosts in front (RFC 9110, section 7.6.3); the client adds its own.
            | "via"
            // Properties of a trace, for the caller's own services (W3C Baggage, section 4).
            | "baggage"
            // Addresses of callers.
            | "forwarded"
            | "cf-connecting-ip"
            | "true-client-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "x-real-ip"
    ) || FOR_GATEWAY_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Prefixes of further headers that are for the gateway.
const FOR_GATEWAY_PREFIXES: [&str; 3] = ["x-envoy-", "x-forwarded-", "x-gateway-"];

/// Headers that `Connection` must not name: a later hop would see the request without them.
const END_TO_END: [&str; 4] = ["authorization", "host", "accept", "cookie"];

/// Marks a response as the recorded one of an earlier request.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The prefix of the gateway's own paths.
pub const OWN: &str = "/_gateway";

/// Headers that override the method. A request with one of them may be any write.
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Paths of the admin listener, for probes, scrapers and people. The API has none of them.
const OPERATORS: [&str; 8] = [
    "/metrics", "/livez", "/readyz", "/status", "/live", "/cache", "/log", "/writes",
];
/// A header of the gateway's admin clients. Such a request may carry the admin token, which must
/// not reach the API.
const OPERATORS_OWN: HeaderName = HeaderName::from_static("x-gateway-admin");

/// Returns whether the request is for the admin listener and came to the wrong port.
///
/// Such a request comes from an admin client, or without a credential for one of the admin paths,
/// or from a browser for `/`. Rejecting it here saves a request to the API.
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

/// Rejects requests that are never forwarded or are ambiguous.
///
/// # Errors
/// With the first problem found. The message names the header or the rule.
pub fn check<B>(request: &Request<B>) -> Result<(), GatewayError> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(GatewayError::MethodRefused);
    }
    // The target first: the rules below it read its path.
    check_target(request.uri())?;
    if is_lost(request) {
        return Err(GatewayError::WrongListener);
    }
    // Of two values, the gateway and the API might read different ones.
    let headers = request.headers();
    for (name, problem) in [
        (
            header::HOST,
            "The request has more than one Host, or :authority names another one",
        ),
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
    // hyper removes `Content-Length` beside `Transfer-Encoding` before this sees it; the stream of
    // the connection notices both. This is for requests that come otherwise.
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(GatewayError::BadRequest(AMBIGUOUS_LENGTH));
    }
    // Only now is the framing of the body certain.
    check_encoding(headers)?;
    // HTTP/1.0 allows a request without Host. With HTTP/2, `:authority` has become one. The client
    // sets its own towards the API in any case.
    if request.version() >= Version::HTTP_11 && !headers.contains_key(header::HOST) {
        return Err(GatewayError::BadRequest(
            "The request has no Host (RFC 9112, section 3.2) and no :authority",
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
    // `Connection: authorization` would remove the credential on the way (RFC 9110, section 7.6.1,
    // forbids naming fields that are meant for all recipients).
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

/// The message for a request with both `Transfer-Encoding` and `Content-Length` (RFC 9112, section
/// 6.3).
pub const AMBIGUOUS_LENGTH: &str = "The request has both Transfer-Encoding and Content-Length";

/// Rejects any transfer coding but `chunked`. A body in two codings cannot be told from one in the
/// outer coding alone.
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

/// Checks the request target: scheme, user name and form. Paths are left as they are, because the
/// API may tell apart what a normalisation would make equal. The absolute form is accepted, and its
/// authority is replaced like any other (RFC 9112, section 3.2.2).
fn check_target(uri: &Uri) -> Result<(), GatewayError> {
    if uri
        .scheme_str()
        .is_some_and(|scheme| !matches!(scheme, "http" | "https"))
    {
        return Err(GatewayError::BadRequest(
            "The scheme of the request target is neither http nor https",
        ));
    }
    // RFC 9110, section 4.2.4.
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(GatewayError::BadRequest(
            "The request target has a user name; send credentials in Authorization",
        ));
    }
    if !uri.path().starts_with('/') {
        return Err(GatewayError::BadRequest("The request target is not a path"));
    }
    Ok(())
}

/// Returns path and query of the target. An absent path is `/`.
pub(crate) fn target(uri: Uri) -> PathAndQuery {
    let root = PathAndQuery::from_static("/");
    match uri.into_parts().path_and_query {
        Some(target) if target.as_str().starts_with('/') => target,
        // A target such as `http://host?a=b` has a query without a path. Its text begins with a
        // slash.
        Some(target) => PathAndQuery::try_from(target.to_string()).unwrap_or(root),
        None => root,
    }
}

/// Returns whether the path is one of the gateway's own, which are never forwarded. This holds for
/// the path as written, and as a server reads it that decodes paths, skips empty segments and
/// resolves dots.
pub fn is_own(path: &str) -> bool {
    if path == OWN
        || path
            .strip_prefix(OWN)
            .is_some_and(|rest| rest.starts_with('/'))
    {
        return true;
    }
    // The usual path ends here: without these signs, decoding would change nothing.
    let plain = !path.contains('%') && !path.contains("//") && !path.contains("/.");
    !plain && first_segment(path).as_deref() == Some(OWN.trim_start_matches('/').as_bytes())
}

/// Returns the first segment of the path after such decoding. Only a path that is written unusually
/// comes here, so the copies do not matter.
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

/// Returns whether a header asks the API to treat the request as another method.
pub fn overrides_method(headers: &HeaderMap) -> bool {
    OVERRIDES.iter().any(|name| headers.contains_key(name))
}

/// Returns the headers to send to the API, as far as they are `kept`. The client sets `Host` and
/// `Via`.
pub fn request_headers(
    headers: &HeaderMap,
    kept: impl Fn(&HeaderName, &HeaderValue) -> bool,
) -> HeaderMap {
    let named: Vec<String> = connection_names(headers).collect();
    let mut forwarded = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers {
        let is_named = || named.iter().any(|named| named == name.as_str());
        if is_forwarded(name) && kept(name, value) && !is_named() {
            forwarded.append(name.clone(), value.clone());
        }
    }
    forwarded
}

/// Returns whether a header is sent to the API, unless `Connection` names it. What is not known is
/// sent: the API may know it.
fn is_forwarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    // The length follows from the body that is sent, which a batch may have put together.
    !(is_hop_by_hop(name) || is_for_gateway(name) || matches!(name, "host" | "content-length"))
}

/// Cleans the headers of a response, before it is stored or passed on: removes those that belong to
/// the hop to the API or that only the gateway may set, and adds `via`. The API's request id is
/// removed too, because the log contains the gateway's.
pub fn clean_answer(headers: &mut HeaderMap, via: &HeaderValue) {
    let is_removed = |name: &&HeaderName| {
        **name == REQUEST_ID
            || **name == REPLAYED
            || is_hop_by_hop(name.as_str())
            || name.as_str().starts_with("x-gateway-")
    };
    // One pass finds them: usually there is none.
    let mut removed: Vec<HeaderName> = headers.keys().filter(is_removed).cloned().collect();
    // Read before the loop removes `Connection` itself. A name that is no field name names nothing.
    removed.extend(connection_names(headers).filter_map(|name| name.parse().ok()));
    for name in &removed {
        headers.remove(name);
    }
    headers.append(header::VIA, via.clone());
}

/// Dates a response at its arrival if it has no valid date (RFC 9110, section 6.6.1).
pub fn date_answer(headers: &mut HeaderMap, now: SystemTime) {
    let mut dates = headers.get_all(header::DATE).iter();
    // Two dates are as good as none: caches might count the age from different ones.
    let only = dates.next().filter(|_| dates.next().is_none());
    if only.is_some_and(|date| date::parse(date, now).is_some()) {
        return;
    }
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
        headers.insert(header::DATE, date);
    }
}

/// Returns the names in `Connection`, in lower case. The headers that they name belong to this hop
/// (RFC 9110, section 7.6.1).
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
            (request("GET", "/users", &[host, ("upgrade", "h2c")]), true),
            (
                request(
                    "GET",
                    "/users",
                    &[host, ("connection", "Upgrade, HTTP2-Settings")],
                ),
                true,
            ),
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
    fn a_target_is_a_path_or_a_url_of_the_web() {
        let host = ("host", "gateway");
        for (asked, accepted) in [
            (request("GET", "http://other/users", &[host]), true),
            (request("GET", "HTTPS://other:8443/users", &[host]), true),
            (request("GET", "http://other/users", &[]), false),
            (request("GET", "ftp://other/users", &[host]), false),
            (request("GET", "http://me:pw@other/users", &[host]), false),
            (request("GET", "other:80", &[host]), false),
            (request("OPTIONS", "*", &[host]), false),
        ] {
            assert_eq!(check(&asked).is_ok(), accepted, "{asked:?}");
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
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
                ("x-request-id", "mine"),
                ("via", "1.1 balancer.internal"),
                ("baggage", "user=42"),
                ("x-envoy-attempt-count", "1"),
                ("x-envoy-retry-on", "5xx"),
                ("x-real-ip", "10.0.0.7"),
                ("x-client-ip", "10.0.0.7"),
                ("x-cluster-client-ip", "10.0.0.7"),
                ("true-client-ip", "10.0.0.7"),
                ("cf-connecting-ip", "10.0.0.7"),
                (
                    "traceparent",
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                ),
                ("tracestate", "vendor=1"),
                ("user-agent", "sdk"),
                ("content-length", "12"),
                ("content-type", "application/json"),
            ],
        );
        let passed = request_headers(request.headers(), |_, _| true);
        let mut names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "authorization",
                "content-type",
                "traceparent",
                "tracestate",
                "user-agent",
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
