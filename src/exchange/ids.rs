//! What names a request in every line of the log about it: its own id and that of its trace.
//!
//! They travel with the request to the API, among its extensions, so that whatever is told of an
//! attempt names the request that it was made for.

use crate::exchange::request_id::REQUEST_ID;
use crate::trace::{self, TraceId, Tracer, Trail};
use http::HeaderMap;
use http::header::HeaderValue;

/// The names of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids {
    request: Option<HeaderValue>,
    trace: Option<TraceId>,
    trail: Option<Trail>,
}

impl Ids {
    /// Its own id.
    pub(crate) fn request(&self) -> Option<&str> {
        self.request.as_ref().and_then(|id| id.to_str().ok())
    }

    /// That of its trace, if its caller has said one or it is traced here.
    pub(crate) fn trace(&self) -> Option<impl tracing::Value + use<>> {
        self.trace.map(tracing::field::display)
    }

    /// Its place in its trace, if spans are told of it.
    pub(crate) fn trail(&self) -> Option<&Trail> {
        self.trail.as_ref()
    }

    /// The names of a request that comes in with these fields; spans are told of it by `tracer`.
    pub(crate) fn of(headers: &HeaderMap, tracer: Option<&Tracer>) -> Self {
        Self::with(headers, tracer.and_then(|tracer| tracer.begin(headers)))
    }

    /// Those of a hit, which has got this id.
    pub(crate) fn of_hit(headers: &HeaderMap, id: &HeaderValue, trail: Option<Trail>) -> Self {
        Self {
            request: Some(id.clone()),
            ..Self::with(headers, trail)
        }
    }

    /// Those of a request that another process has taken in.
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
