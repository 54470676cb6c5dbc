//! Random orders of reads and writes on the real cache, against an upstream that lags.
//!
//! The upstream is a number: how many writes are visible. A write takes effect, is answered, and
//! is visible to reads up to `LAG` after its answer at the latest. No reader may be shown less
//! than what was answered and visible when it began. The failing seed is printed.

use super::*;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

const LAG: Duration = Duration::from_secs(3);
const SEEDS: u64 = 3_000;
const STEPS: usize = 60;

/// What the gateway under test does after a write.
#[derive(Clone, Copy, Debug)]
enum Gateway {
    Correct,
    /// Does not know that the upstream lags.
    Impatient,
    /// Forgets to judge at hand-over, and to settle before the caller hears.
    Late,
    /// Takes a stamp again when the answer has come.
    StampsAfterwards,
    /// Does not say when a fetch leaves, so that it is joined as one that has not.
    LeavesInSilence,
}

/// The state of one reader; its answer is a number of visible writes.
enum Reader {
    Queued(Leader),
    Sent(Leader),
    Answered(Leader, u64),
    Waiting(Option<Stamp>, Pin<Box<dyn Future<Output = FetchOutcome>>>),
    Alone,
}

struct World {
    random: u64,
    gateway: Gateway,
    now: Instant,
    cache: Arc<Cache>,
    /// For each write that took effect: whether it was answered, and when it is visible at last.
    writes: Vec<(bool, Instant)>,
    /// What was visible once stays so.
    visible: u64,
    readers: Vec<(u64, CacheKey, Reader)>,
    unsettled: Vec<Instant>,
    shown: u64,
    hits: u64,
    stale: u64,
}

impl World {
    fn new(seed: u64, gateway: Gateway) -> Self {
        Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            gateway,
            now: now(),
            cache: cache(),
            writes: Vec::new(),
            visible: 0,
            readers: Vec::new(),
            unsettled: Vec::new(),
            shown: 0,
            hits: 0,
            stale: 0,
        }
    }

    /// xorshift64: any sequence will do, so long as the seed repeats it.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn step(&mut self) {
        match self.below(12) {
            0 | 1 => {
                let halves = self.below(8);
                self.now += Duration::from_millis(500 * halves);
            }
            2 => self
                .writes
                .push((false, self.now + Duration::from_secs(100_000))),
            3 => self.answer_write(),
            4..=6 => self.begin_reader(),
            _ => self.move_reader(),
        }
        // The upstream shows some of what it must not show yet, in order.
        let due = self
            .writes
            .iter()
            .take_while(|(_, at)| *at <= self.now)
            .count() as u64;
        let most = self.writes.len() as u64;
        let early = if self.below(4) == 0 { 1 } else { 0 };
        self.visible = self.visible.max(due).max((self.visible + early).min(most));
    }

    fn answer_write(&mut self) {
        if matches!(self.gateway, Gateway::Late) {
            for settled in std::mem::take(&mut self.unsettled) {
                self.cache.settle(&wrote_users(), settled);
            }
        }
        let now = self.now;
        let Some(write) = self.writes.iter_mut().find(|(answered, _)| !answered) else {
            return;
        };
        *write = (true, now + LAG);
        match self.gateway {
            Gateway::Impatient => self.cache.settle(&wrote_users(), now),
            Gateway::Late => self.unsettled.push(now + LAG),
            _ => self.cache.settle(&wrote_users(), now + LAG),
        }
    }

    /// What was answered and is visible.
    fn expected(&self) -> u64 {
        let answered = self
            .writes
            .iter()
            .take_while(|(answered, _)| *answered)
            .count() as u64;
        answered.min(self.visible)
    }

    fn begin_reader(&mut self) {
        let credential = if self.below(3) == 0 { BOB } else { ALICE };
        let mode = if self.below(6) == 0 {
            Wants::RELOAD
        } else {
            Wants::FRESH
        };
        let key = key(credential, "/users");
        let expected = self.expected();
        self.decision(expected, key, mode);
    }

    fn decision(&mut self, expected: u64, key: CacheKey, mode: Wants) {
        let reader = match board_as(&self.cache, &key, mode, self.now) {
            Join::Hit(entry, _) => {
                self.hits += 1;
                return self.show(expected, &entry);
            }
            Join::Follow(follower) => Reader::Waiting(follower.came(), Box::pin(ended(follower))),
            Join::Lead(leader) => Reader::Queued(leader),
            Join::Alone(_) => Reader::Alone,
        };
        self.readers.push((expected, key, reader));
    }

    fn move_reader(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let index = self.below(self.readers.len() as u64) as usize;
        let (expected, key, reader) = self.readers.swap_remove(index);
        let reader = match reader {
            Reader::Queued(leader) if self.below(10) == 0 => return drop(leader),
            Reader::Queued(mut leader) => {
                if !matches!(self.gateway, Gateway::LeavesInSilence) {
                    leader.start(self.now);
                }
                Reader::Sent(leader)
            }
            // A 429.
            Reader::Sent(leader) if self.below(10) == 0 => {
                leader.flight.requeue();
                Reader::Queued(leader)
            }
            Reader::Sent(leader) => Reader::Answered(leader, self.visible),
            Reader::Answered(mut leader, version) => {
                if matches!(self.gateway, Gateway::StampsAfterwards) {
                    leader.start(self.now);
                }
                let completed = finish(leader, &version.to_string(), self.now);
                return self.show(expected, &completed.entry.unwrap());
            }
            Reader::Waiting(came, mut waiting) => {
                let accepts = |entry: &Entry| self.cache.accepts(entry, came, &HeaderMap::new());
                match waiting
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                {
                    Poll::Pending => Reader::Waiting(came, waiting),
                    Poll::Ready(FetchOutcome::Shared(entry)) if accepts(&entry) => {
                        return self.show(expected, &entry);
                    }
                    Poll::Ready(_) => return self.decision(expected, key, Wants::FRESH),
                }
            }
            // Straight from upstream at this moment.
            Reader::Alone => return,
        };
        self.readers.push((expected, key, reader));
    }

    fn show(&mut self, expected: u64, entry: &Entry) {
        let version: u64 = std::str::from_utf8(entry.body()).unwrap().parse().unwrap();
        self.shown += 1;
        self.stale += u64::from(version < expected);
    }
}

/// Answers shown, hits among them, stale ones among them.
fn run(gateway: Gateway) -> (u64, u64, u64) {
    let mut sum = (0, 0, 0);
    for seed in 1..=SEEDS {
        let mut world = World::new(seed, gateway);
        for _ in 0..STEPS {
            world.step();
        }
        if matches!(gateway, Gateway::Correct) {
            assert_eq!(world.stale, 0, "seed {seed}");
        }
        sum = (sum.0 + world.shown, sum.1 + world.hits, sum.2 + world.stale);
    }
    sum
}

#[test]
fn no_random_order_shows_a_stale_answer() {
    let (shown, hits, stale) = run(Gateway::Correct);
    assert!(
        shown > 4 * SEEDS && hits > SEEDS,
        "{shown} shown, {hits} hits: too few to tell"
    );
    assert_eq!(stale, 0);
}

#[test]
fn the_orders_notice_a_gateway_that_breaks_the_rules() {
    for gateway in [
        Gateway::Impatient,
        Gateway::Late,
        Gateway::StampsAfterwards,
        Gateway::LeavesInSilence,
    ] {
        assert!(run(gateway).2 > 0, "{gateway:?}");
    }
}
