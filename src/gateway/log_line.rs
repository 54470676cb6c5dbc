//! The log line about a request that got its response.
//!
//! Promises that the token appears only as its hash, and path and query not at all. The layers and
//! the fast path write the same line.

use crate::credential::Credential;
use crate::exchange::ids::Ids;
use crate::exchange::request::{Peer, short};
use crate::exchange::timing::Timing;
use crate::journal::WriteId;
use crate::metrics::Outcome;
use http::{Method, StatusCode};
use std::time::Duration;

/// The facts that the line shows.
#[derive(Debug)]
pub(crate) struct LogLine<'a> {
    pub(crate) operation: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) status: StatusCode,
    pub(crate) outcome: Outcome,
    pub(crate) error: Option<&'static str>,
    pub(crate) cache: Option<&'static str>,
    pub(crate) shadow: Option<&'a str>,
    pub(crate) elapsed: Duration,
    pub(crate) timing: &'a Timing,
    pub(crate) credential: Option<Credential>,
    pub(crate) peer: Option<Peer>,
    pub(crate) caller: Option<&'a str>,
    pub(crate) ids: &'a Ids,
    pub(crate) write_id: Option<WriteId>,
}

impl LogLine<'_> {
    pub(crate) fn write(&self) {
        tracing::info!(
            operation = self.operation,
            method = short(self.method),
            status = self.status.as_u16(),
            outcome = self.outcome.as_str(),
            error = self.error,
            cache = self.cache,
            shadow = self.shadow,
            elapsed_ms = millis(self.elapsed),
            queue_ms = millis(self.timing.queued),
            upstream_ms = millis(self.timing.upstream),
            throttled = self.timing.throttled,
            merged = self.timing.merged,
            credential = self.credential.map(tracing::field::display),
            peer = self.peer.map(|peer| tracing::field::display(peer.0.ip())),
            caller = self.caller,
            request_id = self.ids.request(),
            trace_id = self.ids.trace(),
            write_id = self.write_id.map(tracing::field::display),
            "request"
        );
    }
}

/// Returns a duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
