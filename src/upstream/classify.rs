//! Which of the two kinds of failure an error is: certainly not sent, or unknown.
//!
//! What the libraries guarantee, read in hyper 1.12, hyper-util 0.1.21 and h2 0.4.20:
//!
//! - The client records the chosen connection in the same step in which it hands the request
//!   over. No record, no byte.
//! - A handed-over request comes back as a hyper error that `is_canceled` only with the request
//!   itself in hand, unwritten, on HTTP/1.1 and HTTP/2 alike: it was still in the channel to the
//!   connection. Everything later is another kind of error.
//! - A stream reset by the peer with REFUSED_STREAM was not processed (RFC 9113 section 8.7), and
//!   that error is made of nothing but such a frame on that stream.
//! - A GOAWAY promises the same for streams above the one it names, but the same error also
//!   reaches a stream at or below it when the frame arrives while hyper is between queueing and
//!   awaiting it. That is not certainty, so it is unknown.

use std::error::Error;
use std::fmt;

use hyper_util::client::legacy;

use super::client::Attempt;
use super::outcome::{NotSent, Unknown};

/// Why no connection came about.
#[derive(Debug)]
pub(super) struct ConnectFailure {
    pub(super) reason: NotSent,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ConnectFailure {
    pub(super) fn new(reason: NotSent, source: Option<Box<dyn Error + Send + Sync>>) -> Self {
        Self { reason, source }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "no connection to the upstream ({})", self.reason)
    }
}

impl Error for ConnectFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// Whether a request had been given to a connection when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// It had not.
    Not,
    /// It had, to one made for it: from here on, only proof makes it [`NotSent`].
    ToNew,
    /// The same to one that had been kept, and that the peer may have closed in that moment.
    ToKept,
}

/// What became of a request whose sending ended in `error`.
pub(super) fn classify(error: &legacy::Error, handed: Handed) -> Attempt {
    if handed == Handed::Not {
        let reason = find::<ConnectFailure>(error)
            .map_or(NotSent::ClosedBeforeSending, |failure| failure.reason);
        return Attempt::NotSent(reason);
    }
    // The first one is what the connection told; later ones are its causes.
    let told = find::<hyper::Error>(error);
    let stream = find::<h2::Error>(error);
    if told.is_some_and(hyper::Error::is_canceled) {
        return Attempt::NotSent(NotSent::ClosedBeforeSending);
    }
    if stream.is_some_and(refused_stream) {
        return Attempt::NotSent(NotSent::Unprocessed);
    }
    let is_malformed = told.is_some_and(hyper::Error::is_parse) || stream.is_some_and(is_ours);
    Attempt::Unknown(if is_malformed {
        Unknown::Malformed
    } else if handed == Handed::ToKept && !stream.is_some_and(h2::Error::is_reset) {
        Unknown::StaleConnection
    } else {
        Unknown::Broken
    })
}

/// Whether the stream was reset on this side, because its answer is malformed or its head too long.
fn is_ours(error: &h2::Error) -> bool {
    error.is_reset() && error.is_library()
}

fn refused_stream(error: &h2::Error) -> bool {
    error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// The first error of type `T` in the chain, `error` included.
pub(super) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// The whole chain in one line, for a log.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}
