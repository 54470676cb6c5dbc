//! Pure. Which requests are cacheable, and which stored responses they accept.
//!
//! Promises that only a GET or HEAD with a credential is served from the store. A request is not
//! cacheable if it carries something that the key lacks, has a condition that only the API can
//! evaluate (RFC 9110, section 13.1), or has no canonical query. What a reader accepts follows from
//! `Cache-Control` (RFC 9111, section 5.2.1), and from `Pragma` only in its absence (section 5.4).
//!
//! This module does not know the operation: the route says whether its responses are cached at all.

use super::control::{CacheControl, lists_token, tokens};
use super::fields;
use super::reason::Bypass;
use crate::credential;
use http::Method;
use http::header::{self, HeaderMap, HeaderName};
use std::time::Duration;

/// The spelling of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// The query has a canonical form.
    Canonical,
    /// The query has no canonical form: repeated scalars, gaps, or mixed spellings.
    Odd,
}

/// The requirements of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Accepts only a response that the API sends or confirms after this request (`no-cache`).
    pub no_cache: bool,
    /// Accepts no response of a greater age (`max-age`).
    pub max_age: Option<Duration>,
    /// Accepts a response that is stale by less than this (`max-stale`).
    pub max_stale: Duration,
    /// Accepts only a response that stays fresh for at least this long (`min-fresh`).
    pub min_fresh: Duration,
    /// Accepts a response that is stale by less than this if the API fails (`stale-if-error`, RFC
    /// 5861).
    pub stale_if_error: Duration,
    /// Accepts no request to the API (`only-if-cached`).
    pub only_if_cached: bool,
    /// Accepts only the bytes as the API sends them (`no-transform`).
    pub no_transform: bool,
}

impl Wants {
    /// Accepts any fresh response.
    pub const FRESH: Self = Self {
        no_cache: false,
        max_age: None,
        max_stale: Duration::ZERO,
        min_fresh: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        only_if_cached: false,
        no_transform: false,
    };

    /// Accepts only a response that is fetched or validated after this request.
    pub const RELOAD: Self = Self {
        no_cache: true,
        ..Self::FRESH
    };

    /// Reads the requirements from the fields of a request.
    ///
    /// # Errors
    /// [`Bypass::NoStore`] if the request forbids storing its response.
    pub fn of(headers: &HeaderMap) -> Result<Self, Bypass> {
        if !headers.contains_key(header::CACHE_CONTROL) {
            let reload = headers.contains_key(header::PRAGMA)
                && lists_token(headers.get_all(header::PRAGMA), "no-cache");
            return Ok(if reload { Self::RELOAD } else { Self::FRESH });
        }
        let asked = CacheControl::parse(headers.get_all(header::CACHE_CONTROL));
        if asked.no_store {
            return Err(Bypass::NoStore);
        }
        // `s-maxage` has no meaning in a request.
        Ok(Self {
            no_cache: asked.no_cache,
            max_age: asked.max_age,
            max_stale: asked.max_stale.unwrap_or_default(),
            min_fresh: asked.min_fresh.unwrap_or_default(),
            stale_if_error: asked.stale_if_error.unwrap_or_default(),
            only_if_cached: asked.only_if_cached,
            no_transform: asked.no_transform,
        })
    }

    /// Whether the reader rejects every fetch that began before its request.
    pub fn is_reload(&self) -> bool {
        self.no_cache || self.max_age.is_some_and(|age| age.is_zero())
    }
}

/// Whether a request has `only-if-cached`. Applies to uncacheable requests as well.
pub fn is_only_if_cached(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CACHE_CONTROL)
        && CacheControl::parse(headers.get_all(header::CACHE_CONTROL)).only_if_cached
}

/// Returns the requirements of a cacheable request.
///
/// # Errors
/// The first reason in order of precedence why the request is not cacheable.
pub fn examine(method: &Method, headers: &HeaderMap, spelling: Spelling) -> Result<Wants, Bypass> {
    if *method != Method::GET && *method != Method::HEAD {
        return Err(Bypass::Method);
    }
    if !credential::is_named(headers) {
        return Err(Bypass::NoCredential);
    }
    // One pass over the names instead of one lookup for each: every hit runs this.
    if let Some(reason) = headers.keys().filter_map(bypass_of).min() {
        return Err(reason);
    }
    if is_key_cut(headers) {
        return Err(Bypass::Connection);
    }
    let wants = Wants::of(headers)?;
    match spelling {
        Spelling::Canonical => Ok(wants),
        Spelling::Odd => Err(Bypass::Query),
    }
}

/// Conditions that a cache evaluates on its own (RFC 9111, section 4.3.2).
const OURS: [HeaderName; 3] = [
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_RANGE,
];

fn bypass_of(name: &HeaderName) -> Option<Bypass> {
    match name {
        &header::COOKIE => Some(Bypass::Cookie),
        name if name.as_str() == "cookie2" => Some(Bypass::Cookie),
        name if name.as_str().starts_with("if-") && !OURS.contains(name) => {
            Some(Bypass::Conditional)
        }
        _ => None,
    }
}

/// Whether `Connection` names a field of the key, which would then not be forwarded.
fn is_key_cut(headers: &HeaderMap) -> bool {
    tokens(headers.get_all(header::CONNECTION))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .any(|name| headers.contains_key(&name) && !fields::is_left_out(&name))
}

