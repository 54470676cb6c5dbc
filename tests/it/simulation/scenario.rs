//! What a seed stands for: how the API behaves, who asks, and when the gateway is killed.

use super::super::support::unmerged;
use fastrand::Rng;
use segment_gateway::config::EMBEDDED_ROUTES;
use segment_gateway::sandbox::{Delay, Faults, ListMode, SandboxSpec, WindowKind};
use std::time::Duration;

/// How many users and groups the simulated workspace has in the beginning.
pub const USERS: usize = 40;
pub const GROUPS: usize = 4;

/// A kill of the gateway, and the start of its successor.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    pub at: Duration,
    pub down: Duration,
    pub ledger: LedgerFate,
}

/// Whether the successor finds what its predecessor sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerFate {
    Kept,
    Lost,
}

/// A time in which the API accepts no connection. Those that are kept break at the next request.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub at: Duration,
    pub length: Duration,
}

/// Everything that is decided before a run begins.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub length: Duration,
    pub sandbox: SandboxSpec,
    pub restarts: Vec<Restart>,
    pub outages: Vec<Outage>,
    /// The route table; `None` is the embedded one.
    pub routes: Option<String>,
    /// Writes that may wait for one budget.
    pub per_budget: usize,
}

impl Scenario {
    /// The scenario of a seed. Calm ones, restarts, other users and faults take turns.
    pub fn new(window: WindowKind, seed: u64, length: Duration) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut sandbox = SandboxSpec {
            seed,
            window,
            users: USERS,
            groups: GROUPS,
            tokens: Some(vec!["a".to_owned(), "b".to_owned()]),
            arrive: delay(&mut rng),
            reply: delay(&mut rng),
            replication_lag: *pick(&mut rng, &[0, 0, 500, 1_500].map(Duration::from_millis)),
            lists: *pick(&mut rng, &[ListMode::Whole, ListMode::Partly]),
            ..SandboxSpec::default()
        };
        let mut restarts = Vec::new();
        match seed % 4 {
            0 => {}
            1 => restarts = lives(&mut rng, length),
            2 => sandbox.other_users = f64::from(rng.u32(2..40)),
            _ => {
                sandbox.faults = faults(&mut rng);
                restarts = lives(&mut rng, length);
                if restarts
                    .iter()
                    .any(|restart| restart.ledger == LedgerFate::Lost)
                {
                    // Nothing may arrive from before a start that knows nothing of it.
                    sandbox.faults.late = 0.0;
                }
                if rng.bool() {
                    sandbox.other_users = f64::from(rng.u32(2..20));
                }
            }
        }
        // From a die of its own, so that the others fall as they did.
        let mut rng = Rng::with_seed(!seed);
        sandbox.validators = rng.bool();
        sandbox.gzip = rng.bool();
        let routes = rng.bool().then(with_stale_answers);
        // Where lists are applied in part, nothing may be merged.
        let routes = match sandbox.lists {
            ListMode::Whole => routes,
            ListMode::Partly => Some(unmerged(routes.as_deref().unwrap_or(EMBEDDED_ROUTES))),
        };
        let outages = match rng.u8(..3) {
            0 => outages(&mut rng, length),
            _ => Vec::new(),
        };
        Self {
            seed,
            length,
            sandbox,
            restarts,
            outages,
            routes,
            per_budget: 1_000,
        }
    }

    /// Whether nobody else uses the tokens.
    pub fn is_sole(&self) -> bool {
        self.sandbox.other_users == 0.0
    }

    /// Whether nothing goes wrong upstream.
    pub fn is_faultless(&self) -> bool {
        self.sandbox.faults == Faults::default() && self.outages.is_empty()
    }

    /// The longest that a request which is not late takes to arrive.
    pub fn longest_way(&self) -> Duration {
        self.sandbox.arrive.base + self.sandbox.arrive.jitter
    }
}

/// The embedded routes with short lives, after which answers are shown in every need.
fn with_stale_answers() -> String {
    let embedded = include_str!("../../../config/segment.toml");
    let lines = embedded
        .lines()
        .map(|line| match line.starts_with("cache = ") {
            true => "cache = \"10s\"\nstale_while_revalidate = \"20s\"\nstale_if_error = \"5m\"\n\
                 stale_if_limited = \"2m\"\n"
                .to_owned(),
            false => format!("{line}\n"),
        });
    lines.collect()
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

fn delay(rng: &mut Rng) -> Delay {
    Delay {
        base: *pick(rng, &[0, 20, 100].map(Duration::from_millis)),
        jitter: *pick(rng, &[0, 50, 300, 2_000, 8_000].map(Duration::from_millis)),
    }
}

fn faults(rng: &mut Rng) -> Faults {
    let mut share = |most: f64| if rng.bool() { rng.f64() * most } else { 0.0 };
    Faults {
        throttle: share(0.05),
        server_error: share(0.03),
        lost_reply: share(0.02),
        late: share(0.02),
        late_by: Duration::from_millis(rng.u64(5_000..55_000)),
    }
}

/// Up to twenty outages, of some milliseconds up to longer than any read waits.
fn outages(rng: &mut Rng, length: Duration) -> Vec<Outage> {
    let mut instants: Vec<f64> = (0..rng.u8(1..20)).map(|_| rng.f64()).collect();
    instants.sort_unstable_by(f64::total_cmp);
    let outages = instants.iter().map(|at| Outage {
        at: length.mul_f64(*at),
        length: Duration::from_millis(*pick(rng, &[1, 500, 3_000, 20_000, 45_000])),
    });
    outages.collect()
}

/// Up to three kills that leave a ledger, or one that leaves nothing.
fn lives(rng: &mut Rng, length: Duration) -> Vec<Restart> {
    let mut at = || length.mul_f64(0.05 + 0.85 * rng.f64());
    let mut instants = [at(), at(), at()];
    instants.sort_unstable();
    if rng.u8(..4) == 0 {
        return vec![Restart {
            at: instants[1],
            down: Duration::from_secs(20),
            ledger: LedgerFate::Lost,
        }];
    }
    let kept = instants.iter().map(|at| Restart {
        at: *at,
        down: Duration::from_millis(rng.u64(..15_000)),
        ledger: LedgerFate::Kept,
    });
    kept.collect()
}
