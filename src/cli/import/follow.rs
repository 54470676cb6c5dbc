//! Following: what becomes of the writes that the gateway has accepted.
//!
//! Asks for the oldest write alone, and then for those behind it page by page. The gateway lists
//! the writes of a token in the order in which it accepted them, so a hundred thousand writes cost
//! some hundreds of requests and not as many as there are writes. A list has no answers of the API,
//! so a write without success is asked for alone as well.
//!
//! Promises that a write that the gateway does not know any more is unknown and not failed.

use super::reply::{GatewayReply, NoReply, WRITES};
use super::result::{RowOutcome, RowResult};
use super::run::ImportRun;
use super::stop::StopCause;
use crate::journal::WriteId;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// The number of writes on a page.
const PAGE: usize = 250;
/// The time between two pages, and between two writes that are asked for alone.
const BETWEEN_PAGES: Duration = Duration::from_millis(250);
const BETWEEN_WRITES: Duration = Duration::from_millis(50);
/// The time between two rounds, at first and at most. It doubles as long as nothing ends.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(500);
const LONGEST_BETWEEN_ROUNDS: Duration = Duration::from_secs(8);
/// The time after which a gateway without an answer is asked again, and how often that is done.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);
const MOST_TROUBLE: usize = 12;

/// Waits for the outcomes of all writes. Returns when all have ended, when the import is
/// interrupted, or when the gateway does not answer any more.
pub(super) async fn follow(run: &ImportRun) {
    let mut wait = BETWEEN_ROUNDS;
    let mut troubles = 0;
    loop {
        // In this order: a row that is accepted in between is waiting when this is looked at.
        let is_handed_over = run.is_handed_over();
        let waiting = run.look(|state| state.oldest_waiting());
        if run.is_interrupted() || is_handed_over && waiting.is_none() {
            return;
        }
        let before = run.counts().ended();
        match round(run).await {
            Ok(()) => troubles = 0,
            Err(why) if troubles < MOST_TROUBLE => {
                troubles += 1;
                run.hindered(&format!(
                    "the gateway does not say what became of the writes: {why}"
                ));
                run.sleep(AFTER_TROUBLE).await;
                continue;
            }
            Err(why) => {
                run.stop(StopCause::Unavailable(why));
                return;
            }
        }
        wait = match run.counts().ended() > before {
            true => BETWEEN_ROUNDS,
            false => LONGEST_BETWEEN_ROUNDS.min(2 * wait),
        };
        // Rows are handed over meanwhile: the first outcomes should not be late.
        let wait = if is_handed_over { wait } else { BETWEEN_ROUNDS };
        run.sleep(wait).await;
    }
}

/// Looks once at all writes that are waiting now.
///
/// # Errors
/// Why the gateway did not say.
async fn round(run: &ImportRun) -> Result<(), String> {
    let Some(mut at) = run.look(|state| state.oldest_waiting()) else {
        return Ok(());
    };
    ask_for(run, at).await?;
    loop {
        let expected = run.look(|state| state.waiting_after(at));
        if expected.is_empty() || run.is_interrupted() {
            return Ok(());
        }
        run.sleep(BETWEEN_PAGES).await;
        let target = format!("{WRITES}?after={at}&limit={PAGE}");
        let page = read(run.client.get(&target).await)?;
        let page = page.body["data"]["writes"].as_array().cloned();
        let page = page.ok_or("its list of writes cannot be read")?;
        let Some(last) = page.last().and_then(id_of) else {
            return each(run, &expected).await;
        };
        let mut listed: HashMap<WriteId, &Value> = HashMap::new();
        listed.extend(page.iter().filter_map(|write| Some((id_of(write)?, write))));
        let mut unclear = Vec::new();
        // The page covers all writes up to its last one. One that it does not have is forgotten.
        for id in expected.into_iter().take_while(|id| *id <= last) {
            match listed.get(&id).map(|write| RowResult::of_write(id, write)) {
                Some(Some(result)) if result.outcome == RowOutcome::Succeeded => {
                    run.ended(id, result);
                }
                Some(None) => {}
                Some(Some(_)) | None => unclear.push(id),
            }
        }
        each(run, &unclear).await?;
        at = last;
    }
}

/// Asks for each of these writes alone.
async fn each(run: &ImportRun, ids: &[WriteId]) -> Result<(), String> {
    for id in ids {
        if run.is_interrupted() {
            return Ok(());
        }
        ask_for(run, *id).await?;
        run.sleep(BETWEEN_WRITES).await;
    }
    Ok(())
}

/// Asks for one write.
async fn ask_for(run: &ImportRun, id: WriteId) -> Result<(), String> {
    let reply = run.client.get(&format!("{WRITES}/{id}")).await;
    if let Ok(reply) = &reply
        && reply.status == 404
        && reply.error().kind == "gateway-not-found"
    {
        let message = "the gateway does not know the write any more: it is forgotten, or was given to \
                       another token";
        let result = RowResult {
            id: Some(id),
            ..RowResult::new(RowOutcome::Unknown, message)
        };
        run.ended(id, result);
        return Ok(());
    }
    let reply = read(reply)?;
    let write = &reply.body["data"]["write"];
    match RowResult::of_write(id, write) {
        Some(result) => run.ended(id, result),
        None if write["paused"] == true => run.hindered(
            "the gateway has paused the writes; its operators see why with `segment-gateway writes list`",
        ),
        None => run.goes_on(),
    }
    Ok(())
}

/// Returns the reply to a question, if it is an answer.
fn read(reply: Result<GatewayReply, NoReply>) -> Result<GatewayReply, String> {
    match reply {
        Ok(reply) if reply.status == 200 => Ok(reply),
        Ok(reply) => Err(format!("it answers {}", reply.in_words())),
        Err(silence) => Err(silence.why),
    }
}

fn id_of(write: &Value) -> Option<WriteId> {
    write["id"].as_str()?.parse().ok()
}