/// The reason to bypass the cache when no response is known to be stored: the request wants less
/// than the whole response, and the API can serve that better.
pub fn asks_for_less(method: &Method, headers: &HeaderMap) -> Option<Bypass> {
    if *method == Method::HEAD {
        return Some(Bypass::Method);
    }
    if headers.contains_key(header::RANGE) {
        return Some(Bypass::Range);
    }
    let conditional = OURS.iter().any(|name| headers.contains_key(name));
    conditional.then_some(Bypass::Conditional)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    type Lines = [(&'static str, &'static str)];

    fn headers(lines: &Lines) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Bearer x"));
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn examined(lines: &Lines) -> Result<Wants, Bypass> {
        examine(&Method::GET, &headers(lines), Spelling::Canonical)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn headers_decide() {
        let max_age = |seconds| Wants {
            max_age: Some(Duration::from_secs(seconds)),
            ..Wants::FRESH
        };
        let table: [(&Lines, Result<Wants, Bypass>); 24] = [
            (&[], Ok(Wants::FRESH)),
            (&[("accept", "application/json")], Ok(Wants::FRESH)),
            (&[("cookie", "a=b")], Err(Bypass::Cookie)),
            (&[("cookie2", "a=b")], Err(Bypass::Cookie)),
            (&[("range", "bytes=0-1")], Ok(Wants::FRESH)),
            (&[("if-none-match", "\"x\"")], Ok(Wants::FRESH)),
            (&[("if-modified-since", "x")], Ok(Wants::FRESH)),
            (&[("if-range", "x")], Ok(Wants::FRESH)),
            (&[("if-match", "*")], Err(Bypass::Conditional)),
            (&[("if-unmodified-since", "x")], Err(Bypass::Conditional)),
            (&[("if-match", "x"), ("cookie", "a")], Err(Bypass::Cookie)),
            (&[("cache-control", "no-store")], Err(Bypass::NoStore)),
            (&[("cache-control", "no-cache")], Ok(Wants::RELOAD)),
            (&[("cache-control", "max-age=soon")], Ok(max_age(0))),
            (&[("cache-control", "max-age=60")], Ok(max_age(60))),
            (&[("cache-control", "s-maxage=0")], Ok(Wants::FRESH)),
            (
                &[("cache-control", "no-cache"), ("cache-control", "no-store")],
                Err(Bypass::NoStore),
            ),
            (&[("pragma", "x, No-Cache")], Ok(Wants::RELOAD)),
            (
                &[("connection", "close, X-Tenant"), ("x-tenant", "b")],
                Err(Bypass::Connection),
            ),
            (
                &[
                    ("connection", "close"),
                    ("connection", "origin"),
                    ("origin", "b"),
                ],
                Err(Bypass::Connection),
            ),
            (&[("connection", "close, x-tenant")], Ok(Wants::FRESH)),
            (&[("x-tenant", "b")], Ok(Wants::FRESH)),
            (
                &[("connection", "te, upgrade"), ("te", "b"), ("upgrade", "b")],
                Ok(Wants::FRESH),
            ),
            (
                &[("pragma", "no-cache"), ("cache-control", "max-age=9")],
                Ok(max_age(9)),
            ),
        ];
        for (lines, expected) in table {
            assert_eq!(examined(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn every_request_directive_is_understood() {
        let field = "max-stale=3, min-fresh=4, stale-if-error=5, only-if-cached, no-transform";
        let wants = examined(&[("cache-control", field)]).unwrap();
        assert_eq!(wants.max_stale, 3 * SECOND);
        assert_eq!(wants.min_fresh, 4 * SECOND);
        assert_eq!(wants.stale_if_error, 5 * SECOND);
        assert!(wants.only_if_cached && wants.no_transform && !wants.is_reload());
        assert!(
            examined(&[("cache-control", "max-age=0")])
                .unwrap()
                .is_reload()
        );
        assert!(is_only_if_cached(&headers(&[(
            "cache-control",
            "x, only-if-cached"
        )])));
        assert!(!is_only_if_cached(&headers(&[("cache-control", "x")])));
    }

    #[test]
    fn what_asks_for_less_is_known() {
        for (name, reason) in [
            ("range", Some(Bypass::Range)),
            ("if-none-match", Some(Bypass::Conditional)),
            ("if-modified-since", Some(Bypass::Conditional)),
            ("if-range", Some(Bypass::Conditional)),
            ("accept", None),
        ] {
            let headers = headers(&[(name, "x")]);
            assert_eq!(asks_for_less(&Method::GET, &headers), reason, "{name}");
            let of_head = asks_for_less(&Method::HEAD, &headers);
            assert_eq!(of_head, Some(Bypass::Method), "{name}");
        }
    }

    #[test]
    fn method_credential_and_query_decide() {
        let mut headers = HeaderMap::new();
        let odd = Spelling::Odd;
        for method in [Method::POST, Method::OPTIONS] {
            assert_eq!(examine(&method, &headers, odd), Err(Bypass::Method));
        }
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(examine(&method, &headers, odd), Err(Bypass::NoCredential));
        }
        for nobody in ["", "Bearer "] {
            headers.insert("authorization", HeaderValue::from_static(nobody));
            let examined = examine(&Method::GET, &headers, Spelling::Canonical);
            assert_eq!(examined, Err(Bypass::NoCredential), "{nobody:?}");
        }
        headers.insert("authorization", HeaderValue::from_static("Bearer x"));
        assert_eq!(examine(&Method::GET, &headers, odd), Err(Bypass::Query));
    }
}
