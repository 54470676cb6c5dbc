//! The facts about a request that has ended, for its log line and its spans.
//!
//! Promises that the token appears only as its hash, and path and query not at all. The layers and
//! the fast path report with the same code.

use crate::cache::cache_status::CacheStatus;
use crate::clients::KeyId;
use crate::credential::Credential;
use crate::exchange::ids::Ids;
use crate::exchange::progress::Progress;
use crate::exchange::request::{Peer, short};
use crate::exchange::timing::{Timing, millis};
use crate::journal::WriteId;
use crate::metrics::Outcome;
use crate::route::policy::Operation;
use http::{Method, StatusCode, Version};
use std::time::{Duration, Instant};

/// The facts about a request that has ended.
#[derive(Debug)]
pub(crate) struct RequestReport<'a> {
    pub(crate) ids: &'a Ids,
    pub(crate) method: &'a Method,
    pub(crate) version: Version,
    /// `None` if the request was rejected before it was known.
    pub(crate) operation: Option<&'a Operation>,
    pub(crate) credential: Option<Credential>,
    pub(crate) peer: Option<Peer>,
    /// The client, and the id of the key by which it is known.
    pub(crate) client: Option<&'a str>,
    pub(crate) key: Option<KeyId>,
    /// The name that a trusted peer gave its caller.
    pub(crate) caller: Option<&'a str>,
    pub(crate) outcome: Outcome,
    /// `None` without a response.
    pub(crate) status: Option<StatusCode>,
    /// The kind of an error of the gateway's own.
    pub(crate) error: Option<&'static str>,
    pub(crate) cache: Option<&'a CacheStatus>,
    /// The prediction of shadow mode.
    pub(crate) shadow: Option<&'a str>,
    pub(crate) write_id: Option<WriteId>,
    pub(crate) timing: &'a Timing,
    pub(crate) progress: Option<&'a Progress>,
    /// The instant at which the request was accepted, and the time since then.
    pub(crate) from: Instant,
    pub(crate) elapsed: Duration,
}

impl RequestReport<'_> {
    /// Returns the operation's name, or `none`.
    fn name(&self) -> &str {
        self.operation.map_or("none", |operation| &operation.name)
    }

    /// Returns the version of HTTP that the caller speaks, as the number of its name.
    pub(crate) fn http_version(&self) -> &'static str {
        match self.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        }
    }

    /// Writes the log line about a request that got its response.
    pub(crate) fn write_line(&self) {
        tracing::info!(
            operation = self.name(),
            method = short(self.method),
            http_version = self.http_version(),
            status = self.status.map(|status| status.as_u16()),
            outcome = self.outcome.as_str(),
            error = self.error,
            cache = self.cache.map(CacheStatus::reason),
            shadow = self.shadow,
            elapsed_ms = millis(self.elapsed),
            queue_ms = millis(self.timing.queued),
            upstream_ms = millis(self.timing.upstream),
            throttled = self.timing.throttled,
            merged = self.timing.merged,
            credential = self.credential.map(tracing::field::display),
            peer = self.peer.map(|peer| tracing::field::display(peer.0.ip())),
            client = self.client,
            key = self.key.map(tracing::field::display),
            caller = self.caller,
            request_id = self.ids.request(),
            trace_id = self.ids.trace(),
            write_id = self.write_id.map(tracing::field::display),
            "request"
        );
    }

    /// Writes the log line about a request that ended without a response. `sent` says whether the
    /// API may have got it. Only then its time in the queue is known.
    pub(crate) fn write_unanswered(&self) {
        tracing::info!(
            operation = self.name(),
            method = short(self.method),
            http_version = self.http_version(),
            status = self.status.map(|status| status.as_u16()),
            outcome = self.outcome.as_str(),
            sent = self.timing.sent,
            elapsed_ms = millis(self.elapsed),
            queue_ms = self.timing.sent.then(|| millis(self.timing.queued)),
            credential = self.credential.map(tracing::field::display),
            peer = self.peer.map(|peer| tracing::field::display(peer.0.ip())),
            client = self.client,
            key = self.key.map(tracing::field::display),
            caller = self.caller,
            request_id = self.ids.request(),
            trace_id = self.ids.trace(),
            "request ended without a response"
        );
    }
}
