//! Pure. Which requests are a matter for the cache.
//!
//! Promises that only a plain GET with a credential is answered from the store or stored: what
//! asks for a part, has a condition of its own, carries something the key does not hold or has no
//! canonical query passes by. A request for a new answer (`no-cache`, `max-age=0`; RFC 9111,
//! sections 5.2.1 and 5.4) fetches and stores.
//!
//! It does not know the operation: whether its answers are cached at all is the route's to say.

use super::control::{Directives, lists_token};
use super::decide::Mode;
use super::reason::Bypass;
use crate::credential;
use http::Method;
use http::header::{self, HeaderMap, HeaderName};

/// How a query is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// It has a canonical form.
    Canonical,
    /// It has none (repeated scalars, gaps, mixed spellings).
    Odd,
}

/// Whether the cache may answer the request, and what it accepts; else why not.
pub fn examine(method: &Method, headers: &HeaderMap, spelling: Spelling) -> Result<Mode, Bypass> {
    if *method != Method::GET {
        return Err(Bypass::Method);
    }
    if !credential::is_named(headers) {
        return Err(Bypass::NoCredential);
    }
    // One pass over the names instead of one look-up for each: this is on the path of every hit.
    if let Some(reason) = headers.keys().filter_map(bypass_of).min() {
        return Err(reason);
    }
    let mode = mode(headers)?;
    match spelling {
        Spelling::Canonical => Ok(mode),
        Spelling::Odd => Err(Bypass::Query),
    }
}

fn bypass_of(name: &HeaderName) -> Option<Bypass> {
    match name {
        &header::UPGRADE => Some(Bypass::Upgrade),
        &header::COOKIE => Some(Bypass::Cookie),
        &header::RANGE => Some(Bypass::Range),
        name if name.as_str().starts_with("if-") => Some(Bypass::Conditional),
        _ => None,
    }
}

fn mode(headers: &HeaderMap) -> Result<Mode, Bypass> {
    if !headers.contains_key(header::CACHE_CONTROL) {
        // Pragma counts only in the absence of Cache-Control (RFC 9111, section 5.4).
        let reload = headers.contains_key(header::PRAGMA)
            && lists_token(headers.get_all(header::PRAGMA), "no-cache");
        return Ok(if reload { Mode::Reload } else { Mode::Fresh });
    }
    let asked = Directives::parse(headers.get_all(header::CACHE_CONTROL));
    if asked.no_store {
        return Err(Bypass::NoStore);
    }
    // `s-maxage` means nothing in a request.
    let reload = asked.no_cache || asked.max_age.is_some_and(|age| age.is_zero());
    Ok(if reload { Mode::Reload } else { Mode::Fresh })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    type Lines = [(&'static str, &'static str)];

    fn examined(lines: &Lines) -> Result<Mode, Bypass> {
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Bearer x"));
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        examine(&Method::GET, &headers, Spelling::Canonical)
    }

    #[test]
    fn headers_decide() {
        let table: [(&Lines, Result<Mode, Bypass>); 20] = [
            (&[], Ok(Mode::Fresh)),
            (&[("accept", "application/json")], Ok(Mode::Fresh)),
            (&[("cookie", "a=b")], Err(Bypass::Cookie)),
            (&[("range", "bytes=0-1")], Err(Bypass::Range)),
            (&[("if-none-match", "\"x\"")], Err(Bypass::Conditional)),
            (&[("if-modified-since", "x")], Err(Bypass::Conditional)),
            (&[("if-match", "*")], Err(Bypass::Conditional)),
            (&[("if-range", "x")], Err(Bypass::Conditional)),
            (&[("upgrade", "h2c")], Err(Bypass::Upgrade)),
            (&[("range", "x"), ("cookie", "a")], Err(Bypass::Cookie)),
            (&[("cache-control", "no-store")], Err(Bypass::NoStore)),
            (&[("cache-control", "no-cache")], Ok(Mode::Reload)),
            (&[("cache-control", "max-age=0")], Ok(Mode::Reload)),
            (&[("cache-control", "max-age=soon")], Ok(Mode::Reload)),
            (&[("cache-control", "max-age=60")], Ok(Mode::Fresh)),
            (&[("cache-control", "s-maxage=0")], Ok(Mode::Fresh)),
            (
                &[("cache-control", "no-cache"), ("cache-control", "no-store")],
                Err(Bypass::NoStore),
            ),
            (&[("pragma", "x, No-Cache")], Ok(Mode::Reload)),
            (
                &[("pragma", "no-cache"), ("cache-control", "max-age=9")],
                Ok(Mode::Fresh),
            ),
            (&[("pragma", "x")], Ok(Mode::Fresh)),
        ];
        for (lines, expected) in table {
            assert_eq!(examined(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn method_credential_and_query_decide() {
        let mut headers = HeaderMap::new();
        let odd = Spelling::Odd;
        for method in [Method::HEAD, Method::POST, Method::OPTIONS] {
            assert_eq!(examine(&method, &headers, odd), Err(Bypass::Method));
        }
        assert_eq!(
            examine(&Method::GET, &headers, odd),
            Err(Bypass::NoCredential)
        );
        for nobody in ["", "Bearer "] {
            headers.insert("authorization", HeaderValue::from_static(nobody));
            let examined = examine(&Method::GET, &headers, Spelling::Canonical);
            assert_eq!(examined, Err(Bypass::NoCredential), "{nobody:?}");
        }
        headers.insert("authorization", HeaderValue::from_static("Bearer x"));
        assert_eq!(examine(&Method::GET, &headers, odd), Err(Bypass::Query));
    }
}
