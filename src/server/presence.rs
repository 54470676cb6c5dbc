//! Whether a caller that waits for its response is still there.
//!
//! A half-closed connection is no hang-up, but a caller that has gone looks the same
//! until something is sent to it. So if the input ends while a request waits for its response head,
//! the line sends an interim response, which every client must skip (RFC 9110, section 15.2). It is
//! `100 Continue`, because some clients skip only that one. A caller that has gone resets the
//! connection, which is a hang-up. A caller that is still there gets the response. Once the
//! response has begun, the line writes nothing of its own, and the end of the input means nothing.

use std::pin::Pin;
use std::time::Duration;
use tokio::time::Sleep;

/// The interim response.
pub(super) const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// The time for a reset to arrive: one round trip.
pub(super) const RESET_WITHIN: Duration = Duration::from_millis(500);

/// The state of the question whether the caller is still there.
#[derive(Debug)]
pub(super) enum Presence {
    /// The input has not ended.
    Open,
    /// So many bytes of the interim response are written.
    Asking(usize, Round),
    /// Waiting for a reset. Only the next write reveals it: a socket whose input has ended keeps
    /// reading nothing.
    Asked(Pin<Box<Sleep>>),
    /// The caller closed its sending half, and is still there or cannot be asked.
    Listening,
}

/// The round of asking: the first write provokes the reset, the second one meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    First,
    Second,
}
