//! Plain values that the path needs. They can be replaced while it runs.

use crate::exchange::prefer::Patience;
use crate::network::Network;
use http::HeaderValue;
use std::time::Duration;

/// Which requests have a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// What went upstream, was refused or failed.
    Upstream,
    /// Every request.
    All,
}

/// Plain values that the path needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names this gateway in `Via`.
    pub via: HeaderValue,
    /// Host and port of the API, as its own answers may name them.
    pub authority: String,
    /// Peers whose `X-Gateway-Caller` is believed.
    pub trusted: Vec<Network>,
    /// How long writes and reads wait for their budgets.
    pub write_patience: Patience,
    /// See `write_patience`.
    pub read_patience: Patience,
    /// How long nothing under a written tag is stored or joined, because the API may lag.
    pub settling: Duration,
    /// Q: the same after an unknown outcome, and how long its lanes stay closed.
    pub late: Duration,
    /// The largest body of a request, in bytes, and of a stored answer.
    pub largest_body: usize,
    /// See `largest_body`.
    pub largest_stored: usize,
    /// The shortest timeout of what stands between the callers and the gateway, where known: no
    /// wait of any kind is longer.
    pub caller_timeout: Option<Duration>,
    /// The longest that an attempt can take, connecting included.
    pub longest_answer: Duration,
    /// Which requests have a line in the log.
    pub access: AccessLog,
}
