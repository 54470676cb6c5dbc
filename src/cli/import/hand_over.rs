//! Handing over: the rows go to the gateway as deferred writes, a few at a time.
//!
//! Promises that the first row goes alone: only its reply shows whether the gateway defers writes
//! at all. If it does not, that one row was sent, and no other. Each row is handed over under its
//! own key, so another try, now or in another run, repeats nothing.

use super::judgement::{HandOver, judge};
use super::reply::{GatewayReply, NoReply};
use super::result::{RowOutcome, RowResult};
use super::run::ImportRun;
use super::stop::StopCause;
use super::tries::{RowTries, busy_with};
use crate::tasks;
use std::sync::Arc;
use std::time::Duration;

/// The most rows that are handed over at once.
const AT_ONCE: usize = 16;

/// Hands all rows over, in the order of the file. Returns when each is accepted, has ended or was
/// given up, or when the import stops.
pub(super) async fn hand_over_all(run: &Arc<ImportRun>) {
    let mut is_deferring = false;
    while !is_deferring && let Some(row) = run.take_next() {
        is_deferring = hand_over(run, row).await;
    }
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let run = run.clone();
            tasks::detached(async move {
                while let Some(row) = run.take_next() {
                    hand_over(&run, row).await;
                }
            })
        })
        .collect();
    for worker in workers {
        // One that panicked has left its row unsent.
        let _ = worker.await;
    }
    run.handed_over();
}

/// Hands one row over, as often as is useful. Returns whether the reply shows that the gateway
/// defers writes, or has done so in an earlier run.
async fn hand_over(run: &ImportRun, row: usize) -> bool {
    let Some(content) = run.rows.get(row) else {
        return false;
    };
    let key = content.key(&run.name);
    let mut tries = RowTries::default();
    loop {
        run.may_hand_over().await;
        if run.stopped().is_some() {
            run.note(row, tries.left());
            return false;
        }
        let wait = match run.client.hand_over(content, &key).await {
            Ok(reply) => {
                let verdict = judge(&reply);
                let HandOver::Again { is_patient, .. } = verdict else {
                    return conclude(run, row, &reply, verdict);
                };
                let accepted = if is_patient { run.end_burst() } else { 0 };
                let wait = tries.after_reply(&reply, &verdict);
                wait.map(|wait| wait.max(busy_with(accepted)))
            }
            Err(silence) => tries.after_silence(&silence),
        };
        match wait {
            Some(wait) => hold(run, wait, &tries.why),
            None => {
                run.stop(StopCause::Unavailable(tries.why.clone()));
                run.note(row, tries.given_up());
                return false;
            }
        }
    }
}

/// Notes what the reply to a row means. Returns whether it shows that the gateway defers writes.
fn conclude(run: &ImportRun, row: usize, reply: &GatewayReply, verdict: HandOver) -> bool {
    run.goes_on();
    match verdict {
        HandOver::Accepted(id) => {
            run.accepted(row, id);
            true
        }
        HandOver::Ended(result) => {
            run.note(row, result);
            reply.is_replayed
        }
        HandOver::TokenRefused => {
            run.note(row, RowResult::of_reply(RowOutcome::Refused, reply));
            run.stop(StopCause::TokenRefused(reply.in_words()));
            false
        }
        HandOver::NotDeferred(result) => {
            run.note(row, result);
            run.stop(StopCause::NotDeferred {
                line: run.rows.get(row).map_or(0, |row| row.line),
                is_shadowed: reply.is_shadowed,
            });
            false
        }
        // Handled by the caller.
        HandOver::Again { .. } => false,
    }
}

/// Lets all rows wait: what the gateway lacks, it lacks for each of them.
fn hold(run: &ImportRun, wait: Duration, why: &str) {
    let seconds = wait.as_secs_f64();
    run.hold(wait, format!("{why}; next try in {seconds} s"));
}

/// Asks whether a gateway is at the address, before anything is sent: an API in its place would
/// carry the first row out.
///
/// # Errors
/// A sentence for the user.
pub(super) fn recognised(url: &str, reply: &Result<GatewayReply, NoReply>) -> Result<(), String> {
    match reply {
        Err(silence) => Err(format!(
            "cannot reach the gateway at {url}: {}; nothing was sent. Is it running, is this --gateway?",
            silence.why
        )),
        Ok(reply) if reply.is_list() => Ok(()),
        Ok(reply) => Err(format!(
            "there is no segment-gateway for callers at {url}, or it does not accept the request: it \
             answers {}; nothing was sent. Is this its address for callers, and not that of the API or \
             the admin listener?",
            reply.in_words()
        )),
    }
}
