//! Bench: what the arithmetic of the window, of estimates and of the fence costs.
//!
//! ```sh
//! cargo bench --bench arithmetic               # about a minute
//! cargo bench --bench arithmetic -- --quick    # to see that it works
//! ```
//!
//! Each row is the time of one operation in nanoseconds: the least, the median and the most over a
//! number of batches. What a batch needs is prepared outside the measured time. The median is the
//! figure to compare; the least is what it costs on a machine that does nothing else.
//!
//! The questions are how the cost grows with the limit, with those who wait and with the marks, and
//! whether a hit costs more after a write. A whole permit is measured here and not over the wire,
//! where a small limit is used up at once: the clock stands still, and moves between the batches.
//! The tables are warm: what is asked for again and again is in the processor's caches, as it is in
//! a busy gateway and is not in an idle one.

#![allow(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

#[path = "support/stored.rs"]
mod stored;
#[path = "support/table.rs"]
mod table;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use segment_gateway::cache::fence::{Dependency, Fence, Tag};
use segment_gateway::cache::key::CacheKey;
use segment_gateway::cache::{Cache, CacheSpec, Invalidation};
use segment_gateway::caller::Caller;
use segment_gateway::clock::Clock;
use segment_gateway::credential::{Credential, Hasher};
use segment_gateway::limit::account::{Account, Next};
use segment_gateway::limit::budgets::{
    Admission, BudgetBounds, BudgetRequest, Budgets, LineBounds, Readiness,
};
use segment_gateway::limit::learn::Allowance;
use segment_gateway::limit::ledger::{Ledger, PastUsage};
use segment_gateway::limit::ticket::Ticket;
use segment_gateway::limit::turns::Urgency;
use segment_gateway::limit::window::{AttemptEnd, Slot, Taken, Terms, Window};
use segment_gateway::route::policy::{BudgetSpec, Effect, Rate};
use std::collections::VecDeque;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use stored::{CREDENTIAL, key, store};
use table::Bench;

/// The default of `cache.marks`.
const MARKS: usize = 100_000;
const MINUTE: Duration = Duration::from_secs(60);
/// The defaults of `[budget]`.
const TERMS: Terms = Terms {
    guard: Duration::from_millis(250),
    late: MINUTE,
    unknown_slots: 1,
};
/// The most that a permit of the largest limit may cost, in proportion to one of the smallest.
const PERMIT_GOAL: f64 = 1.5;
/// Slots that come free at once. They divide each limit that is measured.
const FREED: u32 = 20;
/// A stored answer is looked up by many, so many are stored.
const ENTRIES: u32 = 1_000;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    if cfg!(debug_assertions) {
        println!("WARNING: a debug build, these figures mean nothing; use `cargo bench`");
    }
    let bench = Bench::new(quick);
    bench.title("the window: one budget of so many slots, all of them in use");
    for limit in [60, 200, 1_000_000] {
        windows(&bench, limit);
    }
    bench.title("permits: join the line, begin, end; all slots in use but those that come free");
    let permits = [60, 1_000, 1_000_000].map(|limit| permits(&bench, limit));
    let ratio = permits[2] / permits[0];
    println!(
        "  L = 1000000 in proportion to L = 60: {ratio:.2}; the goal of at most {PERMIT_GOAL:.1} is {}",
        if ratio <= PERMIT_GOAL {
            "met"
        } else {
            "NOT met"
        },
    );
    bench.title("estimates: a budget of 60 a minute, saturated, with others in the line");
    for waiting in [0, 100, 1_000] {
        estimates(&bench, waiting);
    }
    bench.title("the fence: is an answer with 2 tags believed?");
    for marks in [0, MARKS] {
        beliefs(&bench, marks);
    }
    bench.title("the cache: looking up a stored answer with 2 tags");
    for marks in [0, MARKS] {
        lookups(&bench, marks);
    }
    bench.title("the cache: settling a write");
    for tags in [1, 50] {
        settlings(&bench, tags);
    }
}

fn windows(bench: &Bench, limit: u32) {
    let rate = Rate {
        limit,
        window: MINUTE,
    };
    let start = bench.clock.now();
    let saturated = || {
        let mut window = Window::new(rate, rate, true, TERMS, start);
        // One slot comes free per step; a nanosecond more, so that rounding makes none late.
        let step = window.hold_answered() / limit + Duration::from_nanos(1);
        window.restore((0..limit).map(|n| start + step * n), rate.window);
        (window, step)
    };
    let told = Allowance {
        consumed: limit,
        remaining: 0,
        reset_in: Some(MINUTE),
    };
    for (answer, name) in [
        (None, "a slot comes free: take, give back"),
        (Some(told), "the same, learning from the answer's fields"),
    ] {
        let (mut window, step) = saturated();
        let mut now = start;
        bench.row(&format!("L = {limit}: {name}"), || {
            let slot = taken(&mut window, now);
            black_box(window.give_back(slot, AttemptEnd::Answered(answer), now));
            now += step;
        });
    }
    let (mut window, _) = saturated();
    let slot = taken(&mut window, start);
    window.give_back(slot, AttemptEnd::Answered(None), start);
    bench.row(&format!("L = {limit}: none is free: take refused"), || {
        black_box(window.take(black_box(start)));
    });
}

