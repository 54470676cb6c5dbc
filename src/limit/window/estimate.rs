//! Pure. When the slots of a budget come free, for estimates: what has not ended is guessed.

use super::{Probe, ProbeState, Window};
use crate::limit::releases::SlotUse;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

impl Window {
    /// When the slots will be free, soonest first, of L of them the `most` first: the basis of
    /// estimates. Of the attempts under way it is given when each `left`; they are answered after
    /// `answer`, as others are. Where the budget has to be probed, the probe is the first to leave
    /// and is taken to open it.
    pub fn free_at(
        &mut self,
        now: Instant,
        answer: Duration,
        left: &VecDeque<Instant>,
        most: usize,
    ) -> Vec<Instant> {
        let _ = self.occupied(now);
        let limit = self.usable() as usize;
        let most = most.min(limit);
        let answered = |left: &Instant| (*left + answer).max(now);
        let open = self.closed_until.map_or(now, |until| until.max(now));
        let (first, others) = match self.probe {
            ProbeState::Idle => {
                let open = self.others.next().map_or(open, |next| next.max(open));
                (open, open)
            }
            ProbeState::Needed(Probe::Start) => {
                let first = open.max(self.first.next);
                (first, first + answer)
            }
            ProbeState::Needed(_) => (open, open + answer),
            ProbeState::UnderWay(_) => {
                let answered = left.back().map_or(now, answered);
                (open.max(answered), open.max(answered))
            }
        };
        let is_finding_out = self.is_finding_out();
        let (is_paced, pace) = (is_finding_out && self.is_paced(), self.pace());
        let unknown = if is_finding_out {
            0
        } else {
            self.unknown as usize
        };
        let unknown_until = self.unknown_until.unwrap_or(now);
        let holds = self.holds();
        let ends = left.iter().map(|left| answered(left) + holds.answered);
        let held = usize::try_from(self.held.count()).unwrap_or(usize::MAX);
        let busy = held + left.len() + unknown;
        // More occupied than there are slots: the first ones to end free nothing. Most of those
        // come before whatever is not noted.
        let surplus = busy.saturating_sub(limit);
        let others_from = left.front().map(|left| answered(left) + holds.answered);
        let others_from = others_from
            .into_iter()
            .chain((unknown > 0).then_some(unknown_until));
        let before = others_from
            .min()
            .map_or(self.held.count(), |at| self.held.free_at(&holds, at));
        let skipped = before.min(surplus as u64);
        let held = self.held.after(&holds, skipped);
        let unknown = std::iter::repeat_n(unknown_until, unknown);
        let releases = merge(merge(held, ends), unknown);
        let left_over = surplus - usize::try_from(skipped).unwrap_or(surplus);
        let free = std::iter::repeat_n(now, limit.saturating_sub(busy));
        let free = free.chain(releases.skip(left_over)).take(most);
        let spread = self.others.pace(self.rate());
        let (mut paced, mut evenly) = (first, first);
        free.enumerate()
            .map(|(place, at)| {
                let (until_paced, at) = (paced, at.max(evenly));
                paced += pace;
                evenly += spread;
                at.max(match place {
                    0 => first,
                    // Whatever is open by then, these leave one by one.
                    _ if is_paced => until_paced.min(unknown_until.max(first)),
                    _ => others,
                })
            })
            .collect()
    }

    /// A copy for a forecast of at most so many attempts: those under way are answered at
    /// `answers`, and a probe is taken to open the budget.
    pub fn forecast(&mut self, now: Instant, answers: &[Instant], attempts: usize) -> Self {
        let surplus = self.occupied(now).saturating_sub(self.rate().limit) as usize;
        let mut copy = Self {
            held: self.held.first_of(attempts.saturating_add(surplus)),
            evidence: self.evidence.clone(),
            ..*self
        };
        for at in answers {
            copy.held.push(SlotUse::Answered, *at, 1);
        }
        copy.in_use = 0;
        if self.probe != ProbeState::Idle && !self.is_paced() {
            copy.unknown = 0;
        }
        match copy.probe {
            ProbeState::Idle => {}
            // Nothing has told for a while, and the copy expects no more of it.
            ProbeState::Needed(Probe::Start) if self.is_paced() => {}
            ProbeState::Needed(_) => copy.probe = ProbeState::Needed(Probe::Reopen),
            ProbeState::UnderWay(_) => {
                let answered = answers.last().copied().unwrap_or(now);
                let open = copy.closed_until.unwrap_or(now);
                copy.closed_until = Some(open.max(answered));
                copy.probe = ProbeState::Idle;
            }
        }
        copy
    }
}

/// Two sorted sequences as one.
fn merge(
    left: impl Iterator<Item = Instant>,
    right: impl Iterator<Item = Instant>,
) -> impl Iterator<Item = Instant> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(a), Some(b)) if b < a => right.next(),
        (Some(_), _) => left.next(),
        (None, _) => right.next(),
    })
}
