//! When a write that has not ended probably ends, for those who ask about it.
//!
//! Promises no time that cannot hold: the estimate is an upper bound as long as responses take no
//! longer than they did and nothing more urgent comes. Where the end of what a write waits for is
//! unknown, there is no estimate.
//!
//! Nothing is decided by it. Whether a held write is admitted is up to `attempt/estimate.rs`.

use crate::write::Writes;
use crate::write::durable::defer::line_of;
use crate::write::durable::pending::PendingWrite;
use crate::write::durable::stage::Stage;
use std::time::Duration;

/// The longest `Retry-After` of a write that has not ended.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl Writes {
    /// Returns how many of its operation and credential were accepted before it and were not sent,
    /// if that is known: those that wait for the scheduler, and those before the budget.
    pub(super) fn ahead(&self, pending: &PendingWrite) -> Option<(usize, usize)> {
        let turn = pending.turn()?;
        let scheduler = self.durable.shared.scheduler.lock();
        Some(scheduler.before(turn, pending.credential, &pending.operation.name))
    }

    /// Returns when the caller of a write is to look again: when it has probably ended, or after
    /// [`LOOK_AGAIN`] if that is unknown.
    pub(super) fn look_again(&self, pending: &PendingWrite) -> Duration {
        self.until_end(pending).unwrap_or(LOOK_AGAIN)
    }

    /// Returns the time until it has probably ended. `None` if what it waits for has no known end:
    /// a pause, an API that does not respond, or the next process.
    ///
    /// For a write in flight, the time that a response takes at most, as far as is known; else the
    /// wait for its budget and its lanes as well. Those before it are taken to be sent one by one:
    /// what is batched ends sooner.
    pub(super) fn until_end(&self, pending: &PendingWrite) -> Option<Duration> {
        let stage = pending.stage();
        if self.attempts.breaker().lock().is_open() || matches!(stage, Stage::Parked) {
            return None;
        }
        let budget = &pending.operation.budget;
        let answer = self.budgets.answer_time(pending.credential, budget);
        if matches!(stage, Stage::Sent) {
            return Some(answer);
        }
        if self.is_paused(pending) {
            return None;
        }
        let now = self.clock.now();
        // Those before the budget are counted there.
        let ahead = self.ahead(pending).map_or(0, |(waiting, _)| waiting);
        let leaves = self
            .budgets
            .leaves_behind(pending.credential, budget, ahead);
        let leaves = leaves.saturating_duration_since(now);
        let turn = pending.turn();
        let (closed_until, in_lane) =
            turn.map_or((None, 0), |turn| self.lanes.ahead(pending.credential, turn));
        let opens =
            closed_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let each = |writes: usize| answer.saturating_mul(u32::try_from(writes).unwrap_or(u32::MAX));
        // Within its own window, the write comes after those of its lane that use the same window.
        let limit = budget.rate.limit.max(1) as usize;
        let sent = (leaves.max(opens) + each(in_lane % limit)).max(opens + each(in_lane));
        Some(sent + answer)
    }

    /// Returns whether it is paused, by an operator or because the API rejects its credential.
    pub(super) fn is_paused(&self, pending: &PendingWrite) -> bool {
        let scheduler = self.durable.shared.scheduler.lock();
        scheduler.is_paused(&line_of(pending))
    }
}
