//! Pure. Which of one caller's ready requests is next.
//!
//! The more urgent go first, and of equal ones the earlier. But one of [`OLDEST_EVERY`] turns is
//! for the request that has waited longest: urgent requests that keep coming must not hold up an
//! old one for ever. Lines of budgets and lines of deferred writes both take their turns by this
//! rule.

use super::caller::Urgency;
use std::collections::BTreeSet;

/// Of so many turns of a caller, one is for the request that has waited longest.
pub(super) const OLDEST_EVERY: usize = 4;

/// The ready requests of one caller, each named by a number that grows with its arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByUrgency {
    /// In the order of arrival.
    arrived: BTreeSet<u64>,
    /// The same requests, the more urgent first.
    urgent: BTreeSet<(Urgency, u64)>,
    /// The turns since one was for the request that had waited longest.
    since_oldest: usize,
}

impl ByUrgency {
    /// Adds a request.
    pub(crate) fn insert(&mut self, request: u64, urgency: Urgency) {
        self.arrived.insert(request);
        self.urgent.insert((urgency, request));
    }

    /// Removes a request. Returns whether it was there.
    pub(crate) fn remove(&mut self, request: u64, urgency: Urgency) -> bool {
        self.urgent.remove(&(urgency, request));
        self.arrived.remove(&request)
    }

    /// Takes the next turn, and returns the request whose turn it is. The request stays until it is
    /// removed. Without a request no turn is taken.
    pub(crate) fn take_turn(&mut self) -> Option<u64> {
        let oldest = self.oldest()?;
        if self.since_oldest + 1 >= OLDEST_EVERY {
            self.since_oldest = 0;
            return Some(oldest);
        }
        self.since_oldest += 1;
        self.urgent.first().map(|(_, request)| *request)
    }

    /// Returns the request that arrived first.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.arrived.first().copied()
    }

    /// Returns the number of requests.
    pub(crate) fn len(&self) -> usize {
        self.arrived.len()
    }

    /// Returns whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// Returns the requests in the order of arrival.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.arrived.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_of_four_is_for_the_oldest() {
        let mut ready = ByUrgency::default();
        let (urgent, usual) = (Urgency(1), Urgency(3));
        ready.insert(0, usual);
        (1..=6).for_each(|request| ready.insert(request, urgent));
        let mut order = Vec::new();
        while let Some(request) = ready.take_turn() {
            let removed = ready.remove(request, urgent) || ready.remove(request, usual);
            assert!(removed);
            order.push(request);
        }
        assert_eq!(order, [1, 2, 3, 0, 4, 5, 6]);
        assert!(ready.is_empty() && ready.take_turn().is_none());
    }
}
