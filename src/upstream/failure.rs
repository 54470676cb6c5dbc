//! Pure. The failure to establish a connection. It passes through hyper's client as a source of
//! hyper's own error, and `classify.rs` finds it there again.

use std::error::Error;
use std::fmt;

use super::outcome::NotSent;

/// A failure to establish a connection.
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
        write!(out, "no connection ({})", self.reason)
    }
}

impl Error for ConnectFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}
