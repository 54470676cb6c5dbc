//! The class of a failed attempt: certainly not sent, or outcome unknown.
//!
//! Relies on these guarantees, verified in the sources of hyper 1.12, hyper-util 0.1.21 and h2
//! 0.4.20:
//!
//! - The client records the chosen connection in the same step in which it hands the request over.
//!   Without a record, no byte was written.
//! - A hyper error `is_canceled` only if the request itself comes back unwritten, on HTTP/1.1 and
//!   HTTP/2 alike: it was still in the channel to the connection. Everything later is another kind
//!   of error.
//! - A stream that the peer reset with REFUSED_STREAM was not processed (RFC 9113 section 8.7), and
//!   only such a frame on that stream causes the error.
//! - A GOAWAY promises the same for streams above the one that it names. The same error also
//!   reaches a stream at or below it if the frame arrives while hyper is between queueing and
//!   awaiting that stream. That is not certain, so the outcome is unknown.
//!
//! Check these again before you upgrade one of the three libraries.

use hyper_util::client::legacy;

use super::attempt::Attempt;
use super::causes::find;
use super::failure::ConnectFailure;
use super::outcome::{NotSent, Unknown};

/// Whether the failed request had been handed to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// Not handed over: certainly not sent.
    Not,
    /// Handed to a connection that was made for it. From here on, only proof makes the attempt
    /// [`NotSent`].
    ToNew,
    /// Handed to a kept connection, which the peer may have closed at that moment.
    ToKept,
}

/// Classifies an attempt that failed with `error`. In doubt the outcome is unknown.
pub(super) fn classify(error: &legacy::Error, handed: Handed) -> Attempt {
    if handed == Handed::Not {
        let reason = find::<ConnectFailure>(error)
            .map_or(NotSent::ClosedBeforeSending, |failure| failure.reason);
        return Attempt::NotSent(reason);
    }
    // The first error is the one that the connection reported. The others are its causes.
    let reported = find::<hyper::Error>(error);
    let stream = find::<h2::Error>(error);
    if reported.is_some_and(hyper::Error::is_canceled) {
        return Attempt::NotSent(NotSent::ClosedBeforeSending);
    }
    if stream.is_some_and(refused_stream) {
        return Attempt::NotSent(NotSent::Unprocessed);
    }
    let is_malformed = reported.is_some_and(hyper::Error::is_parse) || stream.is_some_and(is_ours);
    Attempt::Unknown(if is_malformed {
        Unknown::Malformed
    } else if handed == Handed::ToKept && !stream.is_some_and(h2::Error::is_reset) {
        Unknown::StaleConnection
    } else {
        Unknown::Broken
    })
}

/// Whether this side reset the stream, because the response is malformed or its head too long.
fn is_ours(error: &h2::Error) -> bool {
    error.is_reset() && error.is_library()
}

fn refused_stream(error: &h2::Error) -> bool {
    error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}
