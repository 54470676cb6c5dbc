//! Pure. The deferred writes of one caller, and which of them is next.
//!
//! The more urgent come first, but every fourth is the oldest, so that none starves. Groups and
//! their turns are not known here.

use crate::credential::Credential;
use crate::lanes::Turn;
use crate::limit::turns::{Caller, Urgency};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One of so many scheduled writes is the oldest.
const OLDEST_EVERY: usize = 4;

/// The properties that writes have in common which take turns among themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LineKey {
    /// The credential that the budget belongs to.
    pub credential: Credential,
    /// The operation's name.
    pub operation: Arc<str>,
    /// The caller.
    pub caller: Caller,
    /// Whether its writes may be batched.
    pub merges: bool,
}

impl LineKey {
    /// Returns the credential and the operation, whose writes share a budget.
    pub(super) fn group(&self) -> GroupKey {
        (self.credential, self.operation.clone())
    }
}

/// The credential and the operation of a group.
pub(super) type GroupKey = (Credential, Arc<str>);

/// The deferred writes of one caller that wait to be scheduled, of one operation and credential.
#[derive(Debug, Default)]
pub(super) struct DeferredLine {
    /// Writes with open lanes, in the order of acceptance.
    pub(super) ready: BTreeSet<Turn>,
    /// The writes of `ready`, the most urgent first. Both sets always have the same writes.
    pub(super) urgent: BTreeSet<(Urgency, Turn)>,
    /// Writes whose lanes are closed.
    pub(super) blocked: BTreeSet<Turn>,
    /// The number scheduled since the oldest was.
    since_oldest: usize,
    /// Whether the line is in the ring of its group.
    pub(super) in_ring: bool,
    /// Whether the line is among those of its group that are looked at for followers.
    pub(super) in_followers: bool,
}

impl DeferredLine {
    /// Returns the write whose turn it is, and counts it as scheduled. It stays in the line until
    /// `leave`.
    pub(super) fn next(&mut self) -> Option<Turn> {
        let oldest = self.since_oldest + 1 >= OLDEST_EVERY;
        let turn = match oldest {
            true => self.ready.first().copied(),
            false => self.urgent.first().map(|(_, turn)| *turn),
        }?;
        self.since_oldest = if oldest { 0 } else { self.since_oldest + 1 };
        Some(turn)
    }

    /// Returns whether the line has no write and no turn to come, so that nothing needs it.
    pub(super) fn is_forgotten(&self) -> bool {
        let has_turn = self.in_ring || self.in_followers;
        !has_turn && self.ready.is_empty() && self.blocked.is_empty()
    }
}
