//! Lines and permits under a paused clock.

use super::*;
use crate::caller::Caller;
use crate::credential::Credential;
use crate::limit::evidence::InForce;
use crate::limit::learn::Allowance;
use crate::limit::ledger::{LedgerSpec, PastBudget, WRITTEN_WITHIN};
use crate::limit::ticket::{Permit, PermitError, Ticket};
use crate::limit::turns::Urgency;
use crate::limit::window::AttemptEnd;
use crate::limit::window::Terms;
use crate::route::policy::{Effect, Rate};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

const W: Duration = Duration::from_secs(60);
/// The bytes of a record of the ledger.
const RECORD_BYTES: u64 = 128;

struct Bench {
    budgets: Budgets,
    clock: Clock,
    spec: BudgetSpec,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn bench(limit: u32) -> Bench {
    bench_after(limit, PastUsage::new())
}

fn bench_after(limit: u32, history: PastUsage) -> Bench {
    let clock = Clock::simulated(SystemTime::UNIX_EPOCH, Duration::from_secs(5_000));
    let bounds = BudgetBounds {
        terms: Terms {
            guard: Duration::from_millis(250),
            late: Duration::from_secs(60),
            unknown_slots: 1,
        },
        writes_in_flight: 4,
        reads_in_flight: 8,
        lines: LineBounds {
            per_budget: 10,
            total: 15,
            bytes: 10_000,
        },
    };
    let ledger = Ledger::none(clock.clone());
    let hasher = Hasher::new(&[1; 32]);
    let budgets = Budgets::new(bounds, ledger, Some(history), hasher, clock.clone());
    let driver = tokio::spawn(budgets.clone().drive());
    let rate = Rate { limit, window: W };
    let spec = BudgetSpec {
        name: "createInvites".into(),
        rate,
        documented: true,
    };
    Bench {
        budgets,
        clock,
        spec,
        driver,
    }
}

fn principal(n: u8) -> Caller {
    Caller {
        principal: IpAddr::from([10, 0, 0, n]).into(),
        name: None,
    }
}

impl Bench {
    fn join(&self, who: u8, patience: Duration) -> Result<Ticket, BudgetRefusal> {
        self.join_with(who, patience, 100)
    }

    fn join_with(
        &self,
        who: u8,
        patience: Duration,
        bytes: usize,
    ) -> Result<Ticket, BudgetRefusal> {
        self.budgets
            .join(&self.budget_request(who, patience, bytes))
    }

    fn budget_request(&self, who: u8, patience: Duration, bytes: usize) -> BudgetRequest<'_> {
        BudgetRequest {
            credential: Hasher::new(&[1; 32]).credential(&http::HeaderMap::new()),
            budget: &self.spec,
            effect: Effect::Write,
            caller: principal(who),
            urgency: Urgency::default(),
            bytes,
            not_before: None,
            deadline: self.clock.now() + patience,
            answer_by: None,
            forecast: None,
            readiness: Readiness::Ready,
            admission: Admission::Asked,
        }
    }

    async fn permit(&self, who: u8) -> Permit {
        let mut ticket = self.join(who, W * 3).unwrap();
        let mut permit = ticket.granted().await.unwrap();
        permit.begin();
        permit
    }
}

/// An answer that tells that so much of a limit is consumed.
fn told(consumed: u32, limit: u32) -> AttemptEnd {
    AttemptEnd::Answered(Some(Allowance {
        consumed,
        remaining: limit - consumed,
        reset_in: None,
    }))
}

/// Whether somebody gets a permit at once.
async fn at_once(bench: &Bench) -> Option<Permit> {
    let mut ticket = bench.join(1, W * 9).unwrap();
    let soon = Duration::from_millis(1);
    let permit = tokio::time::timeout(soon, ticket.granted()).await;
    permit.ok().map(|permit| {
        let mut permit = permit.unwrap();
        permit.begin();
        permit
    })
}

