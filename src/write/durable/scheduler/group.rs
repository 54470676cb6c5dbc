//! Pure. The deferred writes of one credential and operation, which share a budget, and which line
//! is next.
//!
//! Promises that each line has its turn, and that ready writes and those that may join a batch have
//! theirs. In a turn of a line as many ready writes go as the weight of its principal says. The
//! pauses, and how many writes may stand, are not known here.

use super::line::{DeferredLine, LineKey};
use crate::credential::Credential;
use crate::lanes::Turn;
use crate::limit::turns::ClientWeights;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The most writes with closed lanes of one operation that are looked at, each time, for one that
/// can join a batch.
const LOOKED_AT: usize = 64;

/// The writes of one credential and operation, of all callers. They share a budget.
#[derive(Debug, Default)]
pub(super) struct DeferredGroup {
    /// Those that wait here, in any line.
    pub(super) waiting: BTreeSet<Turn>,
    /// Those before their budget.
    pub(super) standing: BTreeSet<Turn>,
    /// The lines with ready writes in the order of their turns; each once. A line without any stays
    /// until its turn.
    pub(super) ring: VecDeque<LineKey>,
    /// The lines that have writes with closed lanes which may join a batch, in the order in which
    /// they are looked at; each once. A line without any stays until it is looked at.
    pub(super) followers: VecDeque<LineKey>,
    /// Whether a follower is looked for first, because the latest write was a ready one. Otherwise
    /// a caller with many ready writes would keep the batches of all others empty.
    pub(super) owes_follower: bool,
    /// Whether the group is in the ring of the scheduler.
    pub(super) in_ring: bool,
}

impl DeferredGroup {
    /// Whether a group outside the ring has nothing to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
            && self.standing.is_empty()
            && self.ring.is_empty()
            && self.followers.is_empty()
    }

    /// Returns the next write of a group with open lanes, and its line.
    pub(super) fn ready(
        &mut self,
        lines: &mut HashMap<LineKey, DeferredLine>,
        weights: &ClientWeights,
    ) -> Option<(Turn, LineKey)> {
        while let Some(of) = self.ring.pop_front() {
            let Some(line) = lines.get_mut(&of) else {
                continue;
            };
            if let Some(turn) = line.ready.take_turn() {
                line.gone += 1;
                if line.gone < weights.of(&of.caller.principal).requests() {
                    self.ring.push_front(of.clone());
                } else {
                    line.gone = 0;
                    self.ring.push_back(of.clone());
                }
                return Some((turn, of));
            }
            (line.in_ring, line.gone) = (false, 0);
            if line.is_forgotten() {
                lines.remove(&of);
            }
        }
        None
    }

    /// Returns a write with closed lanes that may join a batch of those that stand already, and its
    /// line. Each line has its turn, so a caller whose writes join none does not hide those of
    /// others. Weights do not count: these writes take no slot.
    pub(super) fn follower(
        &mut self,
        lines: &mut HashMap<LineKey, DeferredLine>,
        credential: Credential,
        follows: &impl Fn(Credential, Turn, &BTreeSet<Turn>) -> bool,
    ) -> Option<(Turn, LineKey)> {
        let mut looks = LOOKED_AT;
        for _ in 0..self.followers.len() {
            if looks == 0 {
                return None;
            }
            let of = self.followers.pop_front()?;
            let Some(line) = lines.get_mut(&of) else {
                continue;
            };
            if line.blocked.is_empty() {
                line.in_followers = false;
                if line.is_forgotten() {
                    lines.remove(&of);
                }
                continue;
            }
            let mut blocked = line.blocked.iter().take(looks);
            let found = blocked.find(|turn| follows(credential, **turn, &self.standing));
            looks -= line.blocked.len().min(looks);
            let found = found.copied();
            self.followers.push_back(of.clone());
            if let Some(turn) = found {
                return Some((turn, of));
            }
        }
        None
    }
}