/// Returns the median of what a permit costs, in nanoseconds.
fn permits(bench: &Bench, limit: u32) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap_or_else(|error| panic!("no runtime: {error}"));
    let line = Line::empty(&bench.clock, limit);
    let one = || {
        // The runtime's clock stands still; the one that measures is read outside of it.
        let _inside = runtime.enter();
        let mut ticket = line.join(&peer(0));
        let granted = pin!(ticket.granted()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(mut permit)) = granted else {
            panic!("a slot is free, yet: {granted:?}");
        };
        permit.begin();
        black_box(permit.end(AttemptEnd::Answered(None)));
    };
    let rate = line.budget.rate;
    let window = Window::new(rate, rate, true, TERMS, bench.clock.now());
    let step = window.hold_answered() / limit + Duration::from_nanos(1);
    let free = || runtime.block_on(tokio::time::advance(step * FREED));
    for _ in 0..limit / FREED {
        (0..FREED).for_each(|_| one());
        free();
    }
    bench.prepared(&format!("L = {limit}"), FREED as usize, free, |_| one())
}

fn taken(window: &mut Window, now: Instant) -> Slot {
    match window.take(black_box(now)) {
        Taken::Slot(slot) => slot,
        other => panic!("a slot is free, yet: {other:?}"),
    }
}

/// The address of the nth peer, which is a caller of its own.
fn peer(n: u32) -> Caller {
    Caller {
        principal: IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)).into(),
        name: None,
    }
}

/// Who the nth in the line is.
type NthCaller = fn(u32) -> Caller;

fn estimates(bench: &Bench, waiting: u32) {
    let newcomer = peer(u32::MAX >> 16);
    let now = bench.clock.now();
    let lines: &[(&str, NthCaller)] = match waiting {
        0 => &[("", peer)],
        _ => &[(" of one peer", |_| peer(0)), (", each a peer", peer)],
    };
    for (whose, caller) in lines {
        let mut account = saturated_account(now);
        for n in 0..waiting {
            account
                .turns()
                .join(n.into(), caller(n), Urgency::default(), now);
            account.turns().ready(n.into());
        }
        assert!(matches!(account.next(now), Next::Wait(_) | Next::Idle));
        bench.row(&format!("{waiting} wait{whose}: estimate"), || {
            black_box(account.estimate(black_box(&newcomer), Urgency::default(), now, now));
        });
        let line = Line::new(&bench.clock, waiting, *caller);
        bench.row(
            &format!("{waiting} wait{whose}: join the line, leave it"),
            || {
                drop(black_box(line.join(&newcomer)));
            },
        );
    }
}

/// The account of a budget of 60 a minute whose slots are all in use.
fn saturated_account(now: Instant) -> Account {
    let rate = budget(60).rate;
    let mut window = Window::new(rate, rate, true, TERMS, now);
    let seconds = |n: u32| Duration::from_secs(n.into());
    window.restore((1..=rate.limit).map(|n| now + seconds(n)), rate.window);
    Account::new(window, 4, now)
}

/// A budget of so many a minute.
fn budget(limit: u32) -> BudgetSpec {
    BudgetSpec {
        name: "budget".into(),
        rate: Rate {
            limit,
            window: MINUTE,
        },
        documented: true,
    }
}

/// The budgets of a gateway, one of them with a line of those who wait.
struct Line {
    budgets: Budgets,
    budget: BudgetSpec,
    credential: Credential,
    clock: Clock,
    /// Those under way, then those who wait.
    _tickets: VecDeque<Ticket>,
}

impl Line {
    fn empty(clock: &Clock, limit: u32) -> Self {
        let hasher = Hasher::new(&[7; 32]);
        let budget = budget(limit);
        let bounds = BudgetBounds {
            terms: TERMS,
            writes_in_flight: budget.rate.limit,
            reads_in_flight: budget.rate.limit,
            // One peer may have half of it.
            lines: LineBounds {
                per_budget: 10_000,
                total: 10_000,
                bytes: 1 << 30,
            },
        };
        let ledger = Ledger::none(clock.clone());
        let history = Some(PastUsage::new());
        Self {
            credential: hasher.credential(&HeaderMap::new()),
            budgets: Budgets::new(bounds, ledger, history, hasher, clock.clone()),
            clock: clock.clone(),
            _tickets: VecDeque::new(),
            budget,
        }
    }

    /// Uses all slots of a budget of 60 a minute, and lets so many wait for one.
    fn new(clock: &Clock, waiting: u32, caller: NthCaller) -> Self {
        let mut line = Self::empty(clock, 60);
        for n in 0..line.budget.rate.limit + waiting {
            let ticket = line.join(&caller(n.saturating_sub(line.budget.rate.limit)));
            line._tickets.push_back(ticket);
        }
        assert_eq!(line.budgets.waiting(), waiting as usize);
        line
    }

