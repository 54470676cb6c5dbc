//! The body of an answer, with an end in time.
//!
//! Two limits: how long the API may stay silent while someone waits for the next piece, and how
//! long the whole exchange may take from its sending. The time in which nobody asks for the next
//! piece is not held against the API. After an error or the end the connection is let go, so a
//! body that is too slow cannot keep it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::classify::chain;
use crate::clock::Clock;

/// How a body ended before its end. What was handed out until then is not the whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The connection was lost or its framing is wrong; the body is shorter than announced.
    Broken,
    /// Nothing came for the idle time.
    IdleTimeout,
    /// The exchange took longer than the total time.
    TotalTimeout,
}

/// When a body has to have made progress, and when to have ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) idle: Duration,
    pub(super) end: Instant,
}

/// Who says that a body is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The framing of HTTP/1.1, which hyper checks.
    Framing,
    /// END_STREAM. hyper also ends an HTTP/2 body quietly when the peer resets the stream with
    /// NO_ERROR (RFC 9113 section 8.1), which may be in the middle of it; what is cut off there
    /// must not pass for the whole.
    Stream,
}

/// The body of an answer. Data and trailers pass as they come.
pub struct AnswerBody {
    inner: Option<Incoming>,
    end: End,
    limits: Limits,
    clock: Clock,
    /// Runs while someone waits for the API.
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

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.inner = None;
        self.wait = None;
        Poll::Ready(Some(Err(error)))
    }

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
        // A body that always has something ready never waits below, so time is looked at here too.
        if this.clock.now() >= this.limits.end {
            return this.fail(BodyError::TotalTimeout);
        }
        match Pin::new(&mut *inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                // h2 passes no empty data frames, so each of these is progress.
                this.wait = None;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(detail = %chain(&error), "an upstream body broke off");
                this.fail(BodyError::Broken)
            }
            Poll::Ready(None) => {
                if this.end == End::Stream && !Body::is_end_stream(inner) {
                    return this.fail(BodyError::Broken);
                }
                this.inner = None;
                this.wait = None;
                Poll::Ready(None)
            }
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
