//! Pure. What the answer to a write names besides its target: paths whose stored answers it makes
//! stale (RFC 9111, section 4.4).
//!
//! Promises that only names of the API's own origin count, since others would let one server make
//! the cache forget another's answers. Queries and fragments are left out: every query under a path
//! is doubted.

use http::header::{self, HeaderMap};
use std::sync::Arc;

/// The paths that `Location` and `Content-Location` name in the answer to a request of `target` (a
/// path) at `authority` (host, perhaps with a port).
pub fn named(headers: &HeaderMap, target: &str, authority: &str) -> Vec<Arc<str>> {
    [header::LOCATION, header::CONTENT_LOCATION]
        .into_iter()
        .flat_map(|name| headers.get_all(name))
        .filter_map(|value| resolve(value.to_str().ok()?.trim(), target, authority))
        .map(Into::into)
        .collect()
}

/// The path that a reference means (RFC 3986, section 5.2), if it is at this authority.
fn resolve(reference: &str, target: &str, authority: &str) -> Option<String> {
    let reference = reference.split(['?', '#']).next().unwrap_or_default();
    let lower = reference.to_ascii_lowercase();
    let scheme = ["https://", "http://", "//"]
        .into_iter()
        .find(|scheme| lower.starts_with(scheme));
    if let Some(scheme) = scheme {
        let rest = reference.get(scheme.len()..)?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        return same_authority(host, authority).then(|| without_dots(path));
    }
    let first = reference.split('/').next().unwrap_or_default();
    if first.contains(':') {
        return None;
    }
    if reference.is_empty() {
        return Some(without_dots(target));
    }
    if reference.starts_with('/') {
        return Some(without_dots(reference));
    }
    let parent = target.rfind('/').map_or("/", |slash| &target[..=slash]);
    Some(without_dots(&format!("{parent}{reference}")))
}

fn same_authority(one: &str, other: &str) -> bool {
    let plain = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        let default = [":443", ":80", ":"];
        let port = default
            .into_iter()
            .find_map(|port| authority.strip_suffix(port));
        port.unwrap_or(&authority).to_owned()
    };
    plain(one) == plain(other)
}

/// The path without segments that mean "here" and "above" (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut meant: Vec<&str> = Vec::new();
    let segments = path.strip_prefix('/').unwrap_or(path).split('/');
    let mut ends_in_dots = false;
    for segment in segments {
        ends_in_dots = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(meant.pop()),
            segment => meant.push(segment),
        }
    }
    if ends_in_dots {
        meant.push("");
    }
    format!("/{}", meant.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn references_are_resolved_at_the_apis_origin_only() {
        const API: &str = "api.segmentapis.com";
        for (reference, expected) in [
            ("/groups/g", Some("/groups/g")),
            ("/groups/g?x=1#y", Some("/groups/g")),
            ("g", Some("/groups/g")),
            ("./g", Some("/groups/g")),
            ("../users/u", Some("/users/u")),
            ("../../../users", Some("/users")),
            ("..", Some("/")),
            ("", Some("/groups/x")),
            ("?a=b", Some("/groups/x")),
            ("https://api.segmentapis.com/groups/g", Some("/groups/g")),
            (
                "HTTPS://API.segmentapis.com:443/groups/./g",
                Some("/groups/g"),
            ),
            ("//api.segmentapis.com/groups", Some("/groups")),
            ("https://api.segmentapis.com", Some("/")),
            ("https://other.example/groups/g", None),
            ("https://api.segmentapis.com.other/groups", None),
            ("https://api.segmentapis.com@other/groups", None),
            ("//other.example/groups", None),
            ("mailto:a@b", None),
            ("ftp://api.segmentapis.com/groups", None),
        ] {
            let found = resolve(reference, "/groups/x", API);
            assert_eq!(found.as_deref(), expected, "{reference:?}");
        }
    }

    #[test]
    fn both_fields_count() {
        let mut headers = HeaderMap::new();
        headers.append("location", HeaderValue::from_static("/a"));
        headers.append("content-location", HeaderValue::from_static("/b?c"));
        headers.append("link", HeaderValue::from_static("/c"));
        let named: Vec<_> = named(&headers, "/", "x")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(named, ["/a", "/b"]);
    }

    proptest::proptest! {
        #[test]
        fn no_reference_is_too_strange(reference in "[a:/?#.é%]{0,16}", target in "/[a/.]{0,8}") {
            if let Some(path) = resolve(&reference, &target, "a") {
                proptest::prop_assert!(path.starts_with('/'));
            }
        }
    }
}
