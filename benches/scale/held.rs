//! Held writes and budgets: joining a line, leaving it, its turn; other lines and other budgets.

use crate::{Scale, credential, peer};
use segment_gateway::caller::Caller;
use segment_gateway::clock::Clock;
use segment_gateway::credential::Hasher;
use segment_gateway::limit::budgets::{
    Admission, BudgetBounds, BudgetRefusal, BudgetRequest, Budgets, LineBounds, Readiness,
};
use segment_gateway::limit::ledger::{Ledger, PastUsage};
use segment_gateway::limit::ticket::{Permit, Ticket};
use segment_gateway::limit::turns::Urgency;
use segment_gateway::limit::window::{AttemptEnd, Terms};
use segment_gateway::route::policy::{BudgetSpec, Effect, Rate};
use std::collections::VecDeque;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

const MINUTE: Duration = Duration::from_secs(60);
/// Longer than any bench, so that no slot is returned by time.
const AGES: Duration = Duration::from_secs(1_000_000_000);
/// The attempts that a budget has in flight at most.
const IN_FLIGHT: u32 = 4;
/// The slots of a usual budget.
const SLOTS: u32 = 60;
/// More slots than are used, at a rate that does not raise the cap.
const ENDLESS: u32 = 100_000_000;
/// The weight of a write in a line.
const BYTES: usize = 500;
/// No bound: what is measured is not a refusal.
const UNBOUNDED: LineBounds = LineBounds {
    per_budget: usize::MAX,
    total: usize::MAX,
    bytes: usize::MAX,
};
/// The peer of the write that is measured.
const NEWCOMER: u32 = 1 << 20;

/// Who the nth in a line is.
type NthCaller = fn(u32) -> Caller;
/// The bounds that so many others fill.
type BoundsFor = fn(u32) -> LineBounds;

pub(crate) fn measure(scale: &Scale) {
    scale.title("a held write, with others in its line");
    let lines: [(&str, NthCaller); 2] = [("of one peer", |_| peer(0)), ("each a peer", peer)];
    for (whose, caller) in lines {
        scale.row(&format!("{whose}: join the line, leave it"), |others| {
            let line = Line::saturated(UNBOUNDED, SLOTS, others, caller);
            move || drop(black_box(line.join(NEWCOMER)))
        });
        scale.row(
            &format!("{whose}: the first peer joins, and leaves"),
            |others| {
                let line = Line::saturated(UNBOUNDED, SLOTS, others, caller);
                move || drop(black_box(line.join(0)))
            },
        );
        scale.row(
            &format!("{whose}: a turn (joined, granted, begun, ended)"),
            |others| {
                let mut line = Line::saturated(UNBOUNDED, ENDLESS, others, caller);
                let mut next = others;
                move || {
                    line.turn(caller(next));
                    next = (next + 1) % (others + IN_FLIGHT);
                }
            },
        );
    }
    scale.row("more slots than wait: join the line, leave it", |others| {
        let line = Line::saturated(UNBOUNDED, ENDLESS, others, peer);
        move || drop(black_box(line.join(NEWCOMER)))
    });
    scale.row(
        "blocked in their lanes: join the line, leave it",
        |others| {
            let mut line = Line::saturated(UNBOUNDED, SLOTS, 0, peer);
            for n in 0..others {
                let ticket = line.enter(peer(n), Readiness::Blocked);
                line.tickets.push_back(ticket);
            }
            move || drop(black_box(line.join(NEWCOMER)))
        },
    );
    scale.title("a held write, with other budgets");
    for (kind, others_wait) in [("idle", false), ("one waits for each", true)] {
        scale.row(&format!("{kind}: join the line, leave it"), |others| {
            let mut line = Line::saturated(UNBOUNDED, ENDLESS, 1, peer);
            line.open_others(others, others_wait);
            move || drop(black_box(line.join(NEWCOMER)))
        });
        scale.row(&format!("{kind}: a turn"), |others| {
            let mut line = Line::saturated(UNBOUNDED, ENDLESS, 1, peer);
            line.open_others(others, others_wait);
            move || line.turn(peer(1))
        });
        scale.row(
            &format!("{kind}: copy the budgets for an estimate"),
            |others| {
                let mut line = Line::saturated(UNBOUNDED, ENDLESS, 1, peer);
                line.open_others(others, others_wait);
                move || line.copy()
            },
        );
    }
    scale.row(
        "one waits for each: the driver serves one that is due",
        driven,
    );
    refusals(scale);
}

