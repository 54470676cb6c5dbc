//! A real Prometheus scrapes a running gateway under load, and every query of the dashboard and of the
//! alerts is asked: a panel without data would be one that nobody notices until it is needed.
//!
//! It needs Debian's package `prometheus`. Where it is missing the test says so and passes, unless
//! `SEGMENT_GATEWAY_NEEDS_PROMETHEUS` is set.

use super::deploy::expressions;
use super::support::place::{Place, Process};
use super::support::wire::{eventually, free, try_ask};
use super::support::{request, with};
use http::{Method, Request};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Asks for all that a dashboard shows, for ever: hits, misses, refusals, writes that wait.
async fn load(proxy: SocketAddr) {
    for n in 0_u64.. {
        let user = format!("/users/user-{:05}", n % 40 + 1);
        try_ask(proxy, request(Method::GET, &user, "demo", "")).await;
        let stored = request(Method::GET, "/labels", "demo", "");
        try_ask(proxy, with(stored, "cache-control", "only-if-cached")).await;
        if n % 8 == 0 {
            let target = format!("{user}/permissions");
            let write = request(Method::PUT, &target, "demo", r#"{"permissions":[]}"#);
            drop(tokio::spawn(try_ask(proxy, write)));
        }
    }
}

fn start(admin: SocketAddr, directory: &Path) -> Option<(Process, SocketAddr)> {
    let address = free();
    let scrape = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [{}]\n\
         scrape_configs:\n  - job_name: segment-gateway\n    static_configs:\n      \
         - targets: ['{admin}']\n",
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("deploy/prometheus/alerts.yml")
            .display()
    );
    let file = directory.join("prometheus.yml");
    std::fs::write(&file, scrape).unwrap();
    let process = Process::start(
        Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}")),
    )?;
    Some((process, address))
}

/// What Prometheus says to a query: its result, or why it cannot answer.
async fn ask(prometheus: SocketAddr, query: &str) -> Result<Vec<Value>, String> {
    let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
    let ask = Request::get(format!("/api/v1/query?query={query}"));
    let ask = ask.header("host", prometheus.to_string());
    let answer = try_ask(prometheus, ask.body(Full::default()).unwrap()).await;
    let answer = answer.ok_or("no answer")?;
    let document: Value =
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    match document["data"]["result"].as_array() {
        Some(result) => Ok(result.clone()),
        None => Err(document["error"].to_string()),
    }
}

/// The alerts, as Prometheus has loaded and evaluated them.
async fn rules(prometheus: SocketAddr) -> Vec<Value> {
    let ask = Request::get("/api/v1/rules").header("host", prometheus.to_string());
    let answer = try_ask(prometheus, ask.body(Full::default()).unwrap()).await;
    let document: Value = serde_json::from_slice(&answer.unwrap().body).unwrap();
    let rules = document["data"]["groups"][0]["rules"].as_array();
    rules.cloned().unwrap_or_default()
}

#[tokio::test]
async fn every_query_of_the_dashboard_returns_data() {
    let (place, directory) = (Arc::new(Place::new()), tempfile::tempdir().unwrap());
    let Some((process, prometheus)) = start(place.admin, directory.path()) else {
        let needed = std::env::var_os("SEGMENT_GATEWAY_NEEDS_PROMETHEUS").is_some();
        assert!(!needed, "install Debian's package prometheus");
        eprintln!("skipped: there is no prometheus");
        return;
    };
    let gateway = place
        .start(&["--throttle", "0.05", "--other-users", "30"])
        .await;
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        callers.spawn(load(place.proxy));
    }
    eventually("it is scraped", async || {
        let up = ask(prometheus, "up == 1").await;
        up.is_ok_and(|result| !result.is_empty())
    })
    .await;
    for expression in expressions() {
        let query = expression
            .replace("$__rate_interval", "15s")
            .replace("$operation", ".*");
        eventually(&query, async || {
            let result = match ask(prometheus, &query).await {
                Ok(result) => result,
                Err(why) if why == "no answer" => Vec::new(),
                Err(why) => panic!("{query}: {why}"),
            };
            let is_number = |sample: &Value| sample["value"][1] != "NaN";
            result.iter().any(is_number)
        })
        .await;
    }
    eventually("all rules are evaluated", async || {
        let rules = rules(prometheus).await;
        rules.len() >= 18 && rules.iter().all(|rule| rule["health"] == "ok")
    })
    .await;
    callers.abort_all();
    drop((gateway, process));
}
