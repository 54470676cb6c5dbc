//! What operators see after a walk through the sandbox: every metric, with bounded labels.

use super::support::exposition::{exported, metrics, samples, shown};
use super::support::{Setup, World, from_peer, request, with};
use http::Method;
use segment_gateway::metrics::Outcome;
use segment_gateway::sandbox::{Delay, Faults, SandboxSpec};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const TOKEN: &str = "sgp_5ecretT0ken";
const NOTHING: &str = r#"{"permissions":[]}"#;

/// Meets everything that is counted, and returns the metrics and how many requests there were.
pub async fn walked() -> (String, usize) {
    let mut setup = Setup::new(SandboxSpec {
        other_users: 10.0,
        faults: Faults {
            throttle: 1.0,
            ..Faults::default()
        },
        ..SandboxSpec::default()
    });
    setup.history = None;
    setup.config.callers.rate.limit = 1;
    setup.config.callers.rate.window = Duration::from_secs(86_400);
    setup.config.callers.burst = 100;
    let sandbox = Arc::clone(&setup.sandbox);
    let world = Arc::new(setup.start());
    let mut sent = 0;
    let put = |n: usize| {
        let target = format!("/users/user-{n:05}/permissions");
        request(Method::PUT, &target, TOKEN, NOTHING)
    };
    let get = |target: &str| request(Method::GET, target, TOKEN, "");
    // The first attempt of a budget without history meets a 429, a later one too.
    let first = world.spawn(get("/users/user-00001"));
    sleep(Duration::from_millis(10)).await;
    sandbox.set_faults(Faults::default());
    first.await.unwrap();
    sent += 1;
    // Hits, joins, misses, bypasses, what is passed.
    for target in [
        "/users/user-00001",
        "/users?a=1&a=1",
        "/labels",
        "/v9/x",
        "/users",
    ] {
        world.send(get(target)).await;
        sent += 1;
    }
    let two = [world.spawn(get("/roles")), world.spawn(get("/roles"))];
    for task in two {
        task.await.unwrap();
        sent += 1;
    }
    // What is asked for often is fetched once more before its end.
    for pause in [0, 0, 0, 0, 0, 290, 0] {
        sleep(Duration::from_secs(pause)).await;
        world.send(get("/roles")).await;
        sent += 1;
    }
    // Writes; others use the token meanwhile.
    for n in 1..=8 {
        world.send(put(n)).await;
        sleep(Duration::from_secs(30)).await;
        sent += 1;
    }
    world
        .send(request(Method::POST, "/v9/x", TOKEN, "{}"))
        .await;
    sandbox.set_faults(Faults {
        throttle: 1.0,
        ..Faults::default()
    });
    let throttled = world.spawn(put(1));
    sleep(Duration::from_millis(10)).await;
    sandbox.set_faults(Faults::default());
    throttled.await.unwrap();
    // Without an outcome, repeated or not; then its lane is closed.
    sandbox.set_faults(Faults {
        lost_reply: 1.0,
        ..Faults::default()
    });
    world.send(put(20)).await;
    world.spend_retry_budget(Duration::from_secs(60));
    world.send(put(21)).await;
    world.send(get("/labels")).await;
    sandbox.set_faults(Faults::default());
    world.send(with(put(20), "prefer", "wait=1")).await;
    let hung_up = timeout(Duration::from_secs(1), world.send(put(20))).await;
    assert!(hung_up.is_err());
    sent += 7;
    // Refusals.
    world.send(get("/_gateway/x")).await;
    world
        .send(request(Method::TRACE, "/users", TOKEN, ""))
        .await;
    sent += 2;
    let mut unauthorized = request(Method::GET, "/users/user-00002", TOKEN, "");
    unauthorized.headers_mut().remove("authorization");
    world.send(unauthorized).await;
    sent += 1;
    for _ in 0..105 {
        world.send(from_peer(get("/v9/flood"), 9)).await;
        sent += 1;
    }
    (metrics(&world).await, sent)
}

