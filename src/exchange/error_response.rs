//! Responses for the gateway's own errors, and the only place that knows their status codes.
//!
//! They have the API's envelope, so that an SDK decodes them:
//! `{"errors":[{"type":"gateway-…","message":"…","data":{…},"status":503}]}`.

use crate::error::{Blame, GatewayError, Waited};
use crate::exchange::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;
use std::time::Duration;

/// Returns the status code of an error.
pub fn status(error: &GatewayError) -> StatusCode {
    match error {
        GatewayError::BadRequest(_) => StatusCode::BAD_REQUEST,
        GatewayError::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
        GatewayError::NotFound | GatewayError::WrongListener => StatusCode::NOT_FOUND,
        GatewayError::Unauthorized | GatewayError::NoCredential | GatewayError::TokenRefused => {
            StatusCode::UNAUTHORIZED
        }
        GatewayError::NotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
        GatewayError::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        GatewayError::WriteCancelled | GatewayError::WriteLeft | GatewayError::GivenUp => {
            StatusCode::CONFLICT
        }
        GatewayError::JournalFull | GatewayError::TooManyEnded => StatusCode::INSUFFICIENT_STORAGE,
        GatewayError::AnswerLost(_) => StatusCode::BAD_GATEWAY,
        GatewayError::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        GatewayError::HeadTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        GatewayError::HeadTimeout | GatewayError::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        GatewayError::CallerQuota { .. } => StatusCode::TOO_MANY_REQUESTS,
        GatewayError::QueueWait { .. }
        | GatewayError::QueueFull { .. }
        | GatewayError::QueueExpired { .. }
        | GatewayError::Draining
        | GatewayError::WritePending { .. }
        | GatewayError::JournalBroken
        | GatewayError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        GatewayError::OutcomeUnknown { waited, .. }
        | GatewayError::UpstreamUnreachable { waited, .. } => match waited {
            Waited::TooLong | Waited::Divided => StatusCode::GATEWAY_TIMEOUT,
            Waited::InVain
            | Waited::Unreadable
            | Waited::Unattributed
            | Waited::RetryRefused
            | Waited::Unrecorded => StatusCode::BAD_GATEWAY,
        },
        // RFC 9111, section 5.2.1.7.
        GatewayError::NotCached | GatewayError::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        GatewayError::UpstreamUnreadable(_) | GatewayError::UpstreamBroken => {
            StatusCode::BAD_GATEWAY
        }
        GatewayError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns the response for an error.
pub fn error(error: &GatewayError) -> Response<Body> {
    error_held(error).map(Body::held)
}

/// Returns the response for an error, with its body in memory.
pub fn error_held(error: &GatewayError) -> Response<Bytes> {
    let status = status(error);
    let mut data = json!({ "mayRetry": error.may_retry(), "sent": error.was_sent() });
    if let GatewayError::QueueWait { estimate, .. } = error {
        data["estimatedWaitMs"] = json!(u64::try_from(estimate.as_millis()).unwrap_or(u64::MAX));
    }
    if let GatewayError::WritePending { id, .. } = error {
        data["writeId"] = json!(id);
    }
    let document = json!({ "errors": [{
        "type": error.kind(),
        "message": error.message(),
        "data": data,
        "status": status.as_u16(),
    }]});
    let mut response = Response::new(Bytes::from(document.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Some(wait) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
    }
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110, section 11.6.1.
        let bearer = HeaderValue::from_static("Bearer");
        headers.insert(header::WWW_AUTHENTICATE, bearer);
    }
    if matches!(error, GatewayError::MethodRefused) {
        headers.insert(
            header::ALLOW,
            HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        );
    }
    if let GatewayError::NotAllowed(allowed) = error {
        headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    let malformed = matches!(
        error,
        GatewayError::BadRequest(_) | GatewayError::MethodRefused | GatewayError::HeadTimeout
    ) || matches!(
        error,
        GatewayError::HeadTooLarge(_) | GatewayError::BodyTooLarge(_) | GatewayError::BodyTimeout
    );
    let full = matches!(error, GatewayError::Draining | GatewayError::Overloaded);
    if malformed && error.blame() == Blame::Caller || full {
        // After a malformed request the next bytes may be the rest of it. Connections beyond the
        // bound exist only to deliver this error.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns whole seconds, rounded up, at least one.
pub fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
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

    #[test]
    fn unknown_outcomes_tell_timeouts_from_lost_connections() {
        let unknown = |waited| GatewayError::OutcomeUnknown {
            waited,
            may_retry: false,
        };
        assert_eq!(status(&unknown(Waited::TooLong)), 504);
        assert_eq!(status(&unknown(Waited::InVain)), 502);
    }
}
