//! What the log says while each request meets the same trouble.

use super::support::program::Program;
use super::support::wire::{ask, free};
use super::support::{request, with};
use http::Method;
use serde_json::Value;
use tokio::task::JoinSet;

const ATTEMPTS: &str = "segment_gateway_upstream_requests_total";
const SAID: &str = "attempt failed: request not sent";
const REQUESTS: usize = 20;

/// A gateway whose API is away, after some requests, and the number of attempts that failed.
async fn without_api(format: &str) -> (Program, u64) {
    let away = format!("http://{}", free());
    let format = ("SEGMENT_GATEWAY__LOG__FORMAT", format);
    let program = Program::start("", &["--upstream", &away], &[format]).await;
    let mut reads = JoinSet::new();
    for n in 1..=REQUESTS {
        let read = request(Method::GET, &format!("/users/user-{n:05}"), "t", "");
        reads.spawn(ask(program.proxy, with(read, "prefer", "wait=1")));
    }
    while let Some(answer) = reads.join_next().await {
        assert!(answer.unwrap().status.is_server_error());
    }
    let failed = program.value(ATTEMPTS, Some("not-sent")).await;
    (program, failed as u64)
}

/// The number of lines that a text says were left out.
fn more(line: &str) -> u64 {
    let Some((before, "")) = line.split_once(" more in the last 10 s)") else {
        return 0;
    };
    let (_, number) = before.rsplit_once('(').expect("an opening bracket");
    number.parse().expect("a number")
}

#[tokio::test]
async fn a_trouble_of_all_requests_is_a_few_lines_and_each_request_has_its_own() {
    let (program, failed) = without_api("text").await;
    assert!(failed >= REQUESTS as u64, "{failed}");
    // No other line follows that could bring the number of the others along, so a timer does.
    let log = program.logs(&[&format!("{SAID} (")]).await;
    let told: Vec<&str> = log.lines().filter(|line| line.contains(SAID)).collect();
    // Requests took a second or so, on a busy machine more.
    assert!(told.len() < REQUESTS / 2, "{log}");
    assert!(
        told[0].contains("reason=\"refused\"") && more(told[0]) == 0,
        "{log}"
    );
    // A line that has only a count is no attempt of its own.
    let whole = told.iter().filter(|line| line.contains("reason=")).count() as u64;
    let counted: u64 = told.iter().map(|line| more(line)).sum();
    assert_eq!(whole + counted, failed, "{log}");
    let requests = log.lines().filter(|line| line.contains(" INFO request "));
    assert_eq!(requests.count(), REQUESTS, "{log}");
}

#[tokio::test]
async fn in_json_the_number_is_a_member() {
    let (mut program, failed) = without_api("json").await;
    // The end of the process brings along what is left.
    program.signal("-TERM");
    assert!(program.ended().await);
    let log = program.log();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str(line).expect(line));
    let told: Vec<Value> = lines
        .filter(|line: &Value| line["message"] == SAID)
        .collect();
    assert!(told.iter().all(|line| line["level"] == "WARN"), "{log}");
    let whole = told
        .iter()
        .filter(|line| line["reason"] == "refused")
        .count() as u64;
    let counted: u64 = told
        .iter()
        .filter_map(|line| line["suppressed"].as_u64())
        .sum();
    assert!(counted > 0, "{log}");
    assert_eq!(whole + counted, failed, "{log}");
}
