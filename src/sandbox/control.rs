//! Pure. `/_sandbox/*`: the sandbox's own paths, for tests and demonstrations. They need no token
//! and are not counted.
//!
//! - `GET /_sandbox/requests?since=N`: at most 10,000 arrivals from number N on, newest last, and
//!   the number to use for the `next` request. `DELETE` forgets all arrivals.
//! - `GET /_sandbox/faults`, `PUT /_sandbox/faults`: probabilities by name, and `late_by_ms`. A
//!   member that is absent keeps its value.
//! - `PUT /_sandbox/tokens` with `{"tokens": ["..."]}`: only these tokens are accepted from now on,
//!   and all others get 401. `{"tokens": null}` accepts any.
//! - `PUT /_sandbox/revoked` with `{"tokens": ["..."]}`: exactly these tokens get 401 even so.
//!
//! A list has at most 1,000 tokens. No response repeats them.

use std::collections::HashSet;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::core::{Core, Request};
use super::reply::{self, ApiResponse};
use super::request::{ApiError, Query, json as object};
use super::spec::{Faults, MOST_TOKENS_NAMED};

/// The prefix of the sandbox's own paths.
pub(super) const PREFIX: &str = "/_sandbox/";

const MEDIA: &str = "application/json";
/// The most arrivals in one response.
const MOST_SHOWN: usize = 10_000;

/// Responds to a request below [`PREFIX`].
pub(super) fn answer(core: &mut Core, request: &Request) -> ApiResponse {
    let head = &request.head;
    let result = match (head.method.as_str(), &head.uri.path()[PREFIX.len()..]) {
        ("GET", "requests") => requests(core, head.uri.query().unwrap_or_default()),
        ("DELETE", "requests") => {
            core.log.clear();
            Ok(json!({ "next": core.log.next() }))
        }
        ("GET", "faults") => Ok(shown(&core.faults)),
        ("PUT", "faults") => changed(&core.faults, &request.body).map(|faults| {
            core.faults = faults;
            shown(&faults)
        }),
        ("PUT", "tokens") => tokens(&request.body).map(|tokens| {
            core.accepted = tokens;
            json!({ "accepted": core.accepted.as_ref().map(HashSet::len) })
        }),
        ("PUT", "revoked") => revoked(&request.body).map(|tokens| {
            core.revoked = tokens;
            json!({ "revoked": core.revoked.len() })
        }),
        _ => Err(ApiError::missing("path", head.uri.path())),
    };
    match result {
        Ok(value) => reply::answer(StatusCode::OK, value.to_string(), MEDIA),
        Err(problem) => reply::failure(&problem, MEDIA),
    }
}

fn requests(core: &Core, query: &str) -> Result<Value, ApiError> {
    let since = match Query::parse(query).get("since") {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| ApiError::invalid("since", "since must be a number"))?,
    };
    let start = core.start();
    let shown: Vec<Value> = core
        .log
        .since(since)
        .take(MOST_SHOWN)
        .map(|arrival| arrival.to_json(start))
        .collect();
    let last = shown.last().and_then(|arrival| arrival["index"].as_u64());
    let next = last.map_or(core.log.next(), |index| index + 1);
    Ok(json!({ "requests": shown, "next": next }))
}

/// Returns the tokens of a body: a list of them, or `null`. A body without the member is an error,
/// since it would otherwise accept any token by mistake.
fn tokens(body: &[u8]) -> Result<Option<HashSet<String>>, ApiError> {
    let wrong = || {
        let message = format!("null, or a list of at most {MOST_TOKENS_NAMED} tokens, is expected");
        ApiError::invalid("tokens", message)
    };
    let body = object(body)?;
    let list = match body.get("tokens").ok_or_else(wrong)? {
        Value::Null => return Ok(None),
        list => list.as_array().ok_or_else(wrong)?,
    };
    let tokens: Option<HashSet<String>> = list
        .iter()
        .map(|token| token.as_str().map(str::to_owned))
        .collect();
    tokens
        .filter(|tokens| tokens.len() <= MOST_TOKENS_NAMED)
        .map(Some)
        .ok_or_else(wrong)
}

fn revoked(body: &[u8]) -> Result<HashSet<String>, ApiError> {
    let tokens = tokens(body)?;
    tokens.ok_or_else(|| ApiError::invalid("tokens", "a list of tokens is expected"))
}

fn shown(faults: &Faults) -> Value {
    json!({
        "throttle": faults.throttle,
        "server_error": faults.server_error,
        "lost_reply": faults.lost_reply,
        "late": faults.late,
        "late_by_ms": u64::try_from(faults.late_by.as_millis()).unwrap_or(u64::MAX),
    })
}

fn changed(before: &Faults, body: &[u8]) -> Result<Faults, ApiError> {
    let mut faults = *before;
    let body = object(body)?;
    for (name, value) in body.as_object().into_iter().flatten() {
        let chance = || {
            let chance = value.as_f64().filter(|chance| (0.0..=1.0).contains(chance));
            chance.ok_or_else(|| ApiError::invalid(name, "a probability from 0 to 1 is expected"))
        };
        match name.as_str() {
            "throttle" => faults.throttle = chance()?,
            "server_error" => faults.server_error = chance()?,
            "lost_reply" => faults.lost_reply = chance()?,
            "late" => faults.late = chance()?,
            "late_by_ms" => {
                let millis = value.as_u64().filter(|millis| *millis <= 86_400_000);
                let wrong = || ApiError::invalid(name, "milliseconds up to a day are expected");
                faults.late_by = Duration::from_millis(millis.ok_or_else(wrong)?);
            }
            _ => return Err(ApiError::invalid(name, "no such fault")),
        }
    }
    Ok(faults)
}
