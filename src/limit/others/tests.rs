//! A saturated budget and somebody else with the same token, against the four kinds of window, in
//! simulated time.

use crate::caller::Caller;
use crate::clock::Clock;
use crate::limit::account::{Account, Next};
use crate::limit::learn::{Allowance, Throttle};
use crate::limit::turns::Urgency;
use crate::limit::window::{AttemptEnd, Slot, Terms, Window};
use crate::route::policy::Rate;
use crate::sandbox::rate_window::{RateWindow as Counter, WindowKind};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const W: Duration = Duration::from_secs(60);
/// How long a run is, and from when on it is measured.
const RUN: Duration = Duration::from_secs(4_200);
const MEASURED: Duration = Duration::from_secs(600);

/// What arrived while it was measured, and how much of it was refused.
#[derive(Debug, Default)]
struct Report {
    own: u32,
    own_refused: u32,
    others: u32,
    others_refused: u32,
}

#[derive(Debug)]
enum Event {
    Arrives(Slot, Instant),
    Answered(Slot, AttemptEnd, Instant),
    SomebodyElse,
    Look,
}

struct Run {
    account: Account,
    counter: Counter,
    rng: fastrand::Rng,
    events: BTreeMap<(Instant, u64), Event>,
    numbers: u64,
    /// When the account is looked at again.
    wake: Option<Instant>,
    /// Of ours, for the next one that waits.
    place: u64,
}

impl Run {
    fn new(kind: WindowKind, limit: u32, seed: u64, start: Instant) -> Self {
        let rate = Rate { limit, window: W };
        let terms = Terms {
            guard: Duration::from_millis(250),
            late: W,
            unknown_slots: 1,
        };
        let window = Window::new(rate, rate, true, terms, start);
        let mut run = Self {
            account: Account::new(window, 8, start),
            counter: Counter::new(kind, limit, W, start + Duration::from_secs(17)),
            rng: fastrand::Rng::with_seed(seed),
            events: BTreeMap::new(),
            numbers: 0,
            wake: None,
            place: 0,
        };
        (0..50).for_each(|_| run.join(start));
        run
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.numbers += 1;
        self.events.insert((at, self.numbers), event);
    }

    fn join(&mut self, now: Instant) {
        let caller = Caller {
            principal: IpAddr::from([10, 0, 0, 1]).into(),
            name: None,
        };
        let turns = self.account.turns();
        turns.join(self.place, caller, Urgency::default(), now);
        turns.ready(self.place);
        self.place += 1;
    }

    fn travels(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(40..160))
    }

    /// Somebody always waits.
    fn send(&mut self, now: Instant) {
        loop {
            match self.account.next(now) {
                Next::Go(_, slot) => {
                    let arrives = now + self.travels();
                    self.at(arrives, Event::Arrives(slot, now));
                    self.join(now);
                }
                Next::Wait(at) => {
                    if self.wake.is_none_or(|wake| at < wake || wake <= now) {
                        self.wake = Some(at);
                        self.at(at, Event::Look);
                    }
                    return;
                }
                Next::Idle => return,
            }
        }
    }
}

/// Somebody else sends one request each `each` on average, until `until`.
fn run(kind: WindowKind, limit: u32, each: Duration, until: Duration, seed: u64) -> Report {
    let start = Clock::system().now();
    let mut run = Run::new(kind, limit, seed, start);
    let mut report = Report::default();
    if !until.is_zero() {
        run.at(start, Event::SomebodyElse);
    }
    run.send(start);
    while let Some(((now, _), event)) = run.events.pop_first() {
        if now >= start + RUN {
            break;
        }
        let counts = u32::from(now >= start + MEASURED);
        match event {
            Event::SomebodyElse => {
                let refused = !run.counter.count(now).admitted;
                report.others += counts;
                report.others_refused += counts * u32::from(refused);
                let next = now + each.mul_f64(run.rng.f64() + 0.5);
                if next < start + until {
                    run.at(next, Event::SomebodyElse);
                }
            }
            Event::Arrives(slot, left) => {
                let verdict = run.counter.count(now);
                report.own += counts;
                report.own_refused += counts * u32::from(!verdict.admitted);
                let end = if verdict.admitted {
                    AttemptEnd::Answered(Some(Allowance {
                        consumed: verdict.consumed,
                        remaining: verdict.remaining,
                        reset_in: None,
                    }))
                } else {
                    AttemptEnd::Throttled(Throttle {
                        wait: Some(verdict.until_next),
                        consumed: Some(verdict.consumed),
                    })
                };
                let comes = now + run.travels();
                run.at(comes, Event::Answered(slot, end, left));
            }
            Event::Answered(slot, end, left) => {
                run.account.end(slot, end, now - left, now);
                run.send(now);
            }
            Event::Look if run.wake == Some(now) => {
                run.wake = None;
                run.send(now);
            }
            Event::Look => {}
        }
    }
    report
}

fn share(part: u32, of: u32) -> f64 {
    f64::from(part) / f64::from(of.max(1))
}

/// Whoever else uses the token has what it asks for, up to half, and we are rarely refused.
#[test]
fn others_have_what_they_ask_for_up_to_half() {
    let half = |limit: u32| W * 2 / limit;
    for limit in [50, 60, 200] {
        for each in [Duration::from_secs(20), Duration::from_secs(3), half(limit)] {
            for kind in WindowKind::ALL {
                for seed in 1..=3 {
                    let report = run(kind, limit, each, RUN, seed);
                    let refused = share(report.own_refused, report.own);
                    let served = 1.0 - share(report.others_refused, report.others);
                    let sent = f64::from(report.own) / 60.0;
                    let asked = f64::from(report.others) / 60.0;
                    let case = format!("{limit}, {each:?}, {kind}, {seed}: {report:?}");
                    assert!(served > 0.9, "{case}");
                    assert!(refused < 0.02, "{case}");
                    // Little goes unused.
                    assert!(sent + asked > 0.9 * f64::from(limit), "{case}");
                }
            }
        }
    }
}

/// Once nobody else comes any more, what was left to others is taken back.
#[test]
fn what_nobody_uses_is_taken_back() {
    for kind in WindowKind::ALL {
        let report = run(kind, 60, W / 30, MEASURED, 1);
        let sent = f64::from(report.own) / 60.0;
        assert!(sent > 0.9 * 60.0, "{kind}: {report:?}");
        assert!(share(report.own_refused, report.own) < 0.001, "{report:?}");
    }
}

/// Nobody else, no difference.
#[test]
fn alone_all_of_it_is_ours() {
    for kind in WindowKind::ALL {
        let report = run(kind, 60, RUN * 2, Duration::ZERO, 1);
        assert_eq!(report.own_refused, 0);
        assert!(report.own > 3_560, "{kind}: {report:?}");
    }
}
