//! What callers did and heard: one side of the evidence. The other is the sandbox's list.

use http::StatusCode;
use std::time::{Duration, Instant};

/// An instant, and an order among what happens in one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub at: Instant,
    pub order: u64,
}

/// How a request ended for its caller.
#[derive(Clone, Debug)]
pub enum End {
    /// With an answer.
    Answered {
        status: StatusCode,
        /// The type of an error.
        error: String,
        /// Whether a retry was refused of a write whose outcome is unknown.
        retry_refused: bool,
        /// What a 429 asks to wait.
        wait: Option<Duration>,
        /// The state that the answer shows.
        version: Option<u64>,
        /// Whether it came from the store, or from a fetch that another request began.
        shared: bool,
    },
    /// The caller hung up.
    HungUp,
    /// The gateway was killed.
    Killed,
}

/// One request of a caller.
#[derive(Clone, Debug)]
pub struct Request {
    pub number: usize,
    pub token: u8,
    pub peer: u8,
    /// Which life of the gateway it was sent to.
    pub life: usize,
    pub began: Moment,
    pub patience: Duration,
    pub what: What,
    pub ended: Option<(Moment, End)>,
}

/// What a request is about.
#[derive(Clone, Debug)]
pub enum What {
    /// It shows this.
    Read(Subject),
    Write(Write),
}

/// What a read shows, e.g. `user:user-00001`.
pub type Subject = String;

/// What is known of a write without asking the gateway.
#[derive(Clone, Debug)]
pub struct Write {
    /// Reads of these certainly show another state once it took effect.
    pub changes: Vec<Subject>,
    /// It is kept in order with the others of the same token that have one of these.
    pub keys: Vec<String>,
    /// It is kept in order with all that have a key of a person.
    pub barrier: bool,
}

impl Request {
    pub fn heard(&self) -> Option<Moment> {
        match &self.ended {
            Some((moment, End::Answered { .. })) => Some(*moment),
            _ => None,
        }
    }

    pub fn error(&self) -> &str {
        match &self.ended {
            Some((_, End::Answered { error, .. })) => error,
            _ => "",
        }
    }

    pub fn is_retry_refused(&self) -> bool {
        matches!(
            self.ended,
            Some((
                _,
                End::Answered {
                    retry_refused: true,
                    ..
                }
            ))
        )
    }
}
