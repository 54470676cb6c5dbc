//! Spans for an OpenTelemetry collector: what a request did, when, and for how long.
//!
//! A [`Trail`] is the place of a request in its trace. It continues the caller's `traceparent` (W3C
//! Trace Context) or starts a new trace. A span is built after the work that it describes has
//! ended, so a request that is not traced costs the look at one header. Exporting never waits: if
//! the collector is slow or away, spans are dropped and counted.
//!
//! The decision of the caller counts: a request whose `traceparent` is sampled is traced, one
//! whose `traceparent` is not sampled is not. The configured percentage applies to all others. The
//! module does not decide which spans there are, and a failed export never fails a request.

mod export;

use crate::clock::Clock;
use crate::metrics::Metrics;
use export::Export;
pub use export::{Collector, TraceError};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use opentelemetry::trace::{SpanKind, TraceId};

/// The header that names a request's place in its trace (W3C Trace Context, section 3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Returns the caller's place in its trace. An absent or malformed header gives `None`, and a new
/// trace starts (section 3.2.2).
fn remote(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else {
        return None;
    };
    if !has_its_form(parent.as_bytes()) {
        return None;
    }
    let mut fields = HeaderMap::new();
    fields.insert(TRACEPARENT, parent.clone());
    // Several lines form one list (section 3.3.1).
    let states: Vec<&[u8]> = headers
        .get_all(TRACESTATE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(states) = HeaderValue::from_bytes(&states.join(&b','))
        && !states.is_empty()
    {
        fields.insert(TRACESTATE, states);
    }
    let propagator = TraceContextPropagator::new();
    let nothing = opentelemetry::Context::new();
    let context = propagator.extract_with_context(&nothing, &HeaderExtractor(&fields));
    let context = context.span().span_context().clone();
    context.is_valid().then_some(context)
}

/// Returns whether each part has its length; the library accepts shorter ones. A later version may
/// add parts at the end.
fn has_its_form(parent: &[u8]) -> bool {
    const LENGTH: usize = 55;
    let hyphens = [2, 35, 52].iter().all(|at| parent.get(*at) == Some(&b'-'));
    let whole = match parent.strip_prefix(b"00") {
        Some(_) => parent.len() == LENGTH,
        None => parent.len() >= LENGTH && parent.get(LENGTH).is_none_or(|next| *next == b'-'),
    };
    hyphens && whole
}

/// Returns the trace id that a caller sent, for the log.
pub fn trace_id(headers: &HeaderMap) -> Option<TraceId> {
    remote(headers).map(|remote| remote.trace_id())
}

/// The place of a request in its trace. Exists only for requests that are traced.
#[derive(Clone, Debug)]
pub struct Trail {
    /// Trace id, own span id, flags and `tracestate`: what the next hop gets.
    context: SpanContext,
    /// The span above. Invalid for the first span of a trace.
    parent: SpanId,
    /// Whether the span above belongs to another process.
    parent_is_remote: bool,
    /// An instant and its wall-clock time. One pair serves the whole trace, so that no span begins
    /// before its parent.
    anchor: (Instant, SystemTime),
}

impl Trail {
    /// Returns a place without one above it.
    fn root(context: SpanContext, anchor: (Instant, SystemTime)) -> Self {
        Self {
            context,
            parent: SpanId::INVALID,
            parent_is_remote: false,
            anchor,
        }
    }

    /// Returns the id of the trace.
    pub fn trace_id(&self) -> TraceId {
        self.context.trace_id()
    }

    /// Returns a new place below this one.
    ///
    /// The new place inherits flags and `tracestate`, so a trace is exported as a whole or not at
    /// all.
    pub fn below(&self) -> Self {
        let context = &self.context;
        Self {
            context: SpanContext::new(
                context.trace_id(),
                RandomIdGenerator::default().new_span_id(),
                context.trace_flags(),
                false,
                context.trace_state().clone(),
            ),
            parent: context.span_id(),
            parent_is_remote: context.is_remote(),
            anchor: self.anchor,
        }
    }

    /// Returns the wall-clock time of an instant.
    fn wall(&self, at: Instant) -> SystemTime {
        let (anchor, wall) = self.anchor;
        match at.checked_duration_since(anchor) {
            Some(since) => wall + since,
            None => wall - anchor.saturating_duration_since(at),
        }
    }

    /// Writes this place into headers, for the next hop.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let context = opentelemetry::Context::new().with_remote_span_context(self.context.clone());
        TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
        if headers.get(TRACESTATE).is_some_and(HeaderValue::is_empty) {
            headers.remove(TRACESTATE);
        }
    }
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span<'t> {
    /// The place of the span.
    pub trail: &'t Trail,
    /// The name, one of few values.
    pub name: Cow<'static, str>,
    /// The side of an exchange.
    pub kind: SpanKind,
    /// The beginning.
    pub from: Instant,
    /// The end.
    pub to: Instant,
    /// Whether the work failed.
    pub failed: bool,
    /// Further facts. They never contain a token, and nothing of a caller except its request id.
    pub attributes: Vec<KeyValue>,
}