/// What was learned of a budget that has been forgotten since may have changed.
#[tokio::test(start_paused = true)]
async fn a_budget_that_had_learned_begins_one_at_a_time_until_an_answer_tells() {
    for tells in [true, false] {
        let bench = bench(60);
        bench.permit(1).await.end(told(1, 30));
        tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
        let first = at_once(&bench).await.unwrap();
        assert!(bench.budgets.snapshot()[0].starting);
        assert!(at_once(&bench).await.is_none(), "alone");
        first.end(if tells {
            told(1, 30)
        } else {
            AttemptEnd::Answered(None)
        });
        // Where none tells, what was learned is believed after a window.
        if !tells {
            assert!(bench.budgets.snapshot()[0].starting);
            tokio::time::sleep(W).await;
        }
        let mut permits = Vec::new();
        while let Some(permit) = at_once(&bench).await {
            permits.push(permit);
        }
        assert_eq!(permits.len(), 4, "as many as may be under way");
        let state = &bench.budgets.snapshot()[0];
        assert_eq!((state.starting, state.rate.limit), (false, 30));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_is_known_when_a_budget_is_used_again() {
    let bench = bench(60);
    bench.permit(1).await.end(told(1, 2));
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert!(bench.budgets.snapshot().is_empty(), "it was forgotten");
    // Errors tell nothing; two are answered all the same, and then what was learned holds.
    for _ in 0..2 {
        let permit = at_once(&bench).await.unwrap();
        assert_eq!(bench.budgets.snapshot()[0].rate.limit, 2);
        permit.end(AttemptEnd::Answered(None));
    }
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(at_once(&bench).await.is_none());
    let state = bench.budgets.shared.state.lock();
    assert!(state.learned.is_empty(), "it is known in one place");
}

/// Of an earlier process, all of whose slots are free again.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_process_has_learned_is_known() {
    let before = bench(60);
    before.permit(1).await.end(told(1, 2));
    let (id, rate) = {
        let mut state = before.budgets.shared.state.lock();
        let kept = state.accounts.values_mut().next().unwrap();
        (kept.id, kept.account.window().rate())
    };
    let past = PastBudget {
        held: Vec::new(),
        rate: InForce {
            rate,
            is_learned: true,
        },
    };
    let bench = bench_after(60, PastUsage::from([(id, past)]));
    tokio::time::sleep(Duration::from_secs(3 * 3_600)).await;
    let _first = at_once(&bench).await.unwrap();
    let state = &bench.budgets.snapshot()[0];
    assert_eq!((state.rate.limit, state.starting), (2, true));
    assert!(at_once(&bench).await.is_none());
}

/// Of an earlier process with a lower limit in its configuration.
#[tokio::test(start_paused = true)]
async fn a_limit_that_was_only_configured_before_does_not_outlast_a_restart() {
    let before = bench(60);
    drop(before.permit(1).await);
    let (id, until) = {
        let state = before.budgets.shared.state.lock();
        let id = state.accounts.values().next().unwrap().id;
        (id, before.clock.now() + W)
    };
    let past = PastBudget {
        held: vec![until],
        rate: InForce {
            rate: Rate {
                limit: 2,
                window: W,
            },
            is_learned: false,
        },
    };
    let bench = bench_after(60, PastUsage::from([(id, past)]));
    let _first = at_once(&bench).await.unwrap();
    let state = &bench.budgets.snapshot()[0];
    assert_eq!((state.rate.limit, state.starting), (60, false));
    assert_eq!(state.occupied, 2, "what it has sent still counts");
}

/// Of an earlier process that was configured with a shorter window.
#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_restart_counts_for_the_window_in_force_now() {
    let before = bench(1);
    drop(before.permit(1).await);
    let id = {
        let state = before.budgets.shared.state.lock();
        state.accounts.values().next().unwrap().id
    };
    for (longer, expected) in [(Duration::ZERO, W / 2), (W, W / 2 + W)] {
        let past = PastBudget {
            held: vec![before.clock.now() + W / 2],
            rate: InForce {
                rate: Rate {
                    limit: 1,
                    window: W,
                },
                is_learned: false,
            },
        };
        let mut bench = bench_after(1, PastUsage::from([(id, past)]));
        bench.spec.rate.window += longer;
        let start = bench.clock.now();
        drop(bench.permit(1).await);
        let waited = bench.clock.now() - start;
        assert!(waited >= expected, "{waited:?}");
        assert!(waited <= expected + Duration::from_millis(2), "{waited:?}");
    }
}

