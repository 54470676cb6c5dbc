//! The checks of `segment-gateway doctor`: this machine as `check` sees it, then one `GET /` to the
//! API, over the connections that the gateway itself would use.
//!
//! The request bypasses budgets and ledger, which belong to a gateway that may be running. It
//! counts against the limit of the token like anybody's. Nothing is changed here or at the API.

use super::assembly::client;
use super::diagnosis::{self, Blame, CheckResult, Diagnosis};
use super::preflight::preflight;
use super::start_error::AppError;
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::exchange::body::{self, Read};
use crate::upstream::Attempt;
use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Returns what is found, in the order of the checks.
///
/// # Errors
/// If there can be no client with this configuration.
pub async fn examine(
    loaded: &Loaded,
    token: Option<HeaderValue>,
    clock: &Clock,
) -> Result<Vec<Diagnosis>, AppError> {
    let mut found = of_this_machine(loaded);
    found.extend(of_the_api(&loaded.config, token, clock).await?);
    Ok(found)
}

/// Returns what would stop a start on this machine, or one finding that nothing would.
fn of_this_machine(loaded: &Loaded) -> Vec<Diagnosis> {
    const PART: &str = "this machine";
    let config = &loaded.config;
    let found = preflight(config);
    if found.is_empty() {
        let directory = config.state.directory.as_ref();
        let state = directory.map_or("no state".to_owned(), |at| {
            format!("state in {}", at.display())
        });
        let text = format!("{} and {}, {state}", config.listen, config.admin.listen);
        return vec![Diagnosis::new(PART, CheckResult::Fine, text)];
    }
    let wrong = found.into_iter().map(|one| {
        let text = loaded.problem(one).to_string();
        Diagnosis::new(PART, CheckResult::Wrong(Blame::Machine), text)
    });
    wrong.collect()
}

/// Asks the API, and judges each part of its answer.
async fn of_the_api(
    config: &Config,
    token: Option<HeaderValue>,
    clock: &Clock,
) -> Result<Vec<Diagnosis>, AppError> {
    let client = client(config, clock)?;
    let mut request = Request::get("/")
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .body(Bytes::new())
        .map_err(|error| AppError(error.to_string()))?;
    let is_known = token.is_some();
    let headers = request.headers_mut();
    headers.extend(token.map(|token| (AUTHORIZATION, token)));
    let asked = clock.wall();
    let answer = match client.send(request).await {
        Attempt::Answered(answer) => answer,
        Attempt::NotSent(why) => return Ok(vec![diagnosis::of_not_sent(why)]),
        Attempt::Unknown(why) => return Ok(vec![diagnosis::of_unknown(why)]),
    };
    let answered = clock.wall();
    let (head, body) = answer.into_parts();
    let body = match body::read(body, LONGEST_ANSWER).await {
        Read::Whole(bytes) | Read::Longer(bytes, _) => bytes,
        Read::Broken(_) => Bytes::new(),
    };
    let seen = format!("{} answers {}", config.upstream.url, head.status.as_u16());
    let token = match is_known {
        true => diagnosis::of_token(head.status, &body),
        false => diagnosis::of_no_token(head.status),
    };
    Ok(vec![
        Diagnosis::new("connection", CheckResult::Fine, seen),
        diagnosis::of_clock(&head.headers, asked, answered),
        token,
        diagnosis::of_rate_headers(head.status, &head.headers),
    ])
}
