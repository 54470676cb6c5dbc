//! Spans: what a request met, when, and for how long, told to an OpenTelemetry collector.
//!
//! A [`Trail`] names the place of a request in its trace: the caller's `traceparent` (W3C Trace
//! Context) is taken up, or a new trace is begun. Spans are made when what they tell of has ended,
//! so a request that is not traced costs a look at one field. They are handed over without waiting:
//! where the collector is slow or away, spans are dropped and counted, never requests.

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

/// The field that names a request's place in its trace (W3C Trace Context, section 3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What a caller says of its trace, unless it says nothing, or something malformed, which begins a
/// new one (section 3.2.2).
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
    // Several lines are one list (section 3.3.1).
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

/// Whether the parts have their lengths; the library takes shorter ones for numbers. A later
/// version may have more parts behind them.
fn has_its_form(parent: &[u8]) -> bool {
    const LENGTH: usize = 55;
    let hyphens = [2, 35, 52].iter().all(|at| parent.get(*at) == Some(&b'-'));
    let whole = match parent.strip_prefix(b"00") {
        Some(_) => parent.len() == LENGTH,
        None => parent.len() >= LENGTH && parent.get(LENGTH).is_none_or(|next| *next == b'-'),
    };
    hyphens && whole
}

/// The trace that a caller says its request belongs to; for the log.
pub fn trace_id(headers: &HeaderMap) -> Option<TraceId> {
    remote(headers).map(|remote| remote.trace_id())
}

/// The place of a request in its trace. Only of one whose spans are told.
#[derive(Clone, Debug)]
pub struct Trail {
    context: SpanContext,
    parent: SpanId,
    parent_is_remote: bool,
    /// An instant, and what the wall clock said then: one for all that is below, so that no span
    /// begins before the one above it.
    anchor: (Instant, SystemTime),
}

impl Trail {
    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        self.context.trace_id()
    }

    /// A place below this one.
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

    /// What the wall clock says at this instant.
    fn wall(&self, at: Instant) -> SystemTime {
        let (anchor, wall) = self.anchor;
        match at.checked_duration_since(anchor) {
            Some(since) => wall + since,
            None => wall - anchor.saturating_duration_since(at),
        }
    }

    /// Writes this place into the fields of a request, for whoever handles it next.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let context = opentelemetry::Context::new().with_remote_span_context(self.context.clone());
        TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
        if headers.get(TRACESTATE).is_some_and(HeaderValue::is_empty) {
            headers.remove(TRACESTATE);
        }
    }
}

/// Something that has ended.
#[derive(Clone, Debug)]
pub struct Span<'t> {
    /// Its place.
    pub trail: &'t Trail,
    /// What it is, of few different values.
    pub name: Cow<'static, str>,
    /// Its side of an exchange.
    pub kind: SpanKind,
    /// When it began and ended.
    pub from: Instant,
    /// See `from`.
    pub to: Instant,
    /// Whether it failed.
    pub failed: bool,
    /// What else is known of it. No token, and nothing that a caller wrote, but for its request id.
    pub attributes: Vec<KeyValue>,
}

/// Which requests are traced of those whose callers do not say so, and where spans go.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The collector.
    pub collector: Collector,
    /// Of a hundred requests without a `traceparent` so many are traced; of those with one, the
    /// ones whose caller traces them.
    pub sample_percent: u32,
}

/// Names of OpenTelemetry's semantic conventions for HTTP: the status of an answer.
pub const STATUS: &str = "http.response.status_code";
/// Why there is no answer, or which error it was.
pub const ERROR: &str = "error.type";

/// Tells spans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    export: Export,
    scope: InstrumentationScope,
    sample_percent: u32,
    clock: Clock,
}

impl Tracer {
    /// Begins to export within the present runtime; connects to nothing yet.
    ///
    /// # Errors
    /// If the collector's address cannot be used.
    pub fn start(spec: &Spec, metrics: Arc<Metrics>, clock: Clock) -> Result<Self, TraceError> {
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

    /// The place of a request that comes in with these fields, if it is to be traced.
    pub fn begin(&self, headers: &HeaderMap) -> Option<Trail> {
        let ids = RandomIdGenerator::default();
        if let Some(remote) = remote(headers) {
            let place = Trail {
                parent: SpanId::INVALID,
                parent_is_remote: false,
                context: remote,
                anchor: self.anchor(),
            };
            return place.context.is_sampled().then(|| place.below());
        }
        let id = ids.new_trace_id();
        // The last byte is as random as any: it decides, so that each trace is whole.
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
        Some(Trail {
            context,
            parent: SpanId::INVALID,
            parent_is_remote: false,
            anchor: self.anchor(),
        })
    }

    fn anchor(&self) -> (Instant, SystemTime) {
        let clock = &self.shared.clock;
        (clock.now(), clock.wall())
    }

    /// The place of something that goes on for a caller that has long been answered: what is below
    /// it is below the caller's own span.
    pub fn resume(&self, headers: &HeaderMap) -> Option<Trail> {
        resume(headers, self.anchor())
    }

    /// Tells of something that has ended. Never waits.
    pub fn tell(&self, span: Span<'_>) {
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

    /// Hands over what has been told, within this time. Blocks.
    pub fn finish(&self, within: Duration) {
        self.shared.export.finish(within);
    }
}

fn resume(headers: &HeaderMap, anchor: (Instant, SystemTime)) -> Option<Trail> {
    let context = remote(headers).filter(SpanContext::is_sampled)?;
    Some(Trail {
        context,
        parent: SpanId::INVALID,
        parent_is_remote: false,
        anchor,
    })
}

/// What is known of something, for [`Span::attributes`].
pub fn attribute(name: &'static str, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(name, value)
}

#[cfg(test)]
mod tests;
