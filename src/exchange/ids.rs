//! The ids of a request in every log line about it: its own and that of its trace.
//!
//! They accompany the request to the sender in its extensions, so that every report about an
//! attempt names the request that it belongs to.

use crate::exchange::request_id::REQUEST_ID;
use crate::trace::{self, TraceId, Tracer, Trail};
use http::HeaderMap;
use http::header::HeaderValue;

/// The ids of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    request: Option<HeaderValue>,
    trace: Option<TraceId>,
    trail: Option<Trail>,
}

impl Ids {
    /// Returns the request's own id.
    pub(crate) fn request(&self) -> Option<&str> {
        self.request.as_ref().and_then(|id| id.to_str().ok())
    }

    /// Returns the id of its trace, if the caller sent one or the request is traced here.
    pub(crate) fn trace(&self) -> Option<impl tracing::Value + use<>> {
        self.trace.map(tracing::field::display)
    }

    /// Returns the place of the request in its trace, if its spans are exported.
    pub(crate) fn trail(&self) -> Option<&Trail> {
        self.trail.as_ref()
    }

    /// Returns the ids of a request with these headers. `tracer` exports its spans.
    pub(crate) fn of(headers: &HeaderMap, tracer: Option<&Tracer>) -> Self {
        Self::with(headers, tracer.and_then(|tracer| tracer.begin(headers)))
    }

    /// Returns the ids of a hit, whose own id is `id`.
    pub(crate) fn of_hit(headers: &HeaderMap, id: &HeaderValue, trail: Option<Trail>) -> Self {
        Self {
            request: Some(id.clone()),
            ..Self::with(headers, trail)
        }
    }

    /// Returns the ids of a request that another process accepted.
    pub(crate) fn resumed(headers: &HeaderMap, tracer: Option<&Tracer>) -> Self {
        Self::with(headers, tracer.and_then(|tracer| tracer.resume(headers)))
    }

    fn with(headers: &HeaderMap, trail: Option<Trail>) -> Self {
        let trace = match &trail {
            Some(trail) => Some(trail.trace_id()),
            None if headers.contains_key(trace::TRACEPARENT) => trace::trace_id(headers),
            None => None,
        };
        Self {
            request: headers.get(REQUEST_ID).cloned(),
            trace,
            trail,
        }
    }
}