/// The driver writes the end of an attempt soon, if no other attempt does. What an answer has
/// taught is written at once.
#[tokio::test(start_paused = true)]
async fn the_end_of_an_attempt_is_written_soon() {
    let bench = bench(60);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let spec = LedgerSpec {
        key_check: [9; 16],
        keep: W,
        expected: false,
    };
    let opened = Ledger::open(&path, spec, bench.clock.clone()).unwrap();
    bench.budgets.shared.state.lock().ledger = opened.ledger;
    let records = || std::fs::metadata(&path).unwrap().len() / RECORD_BYTES;
    let first = bench.permit(1).await;
    let begun = records();
    first.end(told(1, 60));
    assert_eq!(records(), begun, "it waits for another record");
    tokio::time::sleep(WRITTEN_WITHIN * 2).await;
    assert_eq!(records(), begun + 1, "but not for long");
    bench.permit(1).await.end(told(2, 60));
    let third = bench.permit(1).await;
    assert_eq!(records(), begun + 4, "an attempt, its end and the next one");
    third.end(told(3, 30));
    assert_eq!(records(), begun + 5, "another limit");
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_the_moment_a_slot_is_free() {
    let bench = bench(1);
    let permit = bench.permit(1).await;
    permit.end(AttemptEnd::Answered(None));
    let answered = bench.clock.now();
    let next = bench.permit(1).await;
    let waited = bench.clock.now() - answered;
    assert!(waited >= W + Duration::from_millis(310));
    assert!(waited <= W + Duration::from_millis(312), "{waited:?}");
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_costs_nothing() {
    let bench = bench(1);
    let held = bench.permit(1).await;
    let mut gone = bench.join(1, W * 3).unwrap();
    let mut stays = bench.join(2, W * 3).unwrap();
    assert!(
        tokio::time::timeout(Duration::from_secs(1), gone.granted())
            .await
            .is_err()
    );
    drop(gone);
    assert_eq!(bench.budgets.waiting(), 1);
    held.end(AttemptEnd::NotSent);
    let permit = stays.granted().await.unwrap();
    // A permit that was handed over and never begun was never sent either.
    drop(permit);
    assert_eq!(bench.budgets.snapshot()[0].occupied, 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_dropped_after_it_was_begun_counts_as_unanswered() {
    let bench = bench(1);
    drop(bench.permit(1).await);
    let before = bench.clock.now();
    drop(bench.permit(1).await);
    assert!(bench.clock.now() - before >= W + Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_a_time_at_which_there_is_room() {
    for patience in [
        Duration::ZERO,
        Duration::from_secs(5),
        Duration::from_secs(100),
    ] {
        let bench = bench(2);
        // The answer time becomes known.
        bench.permit(9).await.end(AttemptEnd::Answered(None));
        let mut queued = Vec::new();
        let refusal = loop {
            match bench.join(1, patience) {
                Ok(ticket) => queued.push(ticket),
                Err(refusal) => break refusal,
            }
        };
        let BudgetRefusal::TooLong { retry_after, .. } = refusal else {
            panic!("the wait is too long for it")
        };
        for mut ticket in queued {
            drop(tokio::spawn(async move {
                let mut permit = ticket.granted().await.unwrap();
                permit.begin();
                permit.end(AttemptEnd::Answered(None));
            }));
        }
        tokio::time::sleep(retry_after).await;
        let back = bench.join(1, patience);
        assert!(
            back.is_ok(),
            "{patience:?}: {:?} after {retry_after:?}",
            back.err()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_nothing_takes_what_is_free_and_no_more() {
    let bench = bench(1);
    let mut ticket = bench.join(1, Duration::ZERO).unwrap();
    let _held = ticket.granted().await.unwrap();
    let second = bench.join(1, Duration::ZERO);
    assert!(
        matches!(second, Err(BudgetRefusal::TooLong { .. })),
        "{second:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_peer_has_half_of_every_bound() {
    let bench = bench(1);
    let _held = bench.permit(9).await;
    let long = W * 100;
    let mut tickets: Vec<Ticket> = (0..5).map(|_| bench.join(1, long).unwrap()).collect();
    assert!(matches!(
        bench.join(1, long),
        Err(BudgetRefusal::Full { .. })
    ));
    tickets.extend((0..5).map(|_| bench.join(2, long).unwrap()));
    let full = bench.join(3, long);
    assert!(
        matches!(full, Err(BudgetRefusal::Full { .. })),
        "the budget's line is full: {full:?}"
    );
    drop(tickets);
    assert_eq!(bench.budgets.waiting(), 0);
    assert!(bench.budgets.shared.state.lock().principals.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_name_leaves_room_for_the_others_of_its_peer() {
    let bench = bench(1);
    let _held = bench.permit(9).await;
    let join = |name: &str| {
        let caller = Caller {
            name: Some(name.into()),
            ..principal(1)
        };
        bench.budgets.join(&BudgetRequest {
            caller,
            ..bench.budget_request(1, W * 100, 100)
        })
    };
    let _bulk: Vec<Ticket> = (0..3).map(|_| join("bulk").unwrap()).collect();
    assert!(
        matches!(join("bulk"), Err(BudgetRefusal::Full { .. })),
        "a quarter of ten"
    );
    let _billing = join("billing").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_line_is_kept() {
    let bench = bench(1);
    let held = bench.permit(9).await;
    let mut ticket = bench.join(1, W * 2).unwrap();
    let before = bench.clock.now();
    assert!(matches!(ticket.granted().await, Err(PermitError::Expired)));
    assert_eq!(bench.clock.now() - before, W * 2);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn stopping_refuses_at_once_whoever_could_not_leave_in_time() {
    let bench = bench(1);
    bench.permit(9).await.end(AttemptEnd::Answered(None));
    let mut soon = bench.join(1, W * 10).unwrap();
    let mut late = bench.join(1, W * 10).unwrap();
    bench
        .budgets
        .drain(bench.clock.now() + W + Duration::from_secs(5));
    assert!(matches!(
        late.granted().await,
        Err(PermitError::Refused(BudgetRefusal::Draining))
    ));
    let _held = soon.granted().await.unwrap();
    assert!(matches!(
        bench.join(2, W * 10),
        Err(BudgetRefusal::Draining)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_forgotten_only_when_all_of_its_slots_are_free() {
    let bench = bench(1);
    bench.permit(1).await.end(AttemptEnd::Answered(None));
    let now = bench.clock.now();
    let mut state = bench.budgets.shared.state.lock();
    state.forget_idle(now, Duration::ZERO);
    assert_eq!(state.accounts.len(), 1);
    state.forget_idle(now + W + Duration::from_secs(1), Duration::ZERO);
    assert!(state.accounts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_no_room_for_its_bytes_is_told_when_there_is_enough() {
    let bench = bench(2);
    // Answered one after the other, so that their slots come back one after the other.
    for _ in 0..2 {
        bench.permit(9).await.end(AttemptEnd::Answered(None));
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let mut waiting = Vec::new();
    for who in 0..4 {
        let mut ticket = bench.join_with(who, W * 9, 2_000).unwrap();
        waiting.push(tokio::spawn(async move {
            let mut permit = ticket.granted().await.unwrap();
            permit.begin();
            permit.end(AttemptEnd::Answered(None));
        }));
    }
    // 2,000 of 10,000 are left, and two have to leave for 5,000.
    let Err(BudgetRefusal::Full { retry_after }) = bench.join_with(5, W * 9, 5_000) else {
        panic!("there is no room")
    };
    assert!(
        (50..=53).contains(&retry_after.as_secs()),
        "{retry_after:?}"
    );
    tokio::time::sleep(retry_after).await;
    bench.join_with(5, W * 9, 5_000).unwrap();
    // A principal has half of it.
    let _own = bench.join_with(6, W * 9, 1_000).unwrap();
    let refused = bench.join_with(6, W * 9, 4_500);
    assert!(
        matches!(refused, Err(BudgetRefusal::Full { .. })),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_driver_takes_over_from_one_that_panics() {
    let mut bench = bench(1);
    bench.permit(1).await.end(AttemptEnd::Answered(None));
    let mut first = bench.join(1, W * 3).unwrap();
    let mut second = bench.join(2, W * 3).unwrap();
    bench.budgets.shared.panics.store(true, Ordering::Release);
    tokio::task::yield_now().await;
    assert!(bench.budgets.is_driven());
    // The slot comes free; the permit for it is given back by the panic, and goes to the next.
    assert!((&mut bench.driver).await.unwrap_err().is_panic());
    assert!(!bench.budgets.is_driven());
    assert!(first.granted().await.is_err());
    let mut permit = second.granted().await.unwrap();
    permit.begin();
    permit.end(AttemptEnd::Answered(None));
    let mut third = bench.join(3, W * 3).unwrap();
    bench.driver = tokio::spawn(bench.budgets.clone().drive());
    drop(third.granted().await.unwrap());
    assert!(bench.budgets.is_driven());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_waits_before_has_room() {
    let bench = bench(1);
    let _large = bench.join_with(1, W, 20_000).unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_leaves_when_more_is_configured() {
    let bench = bench(1);
    let held = bench.permit(1).await;
    let mut waits = bench.join(1, W * 3).unwrap();
    let before = bench.clock.now();
    let mut spec = bench.spec.clone();
    spec.rate.limit = 2;
    let other = BudgetSpec {
        name: "other".into(),
        ..spec.clone()
    };
    let named = |spec: BudgetSpec| HashMap::from_iter([(spec.name.clone(), spec)]);
    bench.budgets.configure(&named(other));
    let early = tokio::time::timeout(Duration::from_secs(1), waits.granted()).await;
    assert!(early.is_err(), "another budget's limit is none of its");
    bench.budgets.configure(&named(spec));
    let permit = waits.granted().await.unwrap();
    assert_eq!(bench.clock.now(), before + Duration::from_secs(1));
    assert_eq!(
        bench.budgets.snapshot()[0].occupied,
        2,
        "the first is still counted"
    );
    drop((held, permit));
}

#[tokio::test(start_paused = true)]
async fn less_room_keeps_those_who_wait() {
    let bench = bench(1);
    let _held = bench.permit(1).await;
    let tickets = [bench.join(1, W * 9).unwrap(), bench.join(2, W * 9).unwrap()];
    let lines = LineBounds {
        per_budget: 1,
        total: 15,
        bytes: 10_000,
    };
    bench.budgets.set_line_bounds(lines);
    assert_eq!(bench.budgets.waiting(), 2);
    assert!(matches!(
        bench.join(3, W * 9),
        Err(BudgetRefusal::Full { .. })
    ));
    drop(tickets);
    assert!(bench.join(3, W * 9).is_ok());
}

/// A request whose body was still coming when another limit was configured.
#[tokio::test(start_paused = true)]
async fn whoever_was_understood_before_opens_no_budget_at_the_old_limit() {
    let bench = bench(60);
    let mut spec = bench.spec.clone();
    spec.rate.limit = 20;
    let changed = HashMap::from_iter([(spec.name.clone(), spec)]);
    bench.budgets.configure(&changed);
    drop(bench.permit(1).await);
    assert_eq!(bench.budgets.snapshot()[0].rate.limit, 20);
}

/// A drain takes requests out of their lines without looking at the budgets again.
#[tokio::test(start_paused = true)]
async fn the_entry_of_a_forgotten_budget_does_not_keep_the_driver_busy() {
    let bench = bench(1);
    let _ = bench.permit(1).await.end(AttemptEnd::NoAnswer);
    let mut waits = bench.join(1, W * 9).unwrap();
    waits.ready();
    let mut state = bench.budgets.shared.state.lock();
    let later = bench.clock.now() + W * 9;
    state.accounts.clear();
    assert_eq!(state.wakes.len(), 1, "it was to be looked at");
    assert!(state.take_due(bench.clock.now()).is_none(), "not yet");
    assert!(state.take_due(later).is_some());
    assert!(state.take_due(later).is_none() && state.wakes.is_empty());
}

/// More lines than a refusal looks at: the earliest departure is found by its instant.
#[tokio::test(start_paused = true)]
async fn a_refusal_among_many_lines_tells_when_the_first_request_leaves() {
    const LINES: u8 = 200;
    let bench = bench(1);
    let request = |n: u8| BudgetRequest {
        credential: Credential::from_bytes([n; 16]),
        ..bench.budget_request(n, W * 3, 10)
    };
    let lines = LineBounds {
        per_budget: 10,
        total: LINES.into(),
        bytes: 1_000_000,
    };
    bench.budgets.set_line_bounds(lines);
    let start = bench.clock.now();
    let mut waiting = Vec::new();
    // The last one is the first whose slot was used.
    for n in (0..LINES).rev() {
        let mut permit = bench
            .budgets
            .join(&request(n))
            .unwrap()
            .granted()
            .await
            .unwrap();
        permit.begin();
        permit.end(AttemptEnd::Answered(None));
        waiting.push(bench.budgets.join(&request(n)).unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let by_bytes = LineBounds {
        total: 1_000,
        bytes: usize::from(LINES) * 10,
        ..lines
    };
    for bounds in [lines, by_bytes] {
        bench.budgets.set_line_bounds(bounds);
        let refused = bench.budgets.join(&request(LINES)).unwrap_err();
        let first = waiting[0].estimate() - bench.clock.now();
        let retry_after = whole_seconds(first);
        assert_eq!(refused, BudgetRefusal::Full { retry_after });
    }
    let lines = bench.budgets.shared.state.lock().load.lines.len();
    assert_eq!(lines, usize::from(LINES));
    tokio::time::sleep(start + W + Duration::from_secs(2) - bench.clock.now()).await;
    let admitted = bench.budgets.join(&request(LINES)).unwrap();
    drop((admitted, waiting));
    let state = bench.budgets.shared.state.lock();
    assert!(state.load.lines.is_empty() && state.principals.is_empty());
}
