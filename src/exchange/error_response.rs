//! Responses for the gateway's own errors: a row of [`GatewayError::facts`] as bytes and headers.
//!
//! They have the API's envelope, so that an SDK decodes them:
//! `{"errors":[{"type":"gateway-…","message":"…","data":{…},"status":503}]}`.

use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::limit::budgets::whole_seconds;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;
use std::time::Duration;

/// Returns the response for an error.
pub fn error(error: &GatewayError) -> Response<Body> {
    error_held(error).map(Body::held)
}

/// Returns the response for an error, with its body in memory.
pub fn error_held(error: &GatewayError) -> Response<Bytes> {
    let facts = error.facts();
    let mut data = json!({ "mayRetry": facts.may_retry, "sent": facts.sent });
    if let GatewayError::QueueWait { estimate, .. } = error {
        data["estimatedWaitMs"] = json!(u64::try_from(estimate.as_millis()).unwrap_or(u64::MAX));
    }
    if let GatewayError::WritePending { id, .. } = error {
        data["writeId"] = json!(id);
    }
    let document = json!({ "errors": [{
        "type": facts.kind,
        "message": error.message(),
        "data": data,
        "status": facts.status.as_u16(),
    }]});
    let mut response = Response::new(Bytes::from(document.to_string()));
    *response.status_mut() = facts.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Some(wait) = facts.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
    }
    if facts.status == StatusCode::UNAUTHORIZED {
        // RFC 9110, section 11.6.1.
        let bearer = HeaderValue::from_static("Bearer");
        headers.insert(header::WWW_AUTHENTICATE, bearer);
    }
    let allowed = match error {
        GatewayError::MethodRefused => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        GatewayError::NotAllowed(allowed) => Some(*allowed),
        _ => None,
    };
    if let Some(allowed) = allowed {
        headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    if facts.closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns whole seconds, rounded up, at least one.
pub fn seconds(wait: Duration) -> u64 {
    whole_seconds(wait).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn an_error_has_the_apis_envelope() {
        let response = error(&GatewayError::QueueWait {
            estimate: Duration::from_millis(2_500),
            retry_after: Duration::from_millis(1_001),
        });
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let error = &document["errors"][0];
        assert_eq!(error["type"], "gateway-queue-wait");
        assert_eq!(error["status"], 503);
        assert_eq!(error["data"]["estimatedWaitMs"], 2_500);
        assert_eq!(error["data"]["sent"], false);
        assert_eq!(error["data"]["mayRetry"], true);
        assert!(document.get("data").is_none(), "never both keys");
    }

    #[test]
    fn whoever_is_refused_for_want_of_room_does_not_keep_a_connection() {
        for (refused, closes) in [
            (GatewayError::Overloaded, true),
            (GatewayError::Draining, true),
            (GatewayError::NotFound, false),
        ] {
            let headers = error(&refused).into_parts().0.headers;
            let close = headers
                .get("connection")
                .is_some_and(|value| value == "close");
            assert_eq!(close, closes, "{refused:?}");
        }
    }
}
