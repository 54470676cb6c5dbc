//! The gateway against the simulated API for hours of virtual time, seed by seed.
//!
//! Each seed is one scenario: a kind of window, latency and jitter, answers out of order, other
//! users of the tokens, faults, requests that arrive late, replication lag, outages and kept
//! connections that break, and kills of the gateway with and without its ledger. Callers read and
//! write at random, steadily and in bulk, with tokens or with keys; `judge.rs` compares what they
//! heard with what the sandbox saw.
//!
//! `SEGMENT_GATEWAY_SIM_SEEDS=1000 cargo test simulation` runs more seeds for each window than the
//! usual 32, `SEGMENT_GATEWAY_SIM_SEED=17` one alone, `SEGMENT_GATEWAY_SIM_MINUTES=600` longer ones.

mod callers;
mod judge;
mod keys;
mod record;
mod scenario;
mod stage;

use crate::support::exposition;
use judge::{Evidence, Figures};
use record::{End, Request};
use scenario::{LedgerFate, Scenario};
use segment_gateway::sandbox::{Arrival, By, Delay, SandboxSpec, WindowKind};
use stage::{Stage, number_of};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Callers of each run, besides those that send bulk jobs or come in crowds, a patient one and strangers.
const STEADY: u64 = 6;

/// Tells which seed it was, however the run ends.
struct Told(WindowKind, u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the failing run: SEGMENT_GATEWAY_SIM_SEED={} with {} windows",
                self.1, self.0
            );
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var_os(format!("SEGMENT_GATEWAY_SIM_{name}"))?;
    Some(
        text.to_str()
            .and_then(|text| text.parse().ok())
            .expect("a number"),
    )
}

