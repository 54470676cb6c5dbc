//! The outcome of one attempt, in three cases that leave no doubt about what may be retried.

use http::Response;

use super::body::AnswerBody;
use super::outcome::{NotSent, Unknown};

/// The outcome of one attempt.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once for each request, and mostly the large one"
)]
pub enum Attempt {
    /// The head of the final response arrived; the body follows.
    Answered(Response<AnswerBody>),
    /// The request was certainly not carried out.
    NotSent(NotSent),
    /// The request may have been carried out.
    Unknown(Unknown),
}
