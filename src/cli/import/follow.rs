//! Following: what becomes of the writes that the gateway has accepted.
//!
//! Writes end about in the order in which they were accepted. A round therefore asks for one after
//! the other, and ends at those that are still queued.
//!
//! Promises that a write that the gateway does not know any more is unknown and not failed.

use super::client::WRITES;
use super::outcome::{RowOutcome, RowResult};
use super::reply::GatewayReply;
use super::run::ImportRun;
use crate::journal::WriteId;
use std::time::Duration;
use tokio::time::sleep;

/// The writes without an outcome after which a round ends: as many as fit into one batch.
const MOST_QUEUED: usize = 50;
/// The time between two rounds, at first and at most. It doubles as long as nothing ends.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(500);
const LONGEST_BETWEEN_ROUNDS: Duration = Duration::from_secs(8);
/// The time after which a gateway without an answer is asked again, and how often that is done.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);
const MOST_TROUBLE: usize = 12;

/// Waits for the outcomes of all rows. Returns when all have ended, or when the gateway does not
/// answer any more.
pub(super) async fn follow(run: &ImportRun) {
    let (mut wait, mut troubles) = (BETWEEN_ROUNDS, 0);
    loop {
        let is_handed_over = run.counts().of(RowOutcome::Unsent) == 0;
        let waiting = run.waiting();
        if is_handed_over && waiting.is_empty() {
            return;
        }
        match round(run, waiting).await {
            // Rows are handed over meanwhile: the first outcomes should not be late.
            Ok(ended) if ended > 0 || !is_handed_over => wait = BETWEEN_ROUNDS,
            Ok(_) => wait = LONGEST_BETWEEN_ROUNDS.min(2 * wait),
            Err(why) if troubles == MOST_TROUBLE => {
                return run.stop(format!("the gateway is not available: {why}"), true);
            }
            Err(why) => {
                troubles += 1;
                let what = "the gateway does not say what became of the writes";
                run.hindered(&format!("{what}: {why}"));
                sleep(AFTER_TROUBLE).await;
                continue;
            }
        }
        if troubles > 0 {
            troubles = 0;
            run.hindered("");
        }
        sleep(wait).await;
    }
}

/// Asks for the writes, the oldest first, and returns how many have ended.
///
/// # Errors
/// Why the gateway did not say.
async fn round(run: &ImportRun, waiting: Vec<(usize, WriteId)>) -> Result<usize, String> {
    let (mut ended, mut queued) = (0, 0);
    for (row, id) in waiting {
        if queued == MOST_QUEUED {
            break;
        }
        match ask_for(run, id).await? {
            None => queued += 1,
            Some(result) => {
                run.note(row, result);
                ended += 1;
            }
        }
    }
    Ok(ended)
}

/// Asks for one write. Returns its outcome, if it has one.
async fn ask_for(run: &ImportRun, id: WriteId) -> Result<Option<RowResult>, String> {
    let reply = run.client.get(&format!("{WRITES}/{id}")).await;
    let reply = reply.map_err(|silence| silence.why)?;
    if reply.body["data"]["write"]["paused"] == true {
        run.hindered(
            "the gateway has paused the writes; its operators see why with `segment-gateway writes list`",
        );
    }
    outcome_of(id, &reply)
}

/// Returns the outcome of a write, if the reply has one.
fn outcome_of(id: WriteId, reply: &GatewayReply) -> Result<Option<RowResult>, String> {
    match (reply.status, reply.error.kind.as_str()) {
        (200, _) => Ok(RowResult::of_write(id, &reply.body["data"]["write"])),
        (404, "gateway-not-found") => {
            let message = "the gateway does not know the write any more: it is forgotten, or was given \
                           to another token";
            Ok(Some(RowResult {
                id: Some(id),
                ..RowResult::new(RowOutcome::Unknown, message)
            }))
        }
        _ => Err(format!("it answers {}", reply.in_words())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::{ID, reply};
    use super::*;
    use http::HeaderMap;

    #[test]
    fn a_forgotten_write_is_unknown_and_trouble_is_no_outcome() {
        let id: WriteId = ID.parse().unwrap();
        let outcome = |reply: &GatewayReply| {
            let found = outcome_of(id, reply);
            found.map(|result| result.map(|result| (result.outcome, result.id)))
        };
        let forgotten = reply(404, &[], "gateway-not-found");
        assert_eq!(
            outcome(&forgotten),
            Ok(Some((RowOutcome::Unknown, Some(id))))
        );
        for (state, expected) in [
            ("queued", None),
            ("failed", Some((RowOutcome::Failed, Some(id)))),
        ] {
            let body = format!(r#"{{"data":{{"write":{{"state":"{state}"}}}}}}"#);
            let shown = GatewayReply::new(200, &HeaderMap::new(), body.as_bytes());
            assert_eq!(outcome(&shown), Ok(expected));
        }
        for (status, kind) in [(404, "NotFound"), (503, "gateway-journal-broken")] {
            let found = outcome(&reply(status, &[], kind));
            assert_eq!(found, Err(format!("it answers {status} {kind} why")));
        }
    }
}