fn length() -> Duration {
    Duration::from_secs(60 * setting("MINUTES").unwrap_or(60))
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

/// Runs one scenario and returns what went wrong.
fn run(scenario: &Scenario) -> (Vec<String>, Figures) {
    let (_, wrong, figures) = runtime().block_on(play(scenario));
    (wrong, figures)
}

async fn play(scenario: &Scenario) -> (Arc<Stage>, Vec<String>, Figures) {
    let began = Instant::now();
    let end = began + scenario.length;
    let stage = Stage::new(scenario);
    stage.start(LedgerFate::Kept);
    let mut all = JoinSet::new();
    all.spawn(Arc::clone(&stage).restart(scenario.restarts.clone()));
    all.spawn(Arc::clone(&stage).go_out(scenario.outages.clone()));
    let seed = scenario.seed.wrapping_mul(1_000);
    for caller in 0..STEADY {
        all.spawn(callers::steady(Arc::clone(&stage), seed + caller, end));
    }
    all.spawn(callers::bursts(Arc::clone(&stage), seed + 900, end));
    all.spawn(callers::patient(Arc::clone(&stage), seed + 901, end));
    all.spawn(callers::crowds(Arc::clone(&stage), seed + 902, end));
    all.spawn(callers::strangers(Arc::clone(&stage), seed + 903, end));
    timeout(scenario.length + Duration::from_secs(1_200), all.join_all())
        .await
        .expect("every request ends");
    let requests = stage.requests.lock().unwrap().clone();
    let arrivals = stage.sandbox.arrivals();
    let evidence = Evidence::new(scenario, began.into_std(), &requests, &arrivals);
    let (mut wrong, figures) = evidence.judge();
    requests_are_counted(&stage, &mut wrong).await;
    nothing_is_left(&stage, &mut wrong).await;
    writes_are_audited(&stage, &requests, &arrivals, &mut wrong).await;
    (stage, wrong, figures)
}

/// Every request ends in exactly one outcome.
async fn requests_are_counted(stage: &Stage, wrong: &mut Vec<String>) {
    let lives = stage.lives.lock().unwrap().clone();
    let sent = stage.requests.lock().unwrap().len();
    let mut counted = 0.0;
    for life in lives {
        let text = exposition::metrics(&life.world).await;
        for (name, _, value) in exposition::samples(&text) {
            if name == "segment_gateway_requests_total" {
                counted += value;
            }
        }
    }
    if counted != sent as f64 {
        wrong.push(format!("{counted} outcomes of {sent} requests"));
    }
}

/// When all callers have gone, no place, slot or task stays behind.
async fn nothing_is_left(stage: &Stage, wrong: &mut Vec<String>) {
    let life = stage.life().await;
    let gateway = &life.world.gateway;
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    let (waiting, tasks) = (gateway.budgets().waiting(), gateway.tasks().under_way());
    let budgets = gateway.budgets().snapshot();
    let held: u32 = budgets
        .iter()
        .map(|budget| budget.occupied + budget.in_flight)
        .sum();
    if (waiting, tasks, held, gateway.tasks().panicked()) != (0, 0, 0, 0) {
        wrong.push(format!(
            "left: {waiting} waiting, {tasks} tasks, {held} slots"
        ));
    }
}

/// Each write that was sent has one record of its end, which says what its caller heard.
async fn writes_are_audited(
    stage: &Stage,
    requests: &[Request],
    arrivals: &[Arrival],
    wrong: &mut Vec<String>,
) {
    let audited = stage.audited().await;
    let own = arrivals.iter().filter(|arrival| arrival.by == By::Gateway);
    let sent: BTreeSet<usize> = own
        .filter_map(|arrival| number_of(&arrival.target))
        .collect();
    for (number, outcomes) in &audited {
        if outcomes.len() > 1 {
            wrong.push(format!("audit: write {number} has {outcomes:?}"));
        }
    }
    for number in sent {
        let outcome = audited.get(&number).and_then(|outcomes| outcomes.first());
        let (_, end) = requests[number].ended.as_ref().expect("an end");
        let is_right = match (end, outcome) {
            // What a killed gateway would have written goes on here, but not always to its end.
            (End::Killed, _) => true,
            (_, None) => false,
            (End::Answered { status, error, .. }, Some(outcome)) if error.is_empty() => {
                !status.is_success() || outcome == "succeeded"
            }
            (_, Some(_)) => true,
        };
        if !is_right {
            let request = &requests[number];
            wrong.push(format!("audit: {outcome:?} of {request:?}"));
        }
    }
}

/// Runs all seeds of a window.
fn seeds(window: WindowKind) {
    let seeds = match setting("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("SEEDS").unwrap_or(32),
    };
    let mut sum = Figures::default();
    for seed in seeds {
        let told = Told(window, seed);
        let scenario = Scenario::new(window, seed, length());
        let (wrong, figures) = run(&scenario);
        let first = &wrong[..wrong.len().min(5)];
        assert!(
            wrong.is_empty(),
            "{} violations: {first:#?}\n{scenario:#?}",
            wrong.len()
        );
        sum.add(&figures);
        drop(told);
    }
    eprintln!("{window}: {sum:?}");
}

#[test]
fn fixed_windows() {
    seeds(WindowKind::Fixed);
}

#[test]
fn aligned_windows() {
    seeds(WindowKind::Aligned);
}

#[test]
fn rolling_windows() {
    seeds(WindowKind::Rolling);
}

#[test]
fn token_buckets() {
    seeds(WindowKind::TokenBucket);
}

/// One seed is one run: what fails once fails again.
#[test]
fn a_seed_is_one_run() {
    let digest = || {
        let scenario = Scenario::new(WindowKind::Rolling, 3, Duration::from_secs(1_200));
        let runtime = runtime();
        runtime.block_on(async {
            let began = Instant::now().into_std();
            let (stage, wrong, _) = play(&scenario).await;
            assert_eq!(wrong, Vec::<String>::new());
            let all = stage.sandbox.arrivals().into_iter();
            all.map(|a| (a.at - began, a.operation, a.target, a.status, a.version))
                .collect::<Vec<_>>()
        })
    };
    let (first, second) = (digest(), digest());
    assert!(first.len() > 500);
    for (one, other) in first.iter().zip(&second) {
        assert_eq!(one, other);
    }
    assert_eq!(first.len(), second.len());
}

/// The judge is no yes-man: a gateway with a wrong route table is found out.
#[test]
fn a_wrong_gateway_is_found_out() {
    let embedded = include_str!("../../../config/segment.toml");
    let without = |key: &str| {
        // What is merged has order keys, so that goes as well.
        let mut of_merge = false;
        let lines = embedded.lines().filter(move |line| {
            of_merge = line.ends_with(".merge]") || of_merge && !line.is_empty();
            !of_merge && !line.starts_with("merge")
        });
        let lines = lines.map(|line| match line.starts_with(key) {
            true => format!("{key} = []\n"),
            false => format!("{line}\n"),
        });
        lines.collect::<String>()
    };
    // A limit that is too high would be corrected by the first answer; a window would not.
    let short = embedded.replace("\"60 per 1m\"", "\"60 per 50s\"");
    let cases = [
        ("stale: ", without("writes")),
        ("lane ", without("order")),
        ("budget: ", short.clone()),
        ("refused: ", short),
    ];
    for (found, routes) in cases {
        // Latency without which nothing of one lane would overlap, and nobody else.
        let mut scenario = Scenario::new(WindowKind::Fixed, 0, Duration::from_secs(3_600));
        scenario.sandbox.arrive.jitter = Duration::from_secs(2);
        scenario.routes = Some(routes);
        let (wrong, _) = run(&scenario);
        assert!(
            wrong.iter().any(|words| words.starts_with(found)),
            "{found:?} is not in {:#?}",
            &wrong[..wrong.len().min(5)]
        );
    }
}

/// A saturated budget is used as fully as the proof allows: L·W/(W + round trip + guard).
#[test]
fn a_saturated_budget_is_used_to_the_full() {
    const MINUTE: Duration = Duration::from_secs(60);
    const HALF: Duration = Duration::from_millis(100);
    for window in WindowKind::ALL {
        let mut scenario = Scenario::new(window, 0, 61 * MINUTE);
        scenario.sandbox = SandboxSpec {
            window,
            arrive: Delay {
                base: HALF,
                jitter: Duration::ZERO,
            },
            reply: Delay {
                base: HALF,
                jitter: Duration::ZERO,
            },
            ..SandboxSpec::default()
        };
        let arrivals = runtime().block_on(async {
            let began = Instant::now();
            let stage = Stage::new(&scenario);
            stage.start(LedgerFate::Kept);
            let mut writers = JoinSet::new();
            for user in 1..=120 {
                writers.spawn(callers::insatiable(Arc::clone(&stage), user));
            }
            tokio::time::sleep_until(began + scenario.length).await;
            writers.abort_all();
            let from = (began + MINUTE).into_std();
            let arrivals = stage.sandbox.arrivals().into_iter();
            let counted = arrivals.filter(|arrival| arrival.at >= from);
            counted
                .inspect(|arrival| assert!(!arrival.refused(), "{window}: {arrival:?}"))
                .collect::<Vec<_>>()
        });
        // How long it takes until a slot is used again; an hour alone may begin or end with a burst.
        let rounds = arrivals.iter().zip(arrivals.iter().skip(60));
        let rounds: Vec<f64> = rounds.map(|(a, b)| (b.at - a.at).as_secs_f64()).collect();
        let round = rounds.iter().sum::<f64>() / rounds.len() as f64;
        let possible = 60.0 + 0.2 + 0.25 + 0.06;
        let least = 0.995 * 60.0 * 3_600.0 / possible;
        eprintln!(
            "{window}: {} in 60 minutes, {:.2} % of the limit; 60 in {round:.3} s, {:.2} % of what \
             is possible, {:.2} % of the limit",
            arrivals.len(),
            arrivals.len() as f64 / 36.0,
            possible / round * 100.0,
            60.0 / round * 100.0,
        );
        assert!(arrivals.len() as f64 >= least && possible / round >= 0.995);
    }
}

/// Who is refused and comes back after `Retry-After` is admitted, if nothing new came meanwhile,
/// also where many are after the same few lanes and slots, and a millisecond decides who has one.
#[test]
fn retry_after_is_kept() {
    for lanes in [false, true] {
        let mut sum = callers::Returns::default();
        for seed in 0..setting("SEEDS").unwrap_or(16).max(8) {
            let returns = runtime().block_on(callers::refused_and_back(seed, lanes));
            sum.refused += returns.refused;
            sum.admitted += returns.admitted;
        }
        eprintln!("lanes shared: {lanes}: {sum:?}");
        assert!(sum.refused > 20, "{sum:?}");
        assert_eq!(sum.admitted, sum.refused, "lanes shared: {lanes}");
    }
}
