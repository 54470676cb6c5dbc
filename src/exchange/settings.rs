//! Settings of the request path. A reload replaces them as a whole.

use crate::credential::CredentialNames;
use crate::exchange::prefer::Patience;
use crate::network::Network;
use http::HeaderValue;
use std::time::Duration;

/// The requests that get a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Requests that were sent to the API, rejected or failed.
    Upstream,
    /// All requests.
    All,
}

/// Settings of the request path.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of this gateway in `Via`.
    pub via: HeaderValue,
    /// Host and port of the API, as its own responses may contain them.
    pub authority: String,
    /// Peers whose `X-Gateway-Caller` is trusted.
    pub trusted: Vec<Network>,
    /// How long writes wait for their budgets.
    pub write_patience: Patience,
    /// How long reads wait for their budgets.
    pub read_patience: Patience,
    /// The settle time: how long nothing under a written tag is stored or joined, because the API
    /// may lag.
    pub settling: Duration,
    /// The late-arrival bound Q. After an unknown outcome it replaces the settle time, and the
    /// lanes stay closed for as long.
    pub late: Duration,
    /// The largest body of a request, in bytes.
    pub largest_body: usize,
    /// The largest body of a stored response, in bytes.
    pub largest_stored: usize,
    /// The shortest timeout between callers and the gateway, if configured. No wait is longer.
    pub caller_timeout: Option<Duration>,
    /// The longest time that an attempt can take, connecting included.
    pub longest_answer: Duration,
    /// The requests that get a log line.
    pub access: AccessLog,
    /// The names of credentials, for operators only.
    pub names: CredentialNames,
}
