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

    /// Returns the request's own id, for a header.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.request.clone()
    }

    /// Returns the id of its trace, if the caller sent one or the request is traced here.
    pub(crate) fn trace(&self) -> Option<impl tracing::Value + use<>> {
        self.trace.map(tracing::field::display)
    }

    /// Returns the place of the request in its trace, if its spans are exported.
    pub(crate) fn trail(&self) -> Option<&Trail> {
        self.trail.as_ref()
    }

    /// Returns the ids of a request whose own id is `request`. `tracer` exports its spans.
    pub(crate) fn new(
        request: Option<HeaderValue>,
        headers: &HeaderMap,
        tracer: Option<&Tracer>,
    ) -> Self {
        let trail = tracer.and_then(|tracer| tracer.begin(headers));
        Self::at(request, headers, trail)
    }

    /// Returns the ids of a request whose place in its trace is `trail`, if its spans are exported.
    pub(crate) fn at(
        request: Option<HeaderValue>,
        headers: &HeaderMap,
        trail: Option<Trail>,
    ) -> Self {
        let trace = match &trail {
            Some(trail) => Some(trail.trace_id()),
            None if headers.contains_key(trace::TRACEPARENT) => trace::trace_id(headers),
            None => None,
        };
        Self {
            request,
            trace,
            trail,
        }
    }

    /// Returns the ids of a request that another process accepted.
    pub(crate) fn resumed(headers: &HeaderMap, tracer: Option<&Tracer>) -> Self {
        let trail = tracer.and_then(|tracer| tracer.resume(headers));
        Self::at(headers.get(REQUEST_ID).cloned(), headers, trail)
    }
}
