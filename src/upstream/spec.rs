//! Pure. The description of a client: where its requests go, and the time limits of an attempt.
//!
//! Three limits of an attempt follow each other: `connect` until a connection is ready, `head`
//! until the response begins, `idle_body` between two pieces of its body. `total` bounds the last
//! two together.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;

use super::base::Base;
use super::proxy::ProxyRules;

/// The upper bound of every time limit. Adding one to an instant then cannot overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The role of the server that a client talks to. Lines of the log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The API. Requests of callers need it.
    Api,
    /// The collector of spans. No request needs it.
    TraceCollector,
}

impl Destination {
    /// Returns the name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "API",
            Self::TraceCollector => "trace collector",
        }
    }
}

/// The description of a client.
#[derive(Clone, Debug)]
pub struct ClientSpec {
    /// The role of the server.
    pub destination: Destination,
    /// The base URL of the server, which gives every request its authority and `Host`.
    pub base: Base,
    /// A PEM file with certificates to trust in addition to the public roots.
    pub ca_file: Option<PathBuf>,
    /// Time limit for a ready connection: name resolution, TCP, proxy and TLS.
    pub connect: Duration,
    /// Time limit from then to the head of the final response.
    pub head: Duration,
    /// Time limit for silence within a body.
    pub idle_body: Duration,
    /// Time limit from sending to the end of the body.
    pub total: Duration,
    /// How long a connection accepts new requests.
    pub connection_lifetime: Duration,
    /// How long an idle connection may be reused.
    pub connection_idle: Duration,
    /// The late-arrival bound: how late an abandoned request may still reach the API.
    pub late_arrival: Duration,
    /// Whether HTTP/2 is offered. Only by ALPN (RFC 9113 section 3.2), so never without TLS.
    pub http2: bool,
    /// The rules that choose a proxy.
    pub proxy: ProxyRules,
    /// The value appended to `Via` of every request (RFC 9110 section 7.6.3).
    pub via: HeaderValue,
}

impl ClientSpec {
    /// Returns the description with every time limit at most [`LONGEST`].
    pub(super) fn bounded(mut self) -> Self {
        for limit in [
            &mut self.connect,
            &mut self.head,
            &mut self.idle_body,
            &mut self.total,
            &mut self.connection_lifetime,
            &mut self.connection_idle,
            &mut self.late_arrival,
        ] {
            *limit = LONGEST.min(*limit);
        }
        self
    }
}
