//! `/` on the admin listener, a page that shows what goes on, and `/live`, the stream that it
//! follows.
//!
//! The page is embedded and loads nothing else; its `Content-Security-Policy` permits its own style
//! and script alone, by their hashes. The stream sends the document of `/status` once a second,
//! built once for all readers.

use super::{Admin, respond, text};
use crate::exchange::body::BoxError;
use crate::exchange::body::LayeredBody;
use crate::exchange::body::OuterBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

const PAGE: &str = include_str!("live/page.html");
/// The interval of events in a stream.
const PERIOD: Duration = Duration::from_secs(1);

impl Admin {
    /// Returns the page.
    pub(super) fn page() -> Response<OuterBody> {
        static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| policy(PAGE));
        let kind = HeaderValue::from_static("text/html; charset=utf-8");
        let mut page = respond(StatusCode::OK, kind, PAGE);
        let headers = page.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
        headers.insert(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        );
        page
    }

    /// Returns a stream of events, or 503 if too many readers follow already.
    pub(super) fn live(&self) -> Response<OuterBody> {
        let Some(place) = self.streams.place() else {
            return text(
                StatusCode::SERVICE_UNAVAILABLE,
                "32 streams are being followed already; close a page, or ask for /status\n",
            );
        };
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let body = Stream {
            admin: self.clone(),
            period,
            building: None,
            _place: place,
        };
        let kind = HeaderValue::from_static("text/event-stream");
        let mut response = respond(StatusCode::OK, kind, "");
        *response.body_mut() = OuterBody::layered(LayeredBody::new(body));
        response
    }

    /// Returns the event of this moment, the same for all streams; `None` if it cannot be built.
    async fn event(self) -> Option<Bytes> {
        let now = self.gateway.clock().now();
        let streams = self.streams.clone();
        let build = move || {
            let status = self.live_status(now);
            Bytes::from(format!("event: status\ndata: {status}\n\n"))
        };
        streams.event(now, build).await
    }

    fn live_status(&self, now: Instant) -> Value {
        let mut status = self.status();
        let totals = self.gateway.metrics().totals();
        let recent = self.gateway.recent_refusals().lock();
        let recent: Vec<Value> = recent
            .newest_first()
            .map(|one| {
                json!({
                    "secondsAgo": now.saturating_duration_since(one.at).as_secs_f64(),
                    "operation": one.operation.as_ref(),
                    "type": one.kind,
                    "status": one.status.as_u16(),
                })
            })
            .collect();
        status["notReady"] = json!(self.not_ready());
        status["recentRefusals"] = json!(recent);
        status["counts"] = json!({
            "requests": totals.requests,
            "upstream": totals.upstream,
            "refusals": totals.refusals,
            "throttled": totals.throttled,
        });
        status
    }
}

/// The events of one reader, until it leaves or the listener is closed.
struct Stream {
    admin: Admin,
    period: Interval,
    /// The next event, while it is built.
    building: Option<Building>,
    _place: OwnedSemaphorePermit,
}

type Building = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;

impl Body for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.building.is_none() {
            ready!(this.period.poll_tick(context));
        }
        let admin = &this.admin;
        let building = this
            .building
            .get_or_insert_with(|| Box::pin(admin.clone().event()));
        let event = ready!(building.as_mut().poll(context));
        this.building = None;
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

/// Returns the policy that permits the page's own style and script alone.
fn policy(page: &str) -> HeaderValue {
    let hash = |element: &str| {
        let inner = between(page, &format!("<{element}>"), &format!("</{element}>"));
        STANDARD.encode(Sha256::digest(inner.unwrap_or_default()))
    };
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script")
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn between<'t>(text: &'t str, open: &str, close: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(open)?;
    Some(rest.split_once(close)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_for_nothing_else() {
        for element in ["style", "script"] {
            let open = format!("<{element}");
            assert_eq!(PAGE.matches(&open).count(), 1, "{element}");
            let inner = between(PAGE, &format!("<{element}>"), &format!("</{element}>"));
            assert!(inner.is_some_and(|inner| inner.len() > 100), "{element}");
        }
        // The name of a namespace is no address.
        let page = PAGE.replace("http://www.w3.org/2000/svg", "");
        for outside in [
            "http:",
            "https:",
            "src=",
            " style=",
            "onclick",
            "innerHTML",
            "@import",
            "url(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(PAGE.len() < 64 * 1024);
    }

    #[test]
    fn the_policy_names_what_the_page_has() {
        let shown = policy("<style>a</style><script>b</script>");
        let shown = shown.to_str().unwrap();
        // The first bytes of SHA-256 of "a" and "b".
        assert!(shown.contains("style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='"));
        assert!(shown.contains("script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='"));
    }
}
