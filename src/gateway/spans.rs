//! The spans of a request.
//!
//! The request is the outer span. Below it are the cache lookup, the queue with the part spent
//! waiting for a slot of the budget, and each attempt at the API (see `crate::attempt::spans`).
//! Spans are built from recorded instants once the request has ended; nothing here is measured.

use crate::exchange::progress::Progress;
use crate::gateway::Gateway;
use crate::gateway::report::RequestReport;
use crate::metrics::Outcome;
use crate::trace::{ERROR, STATUS, Span, SpanKind, Tracer, Trail, attribute};
use http::Method;
use std::borrow::Cow;

impl Gateway {
    /// Writes the spans of a request, if it is traced.
    pub(crate) fn report_spans(&self, report: &RequestReport<'_>) {
        if let (Some(tracer), Some(trail)) = (&self.tracer, report.ids.trail()) {
            report_request(tracer, trail, report);
        }
    }
}

// Attribute names of OpenTelemetry's semantic conventions for HTTP.
const METHOD: &str = "http.request.method";
const VERSION: &str = "network.protocol.version";
const ROUTE: &str = "http.route";

fn report_request(tracer: &Tracer, trail: &Trail, ended: &RequestReport<'_>) {
    // Writes a span of the gateway's own work and returns its trail, for spans below it.
    let to = ended.from + ended.elapsed;
    let below = |name: &'static str, parent: &Trail, (from, to), attributes| {
        let place = parent.below();
        tracer.export(Span {
            trail: &place,
            name: name.into(),
            kind: SpanKind::Internal,
            from,
            to,
            failed: false,
            attributes,
        });
        place
    };
    let (looked, ready) = ended.progress.map_or((None, None), Progress::times);
    if let (Some(cache), Some(looked)) = (ended.cache, looked) {
        let attributes = vec![
            attribute("segment_gateway.cache.result", cache.result()),
            attribute("segment_gateway.cache.reason", cache.reason()),
        ];
        below("cache", trail, looked, attributes);
    }
    let timing = ended.timing;
    // A request that expired in the queue has a queue span as well, although it was never sent.
    if timing.sent || ended.outcome == Outcome::Expired {
        let left = (ended.from + timing.queued).min(to);
        let attributes = vec![
            attribute("segment_gateway.throttled", i64::from(timing.throttled)),
            attribute("segment_gateway.merged", number(timing.merged)),
        ];
        let queue = below("queue", trail, (ended.from, left), attributes);
        let budget = ended.operation.map(|operation| &operation.budget.name);
        if let (Some(budget), Some(ready)) = (budget, ready.filter(|ready| *ready <= left)) {
            let budget = attribute("segment_gateway.budget", budget.to_string());
            below("budget", &queue, (ready, left), vec![budget]);
        }
    }
    let mut attributes = vec![
        attribute(METHOD, method(ended.method)),
        attribute(VERSION, ended.http_version()),
        attribute("segment_gateway.outcome", ended.outcome.as_str()),
    ];
    if let Some(status) = ended.status {
        attributes.push(attribute(STATUS, i64::from(status.as_u16())));
    }
    if let Some(error) = ended.error {
        attributes.push(attribute(ERROR, error));
    }
    if let Some(id) = ended.ids.request() {
        attributes.push(attribute("segment_gateway.request_id", id.to_owned()));
    }
    let mut name = Cow::Borrowed(method(ended.method));
    if let Some(operation) = ended.operation {
        let operation_name = operation.name.to_string();
        attributes.push(attribute("segment_gateway.operation", operation_name));
        if !operation.template.is_empty() {
            attributes.push(attribute(ROUTE, operation.template.to_string()));
            name = format!("{name} {}", operation.template).into();
        }
    }
    let failed = ended.status.is_none_or(|status| status.is_server_error());
    tracer.export(Span {
        trail,
        name,
        kind: SpanKind::Server,
        from: ended.from,
        to,
        failed,
        attributes,
    });
}

/// Returns the name of a method. One that a caller invented is `_OTHER`, which bounds the values.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
