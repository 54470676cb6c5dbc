//! Pure. What the records of a ledger still mean at a later moment.

use super::entry::{
    AccountId, KnownEffect, LEARNED_FOR, Left, MOST_LEARNED, PastBudget, PastUsage,
};
use super::record::AttemptRecord;
use crate::clock::BootTime;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// The margin for rounding, ample: instants are recorded in whole milliseconds, rounded down.
pub(super) const ROUNDING: Duration = Duration::from_millis(20);

/// The attempts that still count, and the last one of each budget that has learned its rate lately.
pub(super) fn kept(
    attempts: Vec<AttemptRecord>,
    now: Duration,
    keep: Duration,
) -> Vec<AttemptRecord> {
    let last: HashMap<AccountId, u64> = attempts
        .iter()
        .map(|attempt| (attempt.charge.account, attempt.number))
        .collect();
    let teaches = |attempt: &&AttemptRecord| {
        attempt.charge.rate.is_learned
            && last.get(&attempt.charge.account) == Some(&attempt.number)
            && now.saturating_sub(attempt.at) < LEARNED_FOR
    };
    let teaching = attempts.iter().rev().filter(teaches).take(MOST_LEARNED);
    let teaching: HashSet<u64> = teaching.map(|attempt| attempt.number).collect();
    let counts =
        |attempt: &AttemptRecord| counts(attempt, now, keep) || teaching.contains(&attempt.number);
    attempts.into_iter().filter(counts).collect()
}

/// Whether anything still depends on an attempt: its slot, or what is done with its writes.
fn counts(attempt: &AttemptRecord, now: Duration, keep: Duration) -> bool {
    let is_recent = !attempt.ended || now.saturating_sub(attempt.at) < keep + ROUNDING;
    let has_intents = attempt
        .intents
        .iter()
        .any(|intent| attempt.effect == KnownEffect::Late || intent.write.is_some());
    remaining_hold(attempt, now).is_some() || (is_recent && has_intents)
}

/// How long the slot of an attempt stays occupied from `now` on. `None` if it is free.
fn remaining_hold(attempt: &AttemptRecord, now: Duration) -> Option<Duration> {
    let age = match attempt.ended {
        true => now.saturating_sub(attempt.at),
        // It ends at some time from now on.
        false => Duration::ZERO,
    };
    let left = (attempt.charge.hold + ROUNDING).checked_sub(age)?;
    (!left.is_zero()).then_some(left)
}

/// The usage of each budget: its occupied slots, and the rate in force at the last attempt.
pub(super) fn history(attempts: &[AttemptRecord], boot: BootTime, now: Instant) -> PastUsage {
    let mut history = PastUsage::new();
    for attempt in attempts {
        let rate = attempt.charge.rate;
        let left = remaining_hold(attempt, boot.since);
        if left.is_none() && !rate.is_learned {
            continue;
        }
        let past = history.entry(attempt.charge.account);
        let past = past.or_insert_with(|| PastBudget {
            held: Vec::new(),
            rate,
        });
        past.held.extend(left.map(|left| now + left));
        // The attempts are in the order in which they were sent.
        past.rate = rate;
    }
    history
}

/// The attempts of the writes that may still take effect.
pub(super) fn left(attempts: Vec<AttemptRecord>, boot: BootTime, now: Instant) -> Vec<Left> {
    let instant = |at: Duration| {
        let instant = now.checked_sub(boot.since.saturating_sub(at));
        instant.unwrap_or(now)
    };
    let mut left = Vec::new();
    for attempt in attempts {
        left.extend(attempt.intents.into_iter().map(|intent| Left {
            ended: instant(attempt.at),
            late: attempt.effect == KnownEffect::Late,
            intent: {
                let first = instant(intent.first);
                intent.with_first(first)
            },
        }));
    }
    left
}
