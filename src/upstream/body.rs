//! The body of a response, with time limits.
//!
//! Two limits apply: the longest silence of the API while the caller waits for the next frame, and
//! the longest time of the whole exchange since the request was sent. Time in which nobody polls
//! for a frame does not count as silence. After an error or the end, the body lets go of the
//! connection, so a body that is too slow cannot occupy one.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::causes::chain;
use crate::clock::Clock;

/// The reason why a body ended early. The frames returned until then are not the whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The connection was lost, or the framing is wrong. The body is shorter than announced.
    Broken,
    /// No frame arrived within the idle limit.
    IdleTimeout,
    /// The exchange exceeded its total limit.
    TotalTimeout,
}

/// The time limits of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) idle: Duration,
    pub(super) end: Instant,
}

/// The signal that a body is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The framing of HTTP/1.1, which hyper checks.
    Framing,
    /// `END_STREAM`. hyper also ends an HTTP/2 body without an error when the peer resets the
    /// stream with `NO_ERROR` (RFC 9113 section 8.1). That may happen in the middle of the body,
    /// and a truncated body must not pass for a complete one.
    Stream,
}

/// The body of a response. Passes data and trailers as they arrive.
pub struct AnswerBody {
    inner: Option<Incoming>,
    end: End,
    limits: Limits,
    clock: Clock,
    /// The running time limit while the caller waits for the API.
    wait: Option<Wait>,
}

struct Wait {
    sleep: Pin<Box<Sleep>>,
    then: BodyError,
}

impl AnswerBody {
    pub(super) fn new(inner: Incoming, end: End, limits: Limits, clock: Clock) -> Self {
        Self {
            inner: Some(inner),
            end,
            limits,
            clock,
            wait: None,
        }
    }

    /// Ends the body here and drops the rest.
    pub(super) fn forget(&mut self) {
        self.inner = None;
    }

    /// Ends the body with an error and lets go of the connection.
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.inner = None;
        self.wait = None;
        Poll::Ready(Some(Err(error)))
    }

    /// Starts the timer of the limit that is reached first.
    fn begin_wait(&self) -> Wait {
        let idle = self.clock.now() + self.limits.idle;
        let (until, then) = if idle < self.limits.end {
            (idle, BodyError::IdleTimeout)
        } else {
            (self.limits.end, BodyError::TotalTimeout)
        };
        Wait {
            sleep: Box::pin(tokio::time::sleep_until(until.into())),
            then,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(inner) = this.inner.as_mut() else {
            return Poll::Ready(None);
        };
        // A body that always has a frame ready never reaches the timer below, so the total limit is
        // checked here too.
        if this.clock.now() >= this.limits.end {
            return this.fail(BodyError::TotalTimeout);
        }
        match Pin::new(&mut *inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                // h2 skips empty data frames, so every frame is progress.
                this.wait = None;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(detail = %chain(&error), "upstream body ended early");
                this.fail(BodyError::Broken)
            }
            Poll::Ready(None) => {
                // The stream was reset without an error: see `End::Stream`.
                if this.end == End::Stream && !Body::is_end_stream(inner) {
                    return this.fail(BodyError::Broken);
                }
                this.inner = None;
                this.wait = None;
                Poll::Ready(None)
            }
            // The timer starts at the first poll without a frame and runs until the next frame.
            Poll::Pending => {
                let mut wait = this.wait.take().unwrap_or_else(|| this.begin_wait());
                if wait.sleep.as_mut().poll(context).is_ready() {
                    return this.fail(wait.then);
                }
                this.wait = Some(wait);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl BodyError {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "body-broken",
            Self::IdleTimeout => "body-idle-timeout",
            Self::TotalTimeout => "body-total-timeout",
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Broken => "the answer of the Segment API broke off",
            Self::IdleTimeout => "the Segment API stopped sending in the middle of an answer",
            Self::TotalTimeout => "the answer of the Segment API took too long",
        })
    }
}

impl std::error::Error for BodyError {}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AnswerBody")
            .field("size", &self.size_hint())
            .finish_non_exhaustive()
    }
}
