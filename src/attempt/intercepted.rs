//! Pure. Whether something in front of the API answered a request in its place: a captive portal, a
//! login page, a web filter.
//!
//! Such a page often has the status of a success. For a write it would be recorded as one, although
//! the API may never have seen the request. So a response counts as the API's only if something
//! says so: its media type or its rate headers, which the API documents for every success.
//!
//! Errors are not judged here. A 4xx says that the request was not carried out, whoever says it,
//! and a 5xx without rate headers is doubted already.

use crate::cache::media::MediaType;
use crate::exchange::ids::Ids;
use crate::limit::learn::Allowance;
use crate::route::policy::Operation;
use http::{HeaderMap, StatusCode};

/// Returns whether a response is not the API's. `is_known` says whether the operation is in the
/// route table: nothing is documented about others.
///
/// A success without a media type is believed. The API documents no redirect, so a redirect is
/// believed only with a media type of the API.
pub(crate) fn is_intercepted(is_known: bool, status: StatusCode, headers: &HeaderMap) -> bool {
    let is_page = match MediaType::of(headers) {
        MediaType::Api => false,
        MediaType::Absent => status.is_redirection(),
        MediaType::Other => status.is_success() || status.is_redirection(),
    };
    // A 304 answers a condition. Without content it has no media type to speak of.
    let has_content = status != StatusCode::NOT_MODIFIED;
    is_known && is_page && has_content && Allowance::of(headers).is_none()
}

/// Logs a response that is not the API's. Its reader gets it; a write ends without a response.
pub(super) fn report_intercepted(operation: &Operation, status: StatusCode, ids: &Ids) {
    tracing::warn!(
        operation = %operation.name,
        status = status.as_u16(),
        request_id = ids.request(),
        trace_id = ids.trace(),
        "something in front of the API answered in its place: the response has neither rate \
         headers nor a media type of the API"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::CONTENT_TYPE;

    fn headers(media: Option<&str>, has_rates: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(media) = media {
            headers.insert(CONTENT_TYPE, media.parse().unwrap());
        }
        if has_rates {
            headers.insert("x-ratelimit-consumed", "1".parse().unwrap());
            headers.insert("x-ratelimit-remaining", "59".parse().unwrap());
        }
        headers
    }

    fn judged(status: u16, media: Option<&str>) -> bool {
        let status = StatusCode::from_u16(status).unwrap();
        is_intercepted(true, status, &headers(media, false))
    }

    #[test]
    fn a_page_in_place_of_a_success_is_not_the_apis() {
        for status in [200, 201, 202, 204, 207, 301, 302, 303, 307, 308] {
            assert!(judged(status, Some("text/html; charset=utf-8")), "{status}");
            assert!(!judged(status, Some("application/json")), "{status}");
            let vendor = "application/vnd.segment.v1+json";
            assert!(!judged(status, Some(vendor)), "{status}");
            assert_eq!(judged(status, None), status >= 300, "{status}");
        }
    }

    #[test]
    fn errors_conditions_and_what_has_rate_headers_are_not_judged() {
        for status in [304, 400, 401, 403, 404, 407, 429, 500, 502, 503] {
            assert!(!judged(status, Some("text/html")), "{status}");
            assert!(!judged(status, None), "{status}");
        }
        let of_api = headers(Some("text/html"), true);
        assert!(!is_intercepted(true, StatusCode::OK, &of_api));
        let unknown = headers(Some("text/csv"), false);
        assert!(!is_intercepted(false, StatusCode::OK, &unknown));
    }
}