fn refusals(scale: &Scale) {
    scale.title("a held write is rejected, with a time to come back");
    let requests = |others: u32| LineBounds {
        total: others as usize + 1,
        ..UNBOUNDED
    };
    let bytes = |others: u32| LineBounds {
        bytes: (others as usize + 1) * BYTES,
        ..UNBOUNDED
    };
    let bounds: [(&str, BoundsFor); 2] = [
        ("the lines are full", requests),
        ("the bodies are too many", bytes),
    ];
    for (why, bounds) in bounds {
        scale.row(&format!("{why}, others in one line"), |others| {
            let line = Line::saturated(bounds(others), SLOTS, others + 1, peer);
            move || line.is_refused()
        });
        scale.row(&format!("{why}, others each for a budget"), |others| {
            let mut line = Line::saturated(bounds(others), SLOTS, 1, peer);
            line.open_others(others, true);
            move || line.is_refused()
        });
    }
}

/// One budget among others, of which one is due at a time: the clock is paused and jumps to it.
fn driven(others: u32) -> impl FnMut() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap_or_else(|error| panic!("no runtime: {error}"));
    let guard = runtime.enter();
    let clock = Clock::simulated(SystemTime::UNIX_EPOCH, MINUTE);
    let mut line = Line::new(UNBOUNDED, clock);
    line.open_others(others, true);
    line.budget = spec("due", 1, Duration::from_millis(10));
    drop(guard);
    runtime.spawn(line.budgets.clone().drive());
    move || {
        runtime.block_on(async {
            let mut ticket = line.enter(peer(NEWCOMER), Readiness::Ready);
            match ticket.granted().await {
                Ok(permit) => answered(permit),
                Err(error) => panic!("it has time, yet: {error:?}"),
            }
        });
    }
}

/// What waits and what is open takes memory.
pub(crate) fn memory() {
    const MANY: u32 = 10_000;
    println!("\nmemory of each of {MANY}, in bytes");
    let before = resident();
    let line = Line::saturated(UNBOUNDED, SLOTS, MANY, peer);
    let waiting = resident().saturating_sub(before) / MANY as usize;
    println!("  a write in a line, with its ticket{waiting:>8}");
    let before = resident();
    let mut others = Line::saturated(UNBOUNDED, SLOTS, 1, peer);
    others.open_others(MANY, false);
    let open = resident().saturating_sub(before) / MANY as usize;
    println!("  an open budget of a credential    {open:>8}");
    drop((line, others));
}

/// The resident memory of this process, in bytes. 0 where the system does not say.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or_default() * 1_024
}

fn spec(name: &str, limit: u32, window: Duration) -> BudgetSpec {
    BudgetSpec {
        name: name.into(),
        rate: Rate { limit, window },
        documented: true,
    }
}

/// The budgets of a gateway; in one of them as many attempts are in flight as may be, and so a line
/// waits.
struct Line {
    budgets: Budgets,
    budget: BudgetSpec,
    clock: Clock,
    /// The requests of the line, the next one first.
    tickets: VecDeque<Ticket>,
    /// The attempts in flight.
    permits: VecDeque<Permit>,
    /// The requests of other lines.
    others: Vec<Ticket>,
}

impl Line {
    fn new(lines: LineBounds, clock: Clock) -> Self {
        let bounds = BudgetBounds {
            terms: Terms {
                guard: Duration::from_millis(1),
                late: MINUTE,
                unknown_slots: 1,
            },
            writes_in_flight: IN_FLIGHT,
            reads_in_flight: IN_FLIGHT,
            lines,
        };
        let (ledger, history) = (Ledger::none(clock.clone()), Some(PastUsage::new()));
        let hasher = Hasher::new(&[7; 32]);
        Self {
            budgets: Budgets::new(bounds, ledger, history, hasher, clock.clone()),
            budget: spec("budget", SLOTS, AGES),
            clock,
            tickets: VecDeque::new(),
            permits: VecDeque::new(),
            others: Vec::new(),
        }
    }

