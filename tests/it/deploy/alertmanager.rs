//! `alertmanager.yml`: its routes lead where the severities say, its inhibitions name alerts that exist,
//! and a real Alertmanager delivers a page to `page`, a ticket to `ticket`, and only the cause of many.
//!
//! It needs Debian's package `prometheus-alertmanager`. Where it is missing the tests say so and pass,
//! unless `SEGMENT_GATEWAY_NEEDS_PROMETHEUS` is set.

use super::{root, text};
use crate::support::place::Process;
use crate::support::wire::{eventually, free, try_ask};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

const FILE: &str = "deploy/prometheus/alertmanager.yml";

fn missing(program: &str) {
    let needed = std::env::var_os("SEGMENT_GATEWAY_NEEDS_PROMETHEUS").is_some();
    assert!(!needed, "install Debian's package prometheus-alertmanager");
    eprintln!("skipped: there is no {program}");
}

/// The alternatives of a regular expression such as `A|B(C|D)`.
fn alternatives(pattern: &str) -> Vec<String> {
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in pattern.chars() {
        match c {
            '|' if depth == 0 => parts.push(String::new()),
            _ => {
                depth += i32::from(c == '(') - i32::from(c == ')');
                parts.last_mut().unwrap().push(c);
            }
        }
    }
    let expanded = parts.into_iter().flat_map(|part| {
        let Some((before, rest)) = part.split_once('(') else {
            return vec![part];
        };
        let (inside, after) = rest.split_once(')').expect("closed");
        let inside = inside.split('|');
        inside.map(|one| format!("{before}{one}{after}")).collect()
    });
    expanded.collect()
}

#[test]
fn inhibitions_name_alerts_that_exist() {
    let rules = text("deploy/prometheus/alerts.yml");
    let mut named = 0;
    for line in text(FILE).lines() {
        let Some(matcher) = line.trim().strip_prefix("- alertname ") else {
            continue;
        };
        let pattern = matcher.trim_start_matches(['=', '!', '~', ' ']);
        for name in alternatives(pattern.trim_matches('"')) {
            let name = name.trim_end_matches(".+");
            assert!(rules.contains(&format!("- alert: {name}")), "{name}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
    assert_eq!(alternatives("A|B(C|D)|E"), ["A", "BC", "BD", "E"]);
}

#[test]
fn each_severity_has_its_route() {
    let amtool = |arguments: &[&str]| {
        let mut command = Command::new("amtool");
        command.args(arguments).current_dir(root()).output()
    };
    let Ok(checked) = amtool(&["check-config", FILE]) else {
        return missing("amtool");
    };
    assert!(checked.status.success(), "{checked:?}");
    let file = format!("--config.file={FILE}");
    for (labels, receiver) in [
        ("severity=page", "page"),
        ("severity=ticket", "ticket"),
        ("alertname=Another", "ticket"),
    ] {
        let routed = amtool(&["config", "routes", "test", &file, labels]).unwrap();
        let said = String::from_utf8_lossy(&routed.stdout);
        assert_eq!(said.trim(), receiver, "{labels}");
    }
}

/// What arrived, with the path that it arrived at.
type Arrived = Arc<Mutex<Vec<(String, Value)>>>;

/// Receives notifications until it is dropped with the runtime of the test.
async fn receiver() -> (SocketAddr, Arrived) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let arrived = Arrived::default();
    let notes = Arc::clone(&arrived);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let notes = Arc::clone(&notes);
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let notes = Arc::clone(&notes);
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let note = serde_json::from_slice(&body).unwrap();
                    notes.lock().unwrap().push((path, note));
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, arrived)
}

/// The names and gateways of the alerts that arrived at a path.
fn names(arrived: &Arrived, path: &str) -> Vec<String> {
    let notes = arrived.lock().unwrap();
    let of_path = notes.iter().filter(|(at, _)| at == path);
    let alerts = of_path.flat_map(|(_, note)| note["alerts"].as_array().unwrap());
    let names = alerts.map(|alert| {
        let of = |label: &str| alert["labels"][label].as_str().unwrap();
        format!("{} {}", of("alertname"), of("instance"))
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn a_page_reaches_the_pager_and_its_consequences_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (address, arrived) = receiver().await;
    let shipped = text(FILE);
    let waits = ["group_wait: 30s", "group_wait: 10s"];
    assert!(waits.iter().all(|wait| shipped.contains(wait)));
    let config = waits.iter().fold(shipped, |text, wait| {
        text.replace(wait, "group_wait: 200ms")
    });
    let file = directory.path().join("alertmanager.yml");
    std::fs::write(
        &file,
        config.replace("127.0.0.1:9099", &address.to_string()),
    )
    .unwrap();
    let alertmanager = free();
    let Some(process) = Process::start(
        Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", directory.path().display()))
            .arg(format!("--web.listen-address={alertmanager}"))
            .arg("--cluster.listen-address="),
    ) else {
        return missing("prometheus-alertmanager");
    };
    let alert = |name: &str, severity: &str, instance: &str| {
        let labels = json!({"alertname": name, "severity": severity, "instance": instance});
        json!({ "labels": labels })
    };
    let alerts = json!([
        alert("SegmentApiDown", "page", "a"),
        // Consequences at the same gateway, and the same alerts at another.
        alert("SegmentApiFailing", "page", "a"),
        alert("SegmentGatewayCallersFail", "page", "a"),
        alert("SegmentGatewayWaitsLong", "ticket", "a"),
        alert("SegmentGatewayCallersFail", "page", "b"),
        alert("SegmentGatewayCallersRejected", "ticket", "b"),
        alert("SegmentGatewayWaitsLong", "ticket", "b"),
        // Not a consequence of anything.
        alert("SegmentGatewayDurablePaused", "ticket", "a"),
    ]);
    let body = Bytes::from(alerts.to_string());
    eventually("the alerts are accepted", async || {
        let ask = Request::post("/api/v2/alerts")
            .header("host", alertmanager.to_string())
            .header("content-type", "application/json");
        let ask = ask.body(Full::new(body.clone())).unwrap();
        let answer = try_ask(alertmanager, ask).await;
        answer.is_some_and(|answer| answer.status.is_success())
    })
    .await;
    let pages = ["SegmentApiDown a", "SegmentGatewayCallersFail b"];
    let tickets = ["SegmentGatewayDurablePaused a", "SegmentGatewayWaitsLong b"];
    eventually("both receivers have theirs", async || {
        names(&arrived, "/page") == pages && names(&arrived, "/ticket") == tickets
    })
    .await;
    let ask = Request::get("/api/v2/alerts").header("host", alertmanager.to_string());
    let answer = try_ask(alertmanager, ask.body(Full::default()).unwrap()).await;
    let now: Value = serde_json::from_slice(&answer.unwrap().body).unwrap();
    let now = now.as_array().unwrap().iter();
    let suppressed = now.filter(|alert| alert["status"]["state"] == "suppressed");
    let mut suppressed: Vec<String> = suppressed
        .map(|alert| format!("{}", alert["labels"]["alertname"]))
        .collect();
    suppressed.sort();
    let expected = [
        "ApiFailing",
        "GatewayCallersFail",
        "GatewayCallersRejected",
        "GatewayWaitsLong",
    ];
    assert_eq!(
        suppressed,
        expected.map(|name| format!("\"Segment{name}\""))
    );
    drop(process);
}