#[tokio::test(start_paused = true)]
async fn after_a_walk_every_metric_is_there_with_bounded_labels() {
    let (text, sent) = walked().await;
    let exported = exported(&text);
    let mut missing = Vec::new();
    let table = include_str!("../../src/metrics/families.rs");
    // The walk has no durable write, no batch, no TLS, no clients and no audit log, and is not in shadow mode.
    let elsewhere = [
        "durable",
        "journal",
        "batch",
        "shadow",
        "tls",
        "client",
        "held_token",
        "audit_records",
    ];
    for name in table.split('"') {
        let Some(part) = name.strip_prefix("segment_gateway_") else {
            continue;
        };
        if elsewhere
            .iter()
            .any(|beginning| part.starts_with(beginning))
        {
            continue;
        }
        let is_there = |end: &str| exported.contains_key(&format!("{name}{end}"));
        if !is_there("") && !is_there("_bucket") {
            missing.push(name);
        }
    }
    assert_eq!(missing, Vec::<&str>::new());
    assert!(exported.len() > 30);
    assert!(!text.contains(TOKEN));
    let table = include_str!("../../config/segment.toml");
    let mut requests = 0.0;
    let mut outcomes = BTreeSet::new();
    for (name, labels, value) in samples(&text) {
        for (label, value) in &labels {
            let short = value.len() <= 64 && !value.contains(['/', ' ', '@', '?']);
            assert!(short, "{name} {label}={value}");
            if label == "operation" || label == "budget" {
                let known = table.contains(&format!("[operations.{value}]"));
                let own = matches!(value.as_str(), "none" | "unmatchedRead" | "unmatchedWrite");
                assert!(known || own, "{name} {label}={value}");
            }
            if label == "outcome" && name == "segment_gateway_requests_total" {
                assert!(Outcome::ALL.iter().any(|outcome| outcome.as_str() == value));
            }
        }
        if name == "segment_gateway_requests_total" {
            requests += value;
            if value > 0.0 {
                outcomes.extend(
                    labels
                        .into_iter()
                        .filter(|(l, _)| l == "outcome")
                        .map(|(_, v)| v),
                );
            }
        }
    }
    assert_eq!(requests as usize, sent, "each under exactly one outcome");
    for outcome in [
        "hit", "fetched", "joined", "passed", "written", "refused", "unknown", "failed", "hung-up",
    ] {
        assert!(outcomes.contains(outcome), "{outcome} not in {outcomes:?}");
    }
    for origin in ["start", "upstream", "gateway"] {
        let label = format!("origin=\"{origin}\"");
        assert!(
            text.lines()
                .any(|line| line.starts_with("segment_gateway_throttled_total")
                    && line.contains(&label)),
            "{origin}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_is_not_counted_as_the_gateways_own_time_whatever_came_of_it() {
    let setup = Setup::new(SandboxSpec {
        arrive: Delay {
            base: Duration::from_millis(50),
            jitter: Duration::ZERO,
        },
        faults: Faults {
            lost_reply: 1.0,
            ..Faults::default()
        },
        ..SandboxSpec::default()
    });
    let sandbox = Arc::clone(&setup.sandbox);
    let world = Arc::new(setup.start());
    let put = |user: &str| {
        let target = format!("/users/user-0000{user}/permissions");
        request(Method::PUT, &target, TOKEN, NOTHING)
    };
    // Sent and not answered; then its lane is closed, and the next waits in vain.
    let unknown = world.send(with(put("1"), "prefer", "wait=0")).await;
    assert_eq!(unknown.error_type(), "gateway-outcome-unknown");
    let timing = unknown.header("server-timing");
    assert!(timing.contains("queue;dur=0.0, upstream;dur="), "{timing}");
    assert!(!timing.contains("upstream;dur=0.0"), "{timing}");
    sandbox.set_faults(Faults::default());
    let expired = world.send(with(put("1"), "prefer", "wait=600")).await;
    assert_eq!(expired.status, 200, "{expired:?}");
    let two = [
        world.spawn(request(Method::GET, "/roles", TOKEN, "")),
        world.spawn(request(Method::GET, "/roles", TOKEN, "")),
    ];
    for task in two {
        let answer = task.await.unwrap();
        let timing = answer.header("server-timing");
        assert!(!timing.contains("upstream;dur=0.0"), "{timing}");
        assert!(timing.contains("upstream;dur="), "{timing}");
    }
    let own = samples(&metrics(&world).await);
    let own = own
        .into_iter()
        .find(|(name, ..)| name == "segment_gateway_overhead_duration_seconds_sum");
    assert!(own.as_ref().is_some_and(|own| own.2 < 0.1), "{own:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_whose_budgets_nobody_drives_is_not_ready() {
    let mut world = World::new(SandboxSpec::default());
    world.get("/users", "t").await;
    let (status, text) = shown(&world, "/readyz").await;
    assert_eq!(status, 200, "{text}");
    world.lose_driver().await;
    let (status, text) = shown(&world, "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("budgets: "), "{text}");
    let shown = metrics(&world).await;
    assert!(shown.contains("segment_gateway_ready 0\n"), "{shown}");
}