    /// Budgets with one of so many slots that has so many requests in its line.
    fn saturated(lines: LineBounds, slots: u32, waiting: u32, caller: NthCaller) -> Self {
        let mut line = Self::new(lines, Clock::system());
        line.budget = spec("budget", slots, AGES);
        for n in 0..IN_FLIGHT + waiting {
            let ticket = line.enter(caller(n.saturating_sub(IN_FLIGHT)), Readiness::Ready);
            line.tickets.push_back(ticket);
        }
        for mut ticket in line.tickets.drain(..IN_FLIGHT as usize) {
            let mut permit = granted(&mut ticket);
            permit.begin();
            line.permits.push_back(permit);
        }
        assert_eq!(line.budgets.waiting(), waiting as usize);
        line
    }

    /// Opens so many other budgets, each of a credential of its own, and lets one request wait for
    /// each.
    fn open_others(&mut self, count: u32, others_wait: bool) {
        let spec = spec("other", 1, AGES);
        for n in 1..=count {
            let request = BudgetRequest {
                credential: credential(n),
                budget: &spec,
                ..self.request(peer(n))
            };
            let mut ticket = accepted(self.budgets.join(&request));
            if others_wait {
                answered(granted(&mut ticket));
                // The one slot is occupied now.
                self.others.push(accepted(self.budgets.join(&request)));
            }
        }
    }

    /// A request that its line may not refuse, and that needs no estimate.
    fn request(&self, caller: Caller) -> BudgetRequest<'_> {
        let now = self.clock.now();
        BudgetRequest {
            credential: credential(0),
            budget: &self.budget,
            effect: Effect::Write,
            caller,
            urgency: Urgency::default(),
            bytes: BYTES,
            not_before: None,
            deadline: now + AGES * 1_000,
            answer_by: None,
            forecast: Some(now),
            readiness: Readiness::Ready,
            admission: Admission::Taken,
        }
    }

    fn enter(&self, caller: Caller, readiness: Readiness) -> Ticket {
        accepted(self.budgets.join(&BudgetRequest {
            readiness,
            ..self.request(caller)
        }))
    }

    /// Joins as a held write does: it may be refused, and is estimated.
    fn ask(&self, n: u32) -> Result<Ticket, BudgetRefusal> {
        self.budgets.join(&BudgetRequest {
            forecast: None,
            admission: Admission::Asked,
            ..self.request(peer(n))
        })
    }

    fn join(&self, n: u32) -> Ticket {
        accepted(self.ask(n))
    }

    /// Copies the budgets of the credential for the closer estimate.
    fn copy(&self) {
        drop(black_box(self.budgets.forecast(credential(0), 1_000)));
    }

    fn is_refused(&self) {
        let refused = black_box(self.ask(NEWCOMER));
        assert!(matches!(refused, Err(BudgetRefusal::Full { .. })));
    }

    /// An attempt gets its response, the next in the line is sent, and another joins.
    fn turn(&mut self, caller: Caller) {
        let joined = self.enter(caller, Readiness::Ready);
        self.tickets.push_back(joined);
        if let Some(permit) = self.permits.pop_front() {
            permit.end(AttemptEnd::Answered(None));
        }
        let Some(mut ticket) = self.tickets.pop_front() else {
            return;
        };
        let mut permit = granted(&mut ticket);
        permit.begin();
        self.permits.push_back(permit);
    }
}

fn accepted(joined: Result<Ticket, BudgetRefusal>) -> Ticket {
    joined.unwrap_or_else(|refusal| panic!("there is room, yet: {refusal:?}"))
}

fn answered(mut permit: Permit) {
    permit.begin();
    permit.end(AttemptEnd::Answered(None));
}

/// Takes the permit that has been granted.
fn granted(ticket: &mut Ticket) -> Permit {
    let mut granted = pin!(ticket.granted());
    match granted
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("it is its turn, yet: {other:?}"),
    }
}