/// The collector, and which requests are traced.
#[derive(Clone, Debug)]
pub struct TracerSpec {
    /// The collector.
    pub collector: Collector,
    /// The percentage of requests without a `traceparent` that are traced. A request with one is
    /// traced if its caller traces it.
    pub sample_percent: u32,
}

/// The status of a response, in OpenTelemetry's semantic conventions for HTTP.
pub const STATUS: &str = "http.response.status_code";
/// The error, or the reason why there is no response.
pub const ERROR: &str = "error.type";

/// Exports spans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The queue to the collector.
    export: Export,
    /// Names this program and its version in every span.
    scope: InstrumentationScope,
    /// See [`TracerSpec::sample_percent`].
    sample_percent: u32,
    clock: Clock,
}

impl Tracer {
    /// Starts the export in the current runtime. No connection is made yet.
    ///
    /// # Errors
    /// If the collector's address cannot be used.
    pub fn start(
        spec: &TracerSpec,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Self, TraceError> {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok(Self {
            shared: Arc::new(Shared {
                export: Export::start(&spec.collector, metrics, clock.clone())?,
                scope,
                sample_percent: spec.sample_percent,
                clock,
            }),
        })
    }

    /// Returns the place of a request with these headers, or `None` if it is not to be traced.
    ///
    /// With a `traceparent` this is a new place below the caller's span. Otherwise it is the root
    /// of a new trace.
    pub fn begin(&self, headers: &HeaderMap) -> Option<Trail> {
        let ids = RandomIdGenerator::default();
        if let Some(remote) = remote(headers) {
            // The caller's own place. It is never exported here, so its parent does not matter.
            let is_sampled = remote.is_sampled();
            return is_sampled.then(|| Trail::root(remote, self.anchor()).below());
        }
        let id = ids.new_trace_id();
        // The last byte of the id is random. It decides for the whole trace.
        let [.., last] = id.to_bytes();
        if u32::from(last) * 100 >= self.shared.sample_percent * 256 {
            return None;
        }
        let context = SpanContext::new(
            id,
            ids.new_span_id(),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        Some(Trail::root(context, self.anchor()))
    }

    /// Reads both clocks. Called once for a trace, see [`Trail`].
    fn anchor(&self) -> (Instant, SystemTime) {
        let clock = &self.shared.clock;
        (clock.now(), clock.wall())
    }

    /// Returns the place for work that continues after its caller got a response. Spans below it
    /// belong to the caller's own span.
    pub fn resume(&self, headers: &HeaderMap) -> Option<Trail> {
        resume(headers, self.anchor())
    }

    /// Queues a span for export. Never waits.
    pub fn export(&self, span: Span<'_>) {
        let shared = &self.shared;
        let status = if span.failed {
            Status::error("")
        } else {
            Status::Unset
        };
        shared.export.push(SpanData {
            span_context: span.trail.context.clone(),
            parent_span_id: span.trail.parent,
            parent_span_is_remote: span.trail.parent_is_remote,
            span_kind: span.kind,
            name: span.name,
            start_time: span.trail.wall(span.from),
            end_time: span.trail.wall(span.to),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status,
            instrumentation_scope: shared.scope.clone(),
        });
    }

    /// Exports the queued spans within this time. Blocks the thread.
    pub fn finish(&self, within: Duration) {
        self.shared.export.finish(within);
    }
}

fn resume(headers: &HeaderMap, anchor: (Instant, SystemTime)) -> Option<Trail> {
    let context = remote(headers).filter(SpanContext::is_sampled)?;
    Some(Trail::root(context, anchor))
}

/// Returns an attribute for [`Span::attributes`].
pub fn attribute(name: &'static str, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(name, value)
}

#[cfg(test)]
mod tests;
