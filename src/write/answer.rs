//! The API's answer to a write, as its caller or the journal gets it.
//!
//! A caller gets the body as it arrives. It is read into memory only where the answer has to
//! outlast the connection: for the journal, and while the write is retried. What a caller gets
//! instead of an answer is decided elsewhere.

use crate::attempt::send::FinalAnswer;
use crate::error::{GatewayError, Waited};
use crate::exchange::body::{self, Body, Read};
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::limit::budgets::BudgetStatus;
use crate::metrics::Outcome;
use crate::write::decision::is_repeatable;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};
use std::time::Duration;

/// The longest body that the journal keeps, and that is divided among the members of a batch, in
/// bytes.
pub(super) const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// The bounds of a body that is held in memory while its write is retried: in bytes, and the time
/// that it may take. A longer one keeps its connection.
const LONGEST_HELD: usize = 64 * 1024;
const HOLDING_TIME: Duration = Duration::from_secs(2);

/// The API's answer to a write.
#[derive(Debug)]
pub(crate) struct WriteAnswer {
    pub(super) response: Response<AnswerContent>,
    /// The status of the budget that its attempt used.
    pub(super) standing: Option<BudgetStatus>,
    /// The time from sending to the head of the response.
    pub(super) took: Duration,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum AnswerContent {
    /// The body as it arrives.
    Streamed(Body),
    /// The whole body in memory.
    Whole(Bytes),
    /// Nothing: the body broke off, or was too long or too slow to be kept.
    Lost,
}

/// What the caller of a write hears: the API's answer, or why there is none.
pub(crate) type Heard = Result<Box<WriteAnswer>, GatewayError>;

impl From<FinalAnswer> for WriteAnswer {
    fn from(answer: FinalAnswer) -> Self {
        let content = |body| AnswerContent::Streamed(Body::Streamed(Box::new(body)));
        Self {
            response: answer.response.map(content),
            standing: answer.standing,
            took: answer.took,
        }
    }
}

impl WriteAnswer {
    /// A 429 that cannot be waited out before the deadline.
    pub(super) fn throttled(response: Response<Bytes>) -> Self {
        Self {
            response: response.map(AnswerContent::Whole),
            standing: None,
            took: Duration::ZERO,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Returns the reply to its caller, or `None` if the body is lost.
    pub(super) fn reply(self, mut timing: Timing) -> Option<Reply> {
        let (head, content) = self.response.into_parts();
        let body = match content {
            AnswerContent::Streamed(body) => body,
            AnswerContent::Whole(bytes) => Body::held(bytes),
            AnswerContent::Lost => return None,
        };
        let outcome = match head.status {
            StatusCode::TOO_MANY_REQUESTS => Outcome::Expired,
            _ => Outcome::Written,
        };
        timing.upstream = self.took;
        Some(Reply {
            timing,
            standing: self.standing,
            ..Reply::new(Response::from_parts(head, body), outcome)
        })
    }

    /// Reads the body for the journal.
    pub(super) async fn collect(self) -> Self {
        self.read(LONGEST_ANSWER, Duration::MAX, |_, _| AnswerContent::Lost)
            .await
    }

    /// Reads the body, or its beginning, while the write is retried: the connection and the time
    /// for the answer end before the retries do.
    pub(super) async fn hold(self) -> Self {
        self.read(LONGEST_HELD, HOLDING_TIME, |first, rest| {
            AnswerContent::Streamed(Body::Continued(Some(first), rest))
        })
        .await
    }

    /// Reads a body that still arrives; `longer` says what is kept of one of more than `most`
    /// bytes.
    async fn read(
        self,
        most: usize,
        within: Duration,
        longer: impl FnOnce(Bytes, Box<crate::upstream::AnswerBody>) -> AnswerContent,
    ) -> Self {
        let (mut head, content) = self.response.into_parts();
        let content = match content {
            AnswerContent::Streamed(Body::Streamed(body)) => {
                match tokio::time::timeout(within, body::read(*body, most)).await {
                    Ok(Read::Whole(bytes)) => AnswerContent::Whole(bytes),
                    Ok(Read::Longer(first, rest)) => longer(first, rest),
                    Ok(Read::Broken(_)) | Err(_) => AnswerContent::Lost,
                }
            }
            other => other,
        };
        if !matches!(content, AnswerContent::Streamed(_)) {
            // The server computes the length of a body in memory.
            head.headers.remove(CONTENT_LENGTH);
        }
        Self {
            response: Response::from_parts(head, content),
            ..self
        }
    }
}

/// Returns the error for a write of which it is unknown whether it took effect.
pub(crate) fn unknown(context: &RequestContext, waited: Waited) -> GatewayError {
    GatewayError::OutcomeUnknown {
        waited,
        may_retry: is_repeatable(context),
    }
}
