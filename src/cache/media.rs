//! Pure. The media type of a response, as evidence of where it comes from.
//!
//! The API describes each of its responses as JSON, in one of its own media types or in
//! `application/json`. Something in front of it that answers in its place (a captive portal, a
//! login page, a balancer) describes a page for browsers. Neither says so in the status: both may
//! be a 200.
//!
//! A response that claims the API's media type is believed. Bodies are not examined.

use http::header::{CONTENT_TYPE, HeaderMap};

/// The media types of the API are these, and `application/vnd.segment.`, a version, and `+json`.
const JSON: &str = "application/json";
const VENDOR: &str = "application/vnd.segment.";
const SUFFIX: &str = "+json";

/// What a response says about its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// Nothing.
    Absent,
    /// One of the API's.
    Api,
    /// Another one, or several, or something that is none.
    Other,
}

impl MediaType {
    /// Returns what these headers say. Parameters, such as a charset, make no difference.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(CONTENT_TYPE).iter();
        let Some(line) = lines.next() else {
            return Self::Absent;
        };
        // Of several lines a client may believe any.
        let is_only = lines.next().is_none();
        let text = line.to_str().unwrap_or_default();
        let name = text.split(';').next().unwrap_or_default().trim();
        match is_only && is_of_api(name) {
            true => Self::Api,
            false => Self::Other,
        }
    }
}

/// Whether a media type is one of the API's. New versions of the API are as good as known ones.
fn is_of_api(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let version = name
        .strip_prefix(VENDOR)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    name == JSON
        || version.is_some_and(|version| {
            !version.is_empty()
                && version
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'.')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(lines: &[&str]) -> MediaType {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_TYPE, HeaderValue::from_str(line).unwrap());
        }
        MediaType::of(&headers)
    }

    #[test]
    fn the_types_of_the_api_are_known_in_any_spelling() {
        for line in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json ;charset=\"utf-8\"",
            "application/vnd.segment.v1+json",
            "application/vnd.segment.v1beta+json",
            "application/vnd.segment.v1alpha+json;charset=utf-8",
            "application/vnd.segment.v2+json",
        ] {
            assert_eq!(of(&[line]), MediaType::Api, "{line}");
        }
    }

    #[test]
    fn all_others_are_not() {
        for line in [
            "",
            ";",
            "text/html",
            "text/html; charset=utf-8",
            "text/html; x=application/json",
            "text/plain",
            "text/json",
            "json",
            "application/jsonp",
            "application/json, text/html",
            "application/problem+json",
            "application/vnd.segment.+json",
            "application/vnd.segment.v1",
            "application/vnd.segment.v1 +json",
            "application/vnd.other.v1+json",
            "application/octet-stream",
            "*/*",
        ] {
            assert_eq!(of(&[line]), MediaType::Other, "{line}");
        }
        assert_eq!(of(&["application/json", "text/html"]), MediaType::Other);
        assert_eq!(of(&["application/json"; 2]), MediaType::Other);
        assert_eq!(of(&[]), MediaType::Absent);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_bytes(b"text/\xff").unwrap());
        assert_eq!(MediaType::of(&headers), MediaType::Other);
    }
}
