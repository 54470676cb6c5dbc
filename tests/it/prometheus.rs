//! A real Prometheus scrapes two running gateways under load, one of them in shadow mode, and every
//! query of the dashboard and of the alerts is asked: a panel without data would be one that nobody
//! notices until it is needed.
//!
//! It needs Debian's package `prometheus`. Where it is missing the test says so and passes, unless
//! `SEGMENT_GATEWAY_NEEDS_PROMETHEUS` is set.

use super::deploy::expressions;
use super::support::place::{Place, Process};
use super::support::wire::{eventually, free, try_ask};
use super::support::{request, routes_with, with};
use http::{Method, Request};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use tokio::task::JoinSet;

/// What makes things happen within seconds: short times, and answers that may be shown stale.
const CONFIGURATION: &str = r#"
routes.file = "{directory}/routes.toml"
state.directory = "{directory}/state"
upstream.head_timeout = "500ms"
budget.late_arrival = "1s"
cache.settling = "200ms"
"#;
/// Others use the token, and much goes wrong.
const TROUBLE: [&str; 12] = [
    "--time-scale",
    "10",
    "--throttle",
    "0.05",
    "--server-error",
    "0.05",
    "--lost-reply",
    "0.4",
    "--groups",
    "100",
    "--other-users",
    "30",
];
/// What never comes of an attempt at an API that can be reached, nor of a disk that works; panels show 0
/// then. Everything else that a panel shows as 0 if it is not there has to happen here.
const NOT_HERE: [&str; 6] = [
    // The gateway of the test speaks plain HTTP.
    "segment_gateway_tls_",
    // It has no clients with keys.
    "segment_gateway_client_",
    "segment_gateway_held_token_",
    // It keeps no audit log.
    "segment_gateway_audit_",
    r#"result="not-sent""#,
    r#"journal_commit_duration_seconds_count{result="failed""#,
];
/// Callers that write: more than the API allows, so that they wait. Most write what may be retried,
/// and so often that the retry budget denies some retries: few write what only adds to that budget.
const WRITERS: usize = 92;
const DURABLE_WRITERS: usize = 4;
/// In shadow mode nothing slows callers down but the API.
const UNHURRIED: [&str; 6] = [
    "--shadow",
    "--time-scale",
    "10",
    "--throttle",
    "0.05",
    "--latency=500ms",
];
const SHADOW_WRITERS: usize = 8;
/// The rules in `alerts.yml` and `recording.yml`.
const RULES: usize = 39;
const GRANT: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;

/// Reads that are hits, misses and refused, and such as are shown stale and renewed behind.
async fn read(proxy: SocketAddr) {
    for n in 0_u64.. {
        let user = format!("/users/user-{:05}", n % 40 + 1);
        for target in [&*user, "/roles"] {
            try_ask(proxy, request(Method::GET, target, "demo", "")).await;
        }
        let stored = request(Method::GET, "/labels", "demo", "");
        try_ask(proxy, with(stored, "cache-control", "only-if-cached")).await;
    }
}

