//! Pure. The values of labels that are enums.

/// The results of a reload.
pub(super) const APPLIED: &str = "applied";
pub(super) const FAILED: &str = "failed";

/// The outcome of a request. Every request ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Served from the store.
    Hit,
    /// Served stale from the store, which some rule permits.
    Stale,
    /// Served by a fetch of its own that could be stored.
    Fetched,
    /// Served by a fetch that another request led.
    Joined,
    /// A read that bypassed the cache.
    Passed,
    /// A write that the API responded to.
    Written,
    /// A write accepted to be sent later.
    Deferred,
    /// Served with the recorded response of an earlier request under the same key.
    Replayed,
    /// Served by one of the gateway's own resources.
    Own,
    /// Rejected by the gateway; nothing was sent.
    Refused,
    /// The deadline passed in the queue, or the API's 429 could not be waited out; nothing took
    /// effect.
    Expired,
    /// A write that was sent without a response.
    Unknown,
    /// The API could not be reached, or did not respond to a read.
    Failed,
    /// The caller hung up before the response.
    HungUp,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 14] = [
        Self::Hit,
        Self::Stale,
        Self::Fetched,
        Self::Joined,
        Self::Passed,
        Self::Written,
        Self::Deferred,
        Self::Replayed,
        Self::Own,
        Self::Refused,
        Self::Expired,
        Self::Unknown,
        Self::Failed,
        Self::HungUp,
    ];

    /// Returns the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Fetched => "fetched",
            Self::Joined => "joined",
            Self::Passed => "passed",
            Self::Written => "written",
            Self::Deferred => "deferred",
            Self::Replayed => "replayed",
            Self::Own => "own",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::HungUp => "hung-up",
        }
    }
}

/// The origin of a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The API, for any other attempt.
    Upstream,
    /// The API, for the first attempt of a budget without history.
    Start,
    /// The gateway, for a caller over its quota.
    Gateway,
}

impl Origin {
    /// Returns the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Start => "start",
            Self::Gateway => "gateway",
        }
    }
}

/// The kind of bytes that are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No valid head.
    Head,
    /// A head above the size limit.
    TooLarge,
    /// The preface of HTTP/2.
    Http2,
    /// The rest of a head did not come in time.
    Timeout,
}

impl Malformed {
    /// Returns the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::TooLarge => "too-large",
            Self::Http2 => "http2",
            Self::Timeout => "timeout",
        }
    }
}

/// How a TLS handshake of a caller or an operator ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeResult {
    /// The connection is open.
    Completed,
    /// The peer sent a request without TLS.
    PlainHttp,
    /// It did not end in time.
    Timeout,
    /// It was the oldest of too many at once.
    Displaced,
    /// The peer closed the connection.
    Closed,
    /// The peer rejected the certificate or something else, by an alert.
    Alert,
    /// The peer has no certificate, and one is required.
    NoClientCertificate,
    /// The certificate of the peer is not of a trusted authority, or not valid now.
    BadClientCertificate,
    /// There is no common version, cipher suite or protocol.
    Incompatible,
    /// The bytes were not TLS, or violated it.
    Malformed,
}

impl HandshakeResult {
    /// All results.
    pub const ALL: [Self; 10] = [
        Self::Completed,
        Self::PlainHttp,
        Self::Timeout,
        Self::Displaced,
        Self::Closed,
        Self::Alert,
        Self::NoClientCertificate,
        Self::BadClientCertificate,
        Self::Incompatible,
        Self::Malformed,
    ];

    /// Returns the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::PlainHttp => "plain-http",
            Self::Timeout => "timeout",
            Self::Displaced => "displaced",
            Self::Closed => "closed",
            Self::Alert => "alert",
            Self::NoClientCertificate => "no-client-certificate",
            Self::BadClientCertificate => "bad-client-certificate",
            Self::Incompatible => "incompatible",
            Self::Malformed => "malformed",
        }
    }
}

/// Returns the class of a status; `none` without a response.
pub(super) fn class(status: Option<u16>) -> &'static str {
    match status {
        Some(100..=199) => "1xx",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
        None => "none",
    }
}
