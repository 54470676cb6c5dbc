//! The requests that the gateway rejected most recently, for operators who ask why.
//!
//! Bounded in number. An entry contains nothing that a caller chose.

use http::StatusCode;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// The number of entries kept.
const MOST: usize = 20;

/// A rejected request.
#[derive(Clone, Debug)]
pub struct RecentRefusal {
    /// The instant of the response.
    pub at: Instant,
    /// The operation, or `none` if it was not known.
    pub operation: Arc<str>,
    /// The type of the error.
    pub kind: &'static str,
    /// The status of the response.
    pub status: StatusCode,
}

/// The most recent rejections.
#[derive(Debug, Default)]
pub struct RecentRefusals(VecDeque<RecentRefusal>);

impl RecentRefusals {
    /// Adds an entry, and drops the oldest if there are too many.
    pub fn note(&mut self, refusal: RecentRefusal) {
        if self.0.len() == MOST {
            self.0.pop_back();
        }
        self.0.push_front(refusal);
    }

    /// Returns the entries, newest first.
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