/// Writes that wait: such as may be repeated, such as may not, such as travel together.
async fn write(proxy: SocketAddr, writer: usize) {
    for n in 0_u64.. {
        let grants = format!("/users/user-{:05}/permissions", writer + 1);
        let audience = format!("/spaces/s/audiences/{writer}");
        let schedule = format!("{audience}/schedules/s");
        let of_group = format!("/groups/group-{:05}/permissions", writer + 1);
        let invite = format!(r#"{{"invites":[{{"email":"{writer}-{n}@example.com"}}]}}"#);
        let (method, target, body) = match writer {
            0..3 => (Method::POST, "/invites", &*invite),
            3..7 => (Method::POST, &*grants, GRANT),
            _ => match writer % 4 {
                0 => (Method::PUT, &*grants, r#"{"permissions":[]}"#),
                1 => (Method::PUT, &*of_group, r#"{"permissions":[]}"#),
                2 => (Method::DELETE, &*audience, ""),
                _ => (Method::DELETE, &*schedule, ""),
            },
        };
        try_ask(proxy, request(method, target, "demo", body)).await;
    }
}

/// Writes that outlast a crash, each asked for twice under its key.
async fn write_durably(proxy: SocketAddr, writer: usize) {
    for n in 0_u64.. {
        for _ in 0..2 {
            let target = format!("/users/user-{:05}/permissions", 100 + writer);
            let ask = request(Method::POST, &target, "demo", GRANT);
            let ask = with(ask, "idempotency-key", &format!("{writer}-{n}"));
            try_ask(proxy, with(ask, "prefer", "respond-async, wait=5")).await;
        }
    }
}

/// Asks for all that a dashboard shows, until it is dropped.
fn load(proxy: SocketAddr) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for _ in 0..2 {
        callers.spawn(read(proxy));
    }
    for writer in 0..WRITERS {
        callers.spawn(write(proxy, writer));
    }
    for writer in 0..DURABLE_WRITERS {
        callers.spawn(write_durably(proxy, writer));
    }
    callers
}

/// Hits in shadow mode: of what nobody writes, and of what somebody else does.
async fn read_in_shadow(proxy: SocketAddr) {
    loop {
        for target in ["/roles", "/users/user-00001"] {
            try_ask(proxy, request(Method::GET, target, "demo", "")).await;
        }
    }
}

/// More writes than would have left at once, or at all.
async fn write_in_shadow(proxy: SocketAddr, writer: usize) {
    let target = format!("/users/user-{:05}/permissions", 100 + writer);
    loop {
        let ask = request(Method::PUT, &target, "demo", r#"{"permissions":[]}"#);
        try_ask(proxy, ask).await;
    }
}

/// Changes what is read behind the gateway's back.
async fn interfere(sandbox: SocketAddr) {
    for n in 0_u64.. {
        let body = [r#"{"permissions":[]}"#, GRANT][usize::from(n % 2 == 0)];
        let target = "/users/user-00001/permissions";
        try_ask(sandbox, request(Method::PUT, target, "another", body)).await;
    }
}

/// Asks for all that the row of shadow mode shows, until it is dropped.
fn shadow_load(place: &Place) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    callers.spawn(read_in_shadow(place.proxy));
    callers.spawn(interfere(place.sandbox));
    for writer in 0..SHADOW_WRITERS {
        callers.spawn(write_in_shadow(place.proxy, writer));
    }
    callers
}

/// Writes the configuration; where it is.
fn configure(directory: &Path) -> String {
    let stale = "cache = \"1s\"\nstale_while_revalidate = \"60s\"";
    let routes = routes_with("listRoles", stale);
    std::fs::write(directory.join("routes.toml"), routes).unwrap();
    let text = CONFIGURATION.replace("{directory}", &directory.display().to_string());
    let file = directory.join("gateway.toml");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn start(admins: [SocketAddr; 2], directory: &Path) -> Option<(Process, SocketAddr)> {
    let address = free();
    let [first, second] = admins;
    let scrape = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: ['{0}/alerts.yml', '{0}/recording.yml']\n\
         scrape_configs:\n  - job_name: segment-gateway\n    static_configs:\n      \
         - targets: ['{first}', '{second}']\n",
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("deploy/prometheus")
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

/// The rules, as Prometheus has loaded and evaluated them.
async fn rules(prometheus: SocketAddr) -> Vec<Value> {
    let ask = Request::get("/api/v1/rules").header("host", prometheus.to_string());
    let answer = try_ask(prometheus, ask.body(Full::default()).unwrap()).await;
    let document: Value = serde_json::from_slice(&answer.unwrap().body).unwrap();
    let groups = document["data"]["groups"].as_array();
    let rules = groups.into_iter().flatten();
    let rules = rules.filter_map(|group| group["rules"].as_array());
    rules.flatten().cloned().collect()
}

#[tokio::test]
async fn every_query_of_the_dashboard_returns_data() {
    let (place, shadow, directory) = (Place::new(), Place::new(), tempfile::tempdir().unwrap());
    let admins = [place.admin, shadow.admin];
    let Some((process, prometheus)) = start(admins, directory.path()) else {
        let needed = std::env::var_os("SEGMENT_GATEWAY_NEEDS_PROMETHEUS").is_some();
        assert!(!needed, "install Debian's package prometheus");
        eprintln!("skipped: there is no prometheus");
        return;
    };
    let configuration = configure(directory.path());
    let mut arguments = vec!["--config", &configuration];
    arguments.extend(TROUBLE);
    let gateway = place.start(&arguments).await;
    let shadow_gateway = shadow.start(&UNHURRIED).await;
    let callers = (load(place.proxy), shadow_load(&shadow));
    eventually("both are scraped", async || {
        let up = ask(prometheus, "up == 1").await;
        up.is_ok_and(|result| result.len() == admins.len())
    })
    .await;
    for expression in expressions() {
        let query = expression
            .replace("$__rate_interval", "15s")
            .replace("$__range", "15s")
            .replace("$job", "segment-gateway")
            .replace("$instance", ".*")
            .replace("$operation", ".*");
        assert!(!query.contains('$'), "{query}");
        let query = if NOT_HERE.iter().any(|it| query.contains(it)) {
            query
        } else {
            query.replace(" or vector(0)", "")
        };
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
        rules.len() == RULES && rules.iter().all(|rule| rule["health"] == "ok")
    })
    .await;
    drop((callers, gateway, shadow_gateway, process));
}
