//! The answer of the API to a batch, read to its end. What it says to each member is decided in
//! [`crate::merge`].

use crate::attempt::send::FinalAnswer;
use crate::error::Waited;
use crate::exchange::body::{self, Read};
use crate::limit::budgets::BudgetStatus;
use crate::merge;
use crate::write::answer::LONGEST_ANSWER;
use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use std::time::Duration;

/// The answer of the API to a batch.
pub(super) struct BatchAnswer {
    /// The whole answer, or why there is none.
    pub(super) whole: Result<Response<Bytes>, Waited>,
    /// Whether the batch may still be in flight behind a balancer that answered.
    pub(super) doubtful: bool,
    /// The status of the budget after the attempt, which every member shows to its caller.
    pub(super) standing: Option<BudgetStatus>,
    /// The time from sending to the head of the response; zero without a response.
    pub(super) took: Duration,
}

impl BatchAnswer {
    /// No answer, for this reason.
    pub(super) fn none(why: Waited) -> Self {
        Self {
            whole: Err(why),
            doubtful: false,
            standing: None,
            took: Duration::ZERO,
        }
    }

    /// Reads an answer to its end: half of one cannot be divided.
    ///
    /// An answer that is longer than [`LONGEST_ANSWER`], or breaks off, leaves the outcome unknown,
    /// unless its status is a refusal.
    pub(super) async fn read(answer: FinalAnswer) -> Self {
        let (mut head, body) = answer.response.into_parts();
        let whole = match body::read(body, LONGEST_ANSWER).await {
            Read::Whole(bytes) => {
                // The server computes the length of a body in memory.
                head.headers.remove(CONTENT_LENGTH);
                Ok(Response::from_parts(head, bytes))
            }
            // The members are sent again, whatever the body says.
            Read::Longer(..) | Read::Broken(_) if merge::is_refusal(head.status) => {
                Ok(Response::from_parts(head, Bytes::new()))
            }
            Read::Longer(..) => Err(Waited::Unattributed),
            Read::Broken(_) => Err(Waited::InVain),
        };
        Self {
            whole,
            doubtful: answer.doubtful,
            standing: answer.standing,
            took: answer.took,
        }
    }
}
