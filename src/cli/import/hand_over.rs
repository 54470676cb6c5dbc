//! Handing over: the rows go to the gateway as deferred writes, a few at a time.
//!
//! Promises that the first row goes alone: only its reply shows whether the gateway defers writes
//! at all. If it does not, that one row was sent, and no other. Each row is handed over under its
//! own key, so another try, now or in another run, repeats nothing.

use super::judgement::{HandOver, NextTry, judge};
use super::outcome::{RowOutcome, RowResult};
use super::run::ImportRun;
use crate::tasks;
use std::sync::Arc;
use tokio::time::sleep;

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
        if worker.await.is_err() {
            run.stop(
                "a row could not be handed over, by a mistake of this program".to_owned(),
                true,
            );
        }
    }
}

/// Hands one row over, as often as is useful. Returns whether the reply shows that the gateway
/// defers writes.
async fn hand_over(run: &ImportRun, row: usize) -> bool {
    let Some(content) = run.rows.get(row) else {
        return false;
    };
    let key = content.key(&run.name);
    let (mut troubles, mut may_be_accepted) = (0, false);
    loop {
        let reply = run.client.hand_over(content, &key).await;
        let next = match judge(content.line, reply) {
            HandOver::Known {
                result,
                is_deferred,
            } => {
                run.note(row, result);
                return is_deferred;
            }
            HandOver::Stop { result, why } => {
                run.note(row, result);
                run.stop(why, false);
                return false;
            }
            HandOver::Again(next) => next,
        };
        may_be_accepted |= next.may_be_accepted;
        match next.wait(troubles) {
            None => run.stop(format!("the gateway is not available: {}", next.why), true),
            Some(wait) => {
                let seconds = wait.as_secs();
                run.hindered(&format!("{}; next try in {seconds} s", next.why));
                tokio::select! {
                    () = sleep(wait) => {}
                    () = run.stopping() => {}
                }
            }
        }
        if run.stopped().is_some() {
            run.note(row, left(next, may_be_accepted));
            return false;
        }
        troubles += usize::from(!next.is_patient);
    }
}

/// Returns what is known of a row that is not handed over again.
fn left(next: NextTry, may_be_accepted: bool) -> RowResult {
    if !may_be_accepted {
        return next.otherwise;
    }
    let why = next.why;
    let message = format!("the gateway may have accepted it, and another run finds out: {why}");
    RowResult::new(RowOutcome::Unknown, &message)
}
