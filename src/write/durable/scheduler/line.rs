//! Pure. The deferred writes of one caller, and which of them is next.
//!
//! They take turns as requests before a budget do. Groups and their turns are not known here.

use crate::caller::Caller;
use crate::credential::Credential;
use crate::lanes::Turn;
use crate::limit::turns::ByUrgency;
use std::collections::BTreeSet;
use std::sync::Arc;

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
    /// Writes with open lanes.
    pub(super) ready: ByUrgency,
    /// Writes whose lanes are closed.
    pub(super) blocked: BTreeSet<Turn>,
    /// The number of ready writes that have gone in the present turn. 0 unless the line is the
    /// first of its group's ring.
    pub(super) gone: usize,
    /// Whether the line is in the ring of its group.
    pub(super) in_ring: bool,
    /// Whether the line is among those of its group that are looked at for followers.
    pub(super) in_followers: bool,
}

impl DeferredLine {
    /// Returns whether the line has no write and no turn to come, so that nothing needs it.
    pub(super) fn is_forgotten(&self) -> bool {
        let has_turn = self.in_ring || self.in_followers;
        !has_turn && self.ready.is_empty() && self.blocked.is_empty()
    }
}
