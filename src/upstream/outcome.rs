//! Pure. The outcome of a request without a response.
//!
//! The distinction between the two types matters more than anything else in `upstream`. A request
//! that is [`NotSent`] may always be retried. One that is [`Unknown`] may have taken effect: it
//! invalidates what is cached, and a write is retried only if a second execution does no harm. In
//! doubt the outcome is unknown.

use std::fmt;

/// The explanation of [`Unknown::Malformed`] for operators.
pub const UNREADABLE: &str = "The API's answer could not be read: its head is malformed, has more than \
    100 fields or more than 64 KiB, or its body is in a transfer coding that was not asked for";

/// The request was certainly not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotSent {
    /// The API's name has no address.
    Unresolved,
    /// No address of the API accepted a connection: refused, unreachable, or no socket left.
    Refused,
    /// No connection was ready within the connect time, TLS and proxy included.
    ConnectTimeout,
    /// The API's certificate is not trusted, or is not valid for its name.
    Certificate,
    /// The TLS handshake failed for another reason.
    Tls,
    /// The proxy could not be reached or did not open a tunnel.
    Proxy,
    /// The connection was lost before the first byte of this request was written.
    ClosedBeforeSending,
    /// The API reset the stream as not processed (REFUSED_STREAM, RFC 9113 section 8.7). The
    /// request was transmitted, so a counter in front of the API may have seen it.
    Unprocessed,
}

/// The request was sent, or may have been, and no response arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// No response head arrived within the head limit.
    HeadTimeout,
    /// No response head arrived within the total limit, where that is the shorter one.
    TotalTimeout,
    /// The connection was lost.
    Broken,
    /// A kept connection was lost before a response. Usually the API closed it as idle at that
    /// moment.
    StaleConnection,
    /// The response is unreadable: not HTTP, too many fields, a head that is too long, or an
    /// unsupported transfer coding.
    Malformed,
}

impl NotSent {
    /// All variants, for metrics that start at zero.
    pub const ALL: [Self; 8] = [
        Self::Unresolved,
        Self::Refused,
        Self::ConnectTimeout,
        Self::Certificate,
        Self::Tls,
        Self::Proxy,
        Self::ClosedBeforeSending,
        Self::Unprocessed,
    ];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::Certificate => "certificate",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
            Self::ClosedBeforeSending => "closed-before-sending",
            Self::Unprocessed => "unprocessed",
        }
    }

    /// A message for the caller, with a remedy.
    pub fn message(self) -> &'static str {
        match self {
            Self::Unresolved => {
                "The name of the Segment API could not be resolved; nothing was sent. Check the \
                 upstream URL and DNS, then try again."
            }
            Self::Refused => {
                "The Segment API accepted no connection; nothing was sent. Check the network and \
                 any firewall between the gateway and the API, then try again."
            }
            Self::ConnectTimeout => {
                "No connection to the Segment API was ready in time; nothing was sent. Check the \
                 network, or raise the connect timeout, then try again."
            }
            Self::Certificate => {
                "The certificate of the Segment API was not accepted; nothing was sent. Check the \
                 clock and the upstream URL; behind an inspecting proxy, name its CA file."
            }
            Self::Tls => {
                "The TLS handshake with the Segment API failed; nothing was sent. Check that the \
                 upstream URL names a server that speaks TLS 1.2 or later."
            }
            Self::Proxy => {
                "The HTTP proxy opened no way to the Segment API; nothing was sent. Check \
                 HTTPS_PROXY, NO_PROXY and the proxy itself."
            }
            Self::ClosedBeforeSending => {
                "The connection closed before the request was sent. Try again."
            }
            Self::Unprocessed => {
                "The Segment API refused the request before processing it. Try again."
            }
        }
    }

    /// Whether bytes of the request left this machine nevertheless. Such an attempt occupies its
    /// slot like one without a response, because a counter on the path may have seen it.
    pub fn travelled(self) -> bool {
        self == Self::Unprocessed
    }

    /// Whether the reason is a timeout.
    pub fn is_timeout(self) -> bool {
        self == Self::ConnectTimeout
    }
}

impl Unknown {
    /// All variants, for metrics that start at zero.
    pub const ALL: [Self; 5] = [
        Self::HeadTimeout,
        Self::TotalTimeout,
        Self::Broken,
        Self::StaleConnection,
        Self::Malformed,
    ];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head-timeout",
            Self::TotalTimeout => "total-timeout",
            Self::Broken => "broken",
            Self::StaleConnection => "stale-connection",
            Self::Malformed => "malformed",
        }
    }

    /// A message for the caller, with a remedy.
    pub fn message(self) -> &'static str {
        match self {
            Self::HeadTimeout | Self::TotalTimeout => {
                "The request was sent, but the Segment API did not answer in time. It may have \
                 taken effect: read the data before sending a write again."
            }
            Self::Malformed => {
                "The request was sent, but the answer of the Segment API could not be read. It may \
                 have taken effect: read the data before sending a write again."
            }
            Self::Broken | Self::StaleConnection => {
                "The request was sent, but the connection to the Segment API broke before an \
                 answer. It may have taken effect: read the data before sending a write again."
            }
        }
    }

    /// Whether the reason is a timeout.
    pub fn is_timeout(self) -> bool {
        matches!(self, Self::HeadTimeout | Self::TotalTimeout)
    }
}

impl fmt::Display for NotSent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_messages_say_what_to_do() {
        let mut names = HashSet::new();
        let all = NotSent::ALL
            .iter()
            .map(|reason| (reason.as_str(), reason.message()));
        for (name, message) in all.chain(Unknown::ALL.iter().map(|r| (r.as_str(), r.message()))) {
            assert!(names.insert(name), "{name} twice");
            assert!(
                message.ends_with('.') && !message.contains("  "),
                "{message}"
            );
            assert!(
                ["Check", "Try again", "read the data"]
                    .iter()
                    .any(|what| message.contains(what))
            );
        }
    }
}
