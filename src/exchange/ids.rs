//! What names a request in every line of the log about it: its own id and that of its trace.
//!
//! They travel with the request to the API, among its extensions, so that whatever is told of an
//! attempt names the request that it was made for.

use crate::exchange::request_id::REQUEST_ID;
use crate::gateway::Gateway;
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
}

impl Gateway {
    /// The names of a request that comes in with these fields.
    pub(crate) fn ids(&self, headers: &HeaderMap) -> Ids {
        let begin = |tracer: &Tracer| tracer.begin(headers);
        self.ids_with(headers, self.tracer.as_ref().and_then(begin))
    }

    /// Those of a hit, which has got this id.
    pub(crate) fn ids_of_hit(
        &self,
        headers: &HeaderMap,
        id: &HeaderValue,
        trail: Option<Trail>,
    ) -> Ids {
        Ids {
            request: Some(id.clone()),
            ..self.ids_with(headers, trail)
        }
    }

    /// Those of a request that another process has taken in.
    pub(crate) fn ids_of_kept(&self, headers: &HeaderMap) -> Ids {
        let trail = self
            .tracer
            .as_ref()
            .and_then(|tracer| tracer.resume(headers));
        self.ids_with(headers, trail)
    }

    fn ids_with(&self, headers: &HeaderMap, trail: Option<Trail>) -> Ids {
        let trace = match &trail {
            Some(trail) => Some(trail.trace_id()),
            None if headers.contains_key(trace::TRACEPARENT) => trace::trace_id(headers),
            None => None,
        };
        Ids {
            request: headers.get(REQUEST_ID).cloned(),
            trace,
            trail,
        }
    }
}
