//! Pure. The outcome of a row, and what the gateway's replies say about it.
//!
//! Invariant: an outcome that is unknown is never called a failure. A row has failed only if the
//! API rejected it, and is refused only if nothing was sent for it.

use super::reply::{ErrorText, GatewayReply};
use crate::journal::WriteId;
use serde_json::Value;

/// How far a row came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowOutcome {
    /// The API accepted it.
    Succeeded,
    /// The API rejected it.
    Failed,
    /// It may have taken effect.
    Unknown,
    /// The gateway has it and has not carried it out yet.
    Waiting,
    /// The gateway rejected it, or it was cancelled. The API has not seen it.
    Refused,
    /// It was not handed over.
    Unsent,
}

impl RowOutcome {
    /// All outcomes, in the order of a summary.
    pub(super) const ALL: [Self; 6] = [
        Self::Succeeded,
        Self::Failed,
        Self::Unknown,
        Self::Waiting,
        Self::Refused,
        Self::Unsent,
    ];

    /// Returns whether nothing more is to be heard of such a row.
    pub(super) fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Unsent)
    }

    /// The word in summaries and reports.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Waiting => "waiting",
            Self::Refused => "refused",
            Self::Unsent => "unsent",
        }
    }
}

/// What is known of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowResult {
    pub(super) outcome: RowOutcome,
    /// The status of the API's answer, or of the gateway's.
    pub(super) status: Option<u16>,
    pub(super) error: ErrorText,
    /// The id of the write, if the gateway named it.
    pub(super) id: Option<WriteId>,
}

impl RowResult {
    /// Returns a result without an answer.
    pub(super) fn new(outcome: RowOutcome, message: &str) -> Self {
        Self {
            outcome,
            status: None,
            error: ErrorText {
                message: message.to_owned(),
                ..ErrorText::default()
            },
            id: None,
        }
    }

    /// Returns the result of a row that got this reply, which says its outcome.
    pub(super) fn of_reply(outcome: RowOutcome, reply: &GatewayReply) -> Self {
        let error = match outcome {
            RowOutcome::Succeeded => ErrorText::default(),
            _ => reply.error.clone(),
        };
        Self {
            outcome,
            status: Some(reply.status),
            error,
            id: None,
        }
    }

    /// Returns the result of a write that the gateway has accepted.
    pub(super) fn waiting(id: WriteId) -> Self {
        Self {
            id: Some(id),
            ..Self::new(RowOutcome::Waiting, "")
        }
    }

    /// Returns the result of a write as `/_gateway/writes` shows it, or `None` if it has not ended.
    pub(super) fn of_write(id: WriteId, write: &Value) -> Option<Self> {
        let answer = &write["answer"];
        let status = answer["status"].as_u64();
        let (outcome, otherwise) = match write["state"].as_str().unwrap_or_default() {
            "queued" | "dispatched" => return None,
            "succeeded" => (RowOutcome::Succeeded, ""),
            "failed" => (
                RowOutcome::Failed,
                "given up: the API has rejected the token for a day",
            ),
            "cancelled" => (RowOutcome::Refused, "cancelled before it was sent"),
            "unknown" => (RowOutcome::Unknown, "sent, and its outcome is unknown"),
            _ => (
                RowOutcome::Unknown,
                "in a state that this program does not know",
            ),
        };
        let mut error = match outcome {
            RowOutcome::Succeeded => ErrorText::default(),
            _ => ErrorText::of(&answer["body"]),
        };
        if error.kind.is_empty() && error.message.is_empty() {
            otherwise.clone_into(&mut error.message);
        }
        Some(Self {
            outcome,
            status: status.and_then(|status| u16::try_from(status).ok()),
            error,
            id: Some(id),
        })
    }
}

/// The number of rows in each outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowCounts([usize; RowOutcome::ALL.len()]);

impl RowCounts {
    /// Counts results.
    pub(super) fn of_all(results: &[RowResult]) -> Self {
        let mut counts = Self::default();
        for result in results {
            counts.0[result.outcome as usize] += 1;
        }
        counts
    }

    /// Returns the number of rows with this outcome.
    pub(super) fn of(&self, outcome: RowOutcome) -> usize {
        self.0[outcome as usize]
    }

    /// Returns the number of all rows.
    pub(super) fn rows(&self) -> usize {
        self.0.iter().sum()
    }

    /// Returns the number of rows of which nothing more is to be heard.
    pub(super) fn ended(&self) -> usize {
        let all = RowOutcome::ALL.into_iter();
        let ended = all.filter(|outcome| outcome.is_final());
        ended.map(|outcome| self.of(outcome)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id() -> WriteId {
        "0192f0c1-2a3b-7c4d-8e5f-012345678901".parse().unwrap()
    }

    #[test]
    fn a_write_that_ended_says_how() {
        let rejected =
            json!({ "errors": [{ "type": "Conflict", "message": "is\n already  invited" }] });
        let of = |write: Value| RowResult::of_write(id(), &write);
        for state in ["queued", "dispatched"] {
            assert_eq!(of(json!({ "state": state })), None);
        }
        for (write, outcome, status, kind, message) in [
            (
                json!({ "state": "succeeded", "answer": { "status": 201, "body": { "data": {} } } }),
                RowOutcome::Succeeded,
                Some(201),
                "",
                "",
            ),
            (
                json!({ "state": "failed", "answer": { "status": 422, "body": rejected } }),
                RowOutcome::Failed,
                Some(422),
                "Conflict",
                "is already invited",
            ),
            (
                json!({ "state": "failed" }),
                RowOutcome::Failed,
                None,
                "",
                "given up",
            ),
            (
                json!({ "state": "unknown" }),
                RowOutcome::Unknown,
                None,
                "",
                "sent, and its outcome",
            ),
            (
                json!({ "state": "unknown", "answer": { "status": 502, "body": "<html>" } }),
                RowOutcome::Unknown,
                Some(502),
                "",
                "<html>",
            ),
            (
                json!({ "state": "cancelled" }),
                RowOutcome::Refused,
                None,
                "",
                "cancelled before",
            ),
            (
                json!({ "state": "paused for good" }),
                RowOutcome::Unknown,
                None,
                "",
                "in a state",
            ),
            (json!({}), RowOutcome::Unknown, None, "", "in a state"),
        ] {
            let found = of(write.clone()).unwrap();
            assert_eq!((found.outcome, found.status), (outcome, status), "{write}");
            assert_eq!(found.error.kind, kind, "{write}");
            assert!(
                found.error.message.starts_with(message),
                "{write}: {found:?}"
            );
            assert_eq!(found.id, Some(id()));
        }
    }
}
