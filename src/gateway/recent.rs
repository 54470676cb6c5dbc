//! The latest requests that the gateway refused itself, for operators who ask why.
//!
//! Bounded: so many, and nothing of them that a caller chose.

use http::StatusCode;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// How many are remembered.
const MOST: usize = 20;

/// One of them.
#[derive(Clone, Debug)]
pub struct RecentRefusal {
    /// When it was answered.
    pub at: Instant,
    /// What was asked for.
    pub operation: Arc<str>,
    /// The error's type.
    pub kind: &'static str,
    /// The status of the answer.
    pub status: StatusCode,
}

/// The latest of them.
#[derive(Debug, Default)]
pub struct RecentRefusals(VecDeque<RecentRefusal>);

impl RecentRefusals {
    /// One more.
    pub fn note(&mut self, refusal: RecentRefusal) {
        if self.0.len() == MOST {
            self.0.pop_back();
        }
        self.0.push_front(refusal);
    }

    /// The newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &RecentRefusal> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_latest_are_remembered_and_no_more() {
        let at = Clock::system().now();
        let mut recent = RecentRefusals::default();
        for n in 0..MOST + 5 {
            recent.note(RecentRefusal {
                at,
                operation: n.to_string().into(),
                kind: "gateway-queue-wait",
                status: StatusCode::SERVICE_UNAVAILABLE,
            });
        }
        let shown: Vec<_> = recent
            .newest_first()
            .map(|one| one.operation.to_string())
            .collect();
        assert_eq!(shown.len(), MOST);
        assert_eq!((shown[0].as_str(), shown[MOST - 1].as_str()), ("24", "5"));
    }
}