    fn join(&self, caller: &Caller) -> Ticket {
        let joined = self.budgets.join(&BudgetRequest {
            credential: self.credential,
            budget: &self.budget,
            effect: Effect::Write,
            caller: caller.clone(),
            urgency: Urgency::default(),
            bytes: 500,
            not_before: None,
            deadline: self.clock.now() + MINUTE * 1_000,
            answer_by: None,
            forecast: None,
            readiness: Readiness::Ready,
            admission: Admission::Asked,
        });
        match joined {
            Ok(ticket) => ticket,
            Err(refusal) => panic!("there is room, yet: {refusal:?}"),
        }
    }
}

/// So many tags that no answer depends on.
fn others(count: usize) -> Vec<Tag> {
    (0..count).map(|n| Tag::new(format!("other:{n}"))).collect()
}

fn beliefs(bench: &Bench, marks: usize) {
    let now = bench.clock.now();
    let depends = [
        Dependency::Tag(Tag::new("users")),
        Dependency::Tag(Tag::new("user:user-00001")),
        Dependency::Credential(CREDENTIAL),
        Dependency::Access(CREDENTIAL, 1),
    ];
    let mut fence = Fence::new(MARKS);
    let room = marks.saturating_sub(depends.len());
    fence.raise(others(room).into_iter().map(Dependency::Tag), now);
    let stamp = fence.stamp(now);
    assert!(fence.believes(&stamp, &depends));
    bench.row(
        &format!("{marks} marks, none of them its own: judge"),
        || {
            black_box(fence.believes(black_box(&stamp), black_box(&depends)));
        },
    );
    if marks == 0 {
        return;
    }
    fence.raise(depends.iter().cloned(), now);
    let stamp = fence.stamp(now);
    assert_eq!(
        (fence.marks(), fence.believes(&stamp, &depends)),
        (marks, true)
    );
    bench.row(
        &format!("{marks} marks, four of them its own: judge"),
        || {
            black_box(fence.believes(black_box(&stamp), black_box(&depends)));
        },
    );
}

fn cache() -> Arc<Cache> {
    Arc::new(Cache::new(&CacheSpec {
        bytes: 256 << 20,
        largest_body: 4 << 20,
        fetches: 256,
        marks: MARKS,
    }))
}

/// What a write to these changes.
fn touched(tags: &[Tag]) -> Invalidation {
    Invalidation::Named {
        tags: tags.to_vec(),
        paths: Vec::new(),
    }
}

fn lookups(bench: &Bench, marks: usize) {
    let now = bench.clock.now();
    let cache = cache();
    // At least one, whose mark can be raised again without a new one.
    let others = others(marks.max(1));
    cache.settle(&touched(&others), now);
    let keys: Vec<CacheKey> = (0..ENTRIES).map(key).collect();
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
    let body = [b'x'; 2_253];
    (0..ENTRIES).for_each(|user| store(&cache, user, (&headers, &body), now));
    let find = |n: usize| {
        let found = cache.lookup(black_box(&keys[n % keys.len()]), now);
        assert!(black_box(found).is_some());
    };
    let mut n = 0;
    bench.row(
        &format!("{marks} marks, no write since the last look-up"),
        || {
            find(n);
            n += 1;
        },
    );
    let write = touched(&others[..1]);
    let name = format!("{marks} marks, judged anew after a write to something else");
    bench.prepared(&name, keys.len(), || cache.settle(&write, now), find);
    let absent = key(ENTRIES);
    bench.row(&format!("{marks} marks, nothing stored"), || {
        black_box(cache.lookup(black_box(&absent), now).is_none());
    });
}

fn settlings(bench: &Bench, tags: usize) {
    let now = bench.clock.now();
    let plural = if tags == 1 { "tag" } else { "tags" };
    // More than there is room for: whichever comes next has been dropped long ago.
    let pool = others(3 * MARKS);
    let writes: Vec<Invalidation> = pool.chunks(tags).map(touched).collect();
    let alone = cache();
    bench.row(&format!("{tags} {plural}, no other marks"), || {
        alone.settle(black_box(&writes[0]), now);
    });
    let full = cache();
    full.settle(&touched(&pool[..MARKS]), now);
    assert_eq!(full.stats().marks, MARKS);
    bench.row(
        &format!("{tags} {plural}, {MARKS} marks, these among them"),
        || {
            full.settle(black_box(&writes[0]), now);
        },
    );
    let mut next = MARKS / tags;
    bench.row(
        &format!("{tags} {plural}, {MARKS} marks, others dropped for them"),
        || {
            full.settle(black_box(&writes[next % writes.len()]), now);
            next += 1;
        },
    );
    assert_eq!(full.stats().marks, MARKS);
}
