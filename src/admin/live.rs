//! `/` on the admin listener, a page that shows what goes on, and `/live`, the stream that it
//! follows.
//!
//! The page is embedded and loads nothing else; its `Content-Security-Policy` permits its own style
//! and script alone, by their hashes. The stream sends the document of `/status` once a second, and
//! the last 15 minutes first and after each new sample. Both are built once for all readers.
//!
//! The page has no rights of its own. What it changes it asks of `/writes` with the access of its
//! reader, like any other client.

use super::history::STEP;
use super::streams::Events;
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
use std::time::Duration;
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
            seen: None,
            next: None,
            _place: place,
        };
        let kind = HeaderValue::from_static("text/event-stream");
        let mut response = respond(StatusCode::OK, kind, "");
        *response.body_mut() = OuterBody::layered(LayeredBody::new(body));
        response
    }

    /// Records the gateway every five seconds, for as long as this is polled. Without it, charts
    /// are empty and findings see no rates.
    pub async fn keep_history(self) {
        let mut step = interval(STEP);
        step.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            step.tick().await;
            // Apart from the requests, like every document: it looks at each budget.
            let recorded = self.apart(|admin| {
                let now = admin.gateway.clock().now();
                let accounts = admin.accounts();
                let totals = admin.gateway.metrics().totals();
                admin.past.lock().record(now, totals, accounts);
            });
            if recorded.await.is_none() {
                tracing::error!("recording the history of the live page panicked");
            }
        }
    }

    /// Returns the events of this moment, the same for all streams; `None` if they cannot be built.
    async fn events(self) -> Option<Events> {
        let now = self.gateway.clock().now();
        let streams = self.streams.clone();
        let build = move |earlier: Option<&Events>| {
            let (mut status, overview) = self.status(now, None);
            let totals = self.gateway.metrics().totals();
            status["counts"] = json!({
                "requests": totals.requests,
                "upstream": totals.upstream,
                "refusals": totals.refusals,
                "throttled": totals.throttled,
            });
            let mut past = self.past.lock();
            let sample = past.newest();
            // The past changes with each sample only.
            let past = match earlier.filter(|earlier| earlier.sample == sample) {
                Some(earlier) => earlier.past.clone(),
                None => event("history", &past.document(now, &overview)),
            };
            Events {
                status: event("status", &status),
                past,
                sample,
            }
        };
        streams.events(now, build).await
    }
}

/// Returns an event with a document of one line.
fn event(name: &str, document: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {document}\n\n"))
}

/// The events of one reader, until it leaves or the listener is closed.
struct Stream {
    admin: Admin,
    period: Interval,
    /// The next events, while they are built.
    building: Option<Building>,
    /// The sample up to which the reader has the past; `None` at first.
    seen: Option<u64>,
    /// The present, if the past was sent just before it.
    next: Option<Bytes>,
    _place: OwnedSemaphorePermit,
}

type Building = Pin<Box<dyn Future<Output = Option<Events>> + Send>>;

impl Body for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(status) = this.next.take() {
            return Poll::Ready(Some(Ok(Frame::data(status))));
        }
        if this.building.is_none() {
            ready!(this.period.poll_tick(context));
        }
        let admin = &this.admin;
        let building = this
            .building
            .get_or_insert_with(|| Box::pin(admin.clone().events()));
        let events = ready!(building.as_mut().poll(context));
        this.building = None;
        let Some(events) = events else {
            return Poll::Ready(None);
        };
        if this.seen == Some(events.sample) {
            return Poll::Ready(Some(Ok(Frame::data(events.status))));
        }
        // The past first, so that a page that has just been opened shows it at once.
        this.seen = Some(events.sample);
        this.next = Some(events.status);
        Poll::Ready(Some(Ok(Frame::data(events.past))))
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
    use std::collections::BTreeMap;

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
            "insertAdjacent",
            "outerHTML",
            "document.write",
            "innerHTML",
            "@import",
            "url(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(PAGE.len() <= 60 * 1024, "{}", PAGE.len());
    }

    #[test]
    fn the_policy_names_what_the_page_has() {
        let shown = policy("<style>a</style><script>b</script>");
        let shown = shown.to_str().unwrap();
        // The first bytes of SHA-256 of "a" and "b".
        assert!(shown.contains("style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='"));
        assert!(shown.contains("script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='"));
    }

    /// The colours of a theme, by name, as sRGB.
    fn colours(css: &str) -> BTreeMap<String, [f64; 3]> {
        let mut colours = BTreeMap::new();
        for part in css.split("--").skip(1) {
            let Some((name, value)) = part.split_once(": #") else {
                continue;
            };
            let hex = value.split(';').next().unwrap();
            let hex: String = match hex.len() {
                3 => hex.chars().flat_map(|digit| [digit, digit]).collect(),
                _ => hex.to_owned(),
            };
            let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let colour = [0, 2, 4].map(|at| f64::from(part(at)) / 255.0);
            colours.insert(name.to_owned(), colour);
        }
        colours
    }

    /// The contrast of two colours; WCAG 2.2, relative luminance.
    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let luminance = |colour: [f64; 3]| {
            let [r, g, b] = colour.map(|part| match part <= 0.040_45 {
                true => part / 12.92,
                false => ((part + 0.055) / 1.055).powf(2.4),
            });
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
        one.max(other) / one.min(other)
    }

    #[test]
    fn every_colour_is_seen_on_its_ground_in_both_themes() {
        assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 1e-9);
        let css = between(PAGE, "<style>", "</style>").unwrap();
        let light = colours(between(css, ":root {", "}").unwrap());
        let dark = css.split("(prefers-color-scheme: dark)").nth(1).unwrap();
        let dark = colours(between(dark, ":root {", "}").unwrap());
        assert_eq!(
            light.keys().collect::<Vec<_>>(),
            dark.keys().collect::<Vec<_>>()
        );
        for theme in [light, dark] {
            // Text needs 4.5 (WCAG 1.4.3), what is drawn needs 3 (1.4.11).
            let text = ["text", "quiet", "accent"].map(|name| (name, 4.5));
            let drawn = theme.keys().filter(|name| name.starts_with("s-"));
            let drawn = drawn
                .map(|name| (name.as_str(), 3.0))
                .chain([("field", 3.0)]);
            for (name, least) in text.into_iter().chain(drawn) {
                for ground in ["ground", "sheet"] {
                    let found = contrast(theme[name], theme[ground]);
                    assert!(found >= least, "{name} on {ground}: {found:.2}");
                }
            }
            for name in ["good", "warn", "bad"] {
                let ground = theme[&format!("{name}-ground")];
                for text in [name, "text"] {
                    let found = contrast(theme[text], ground);
                    assert!(found >= 4.5, "{text} on {name}-ground: {found:.2}");
                }
            }
        }
    }
}
