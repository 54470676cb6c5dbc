//! Pure. When a write would leave: copies of budgets and lanes are run forward until it does.
//!
//! The estimate of one budget alone knows when lanes were expected to open when their writes were
//! accepted, not what has happened to those since. Where it would refuse a write, this looks
//! closer: it lets everybody who waits leave in turn, answers them after the time that answers
//! take, and opens their lanes. What it finds holds if nothing new comes and answers take no
//! longer than they did. It is given up where too many wait for it to be worth its time.

use crate::limit::account::{Account, Next};
use crate::limit::turns::{Caller, Place, Urgency};
use crate::limit::window::{End, Slot};
use crate::queue::lanes::{Keys, Lanes, Turn};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Those who may wait for the budgets of a credential for it to be worth looking closer: before a
/// write is refused, and before one is accepted whose lanes are closed.
pub(crate) const MOST_WAITING: usize = 1_000;
pub(crate) const MOST_WAITING_IN_LANES: usize = 200;
/// How often another time to come back is tried.
const MOST_TRIES: usize = 6;
/// The newcomer's place and turn: after everybody's.
const NEWCOMER: Place = Place::MAX;
const LAST_TURN: Turn = Turn::MAX;
const SECOND: Duration = Duration::from_secs(1);
/// How much sooner somebody should leave who is told when to come back.
const MARGIN: Duration = Duration::from_millis(250);
/// How things may turn out. Where several are after one slot a moment decides who has it, so
/// nothing is promised that would not hold in all of these cases.
#[derive(Clone, Copy, Debug)]
struct Luck {
    /// How much later than it was told the newcomer comes.
    later: Duration,
    /// How much later than the others it is ready.
    handicap: Duration,
    /// How much longer than is known each answer takes: timers are not exact.
    drift: Duration,
}

impl Luck {
    const USUAL: Self = Self {
        later: Duration::ZERO,
        handicap: Duration::ZERO,
        drift: Duration::from_millis(3),
    };
    const LOSES: Self = Self {
        handicap: Duration::from_millis(500),
        ..Self::USUAL
    };
    const COMES_LATE: Self = Self {
        later: Duration::from_millis(100),
        ..Self::USUAL
    };
    const ALL_IS_SLOW: Self = Self {
        drift: Duration::from_millis(50),
        ..Self::USUAL
    };
    const ALL: [Self; 4] = [
        Self::USUAL,
        Self::LOSES,
        Self::COMES_LATE,
        Self::ALL_IS_SLOW,
    ];
}

/// What waits for the budgets of one credential, and in its lanes.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// Copies of the budgets, by name.
    pub accounts: Vec<(Arc<str>, Account)>,
    /// A copy of the lanes.
    pub lanes: Lanes,
    /// The instant at which they were copied.
    pub now: Instant,
}

/// A write that is not there yet.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer<'a> {
    /// Its budget.
    pub budget: &'a str,
    /// Who asks.
    pub caller: &'a Caller,
    /// How urgent it is among what its caller has waiting.
    pub urgency: Urgency,
    /// What it acts on.
    pub keys: &'a Keys,
    /// How long it would wait.
    pub patience: Duration,
    /// How many may wait for its budget; one peer may have half of that.
    pub most: usize,
}

impl Forecast {
    /// When the newcomer leaves if it comes now; `None` if there is no room for it, or no telling.
    pub fn leaves(&self, newcomer: &Newcomer<'_>) -> Option<Instant> {
        let leaves = Run::new(self).until_it_leaves(newcomer, self.now, Luck::USUAL)?;
        if leaves == self.now {
            return Some(leaves);
        }
        let loses = Run::new(self).until_it_leaves(newcomer, self.now, Luck::LOSES)?;
        Some(loses.max(leaves))
    }

    /// After how many seconds it can come back and leave within its patience; at the latest when
    /// everybody else has gone.
    pub fn comes_back(&self, newcomer: &Newcomer<'_>) -> Duration {
        let first = self.leaves(newcomer).unwrap_or(self.now);
        let early = first.checked_sub(newcomer.patience).unwrap_or(self.now);
        if self.is_contended(newcomer) {
            // Who gets which slot is decided by who is through its lanes a moment sooner. Only
            // that everybody has left at some time is sure, and whoever comes has left by then.
            let all_left = Luck::ALL.map(|luck| Run::new(self).until_all_left(newcomer, luck));
            let all_left = all_left.into_iter().flatten().max().unwrap_or(self.now);
            let patience = newcomer.patience.saturating_sub(MARGIN);
            let early = early.max(all_left.checked_sub(patience).unwrap_or(self.now));
            return whole_seconds(early.saturating_duration_since(self.now));
        }
        let mut after = whole_seconds(early.saturating_duration_since(self.now));
        for _ in 0..MOST_TRIES {
            let comes = self.now + after;
            let waits = |luck: Luck| {
                let comes = comes + luck.later;
                let leaves = Run::new(self).until_it_leaves(newcomer, comes, luck)?;
                Some(leaves.saturating_duration_since(comes))
            };
            // Whoever can leave at once is accepted for that; of the others more is asked, and
            // what they are told has to hold then as well (see `leaves`).
            let at_once = waits(Luck::USUAL).is_some_and(|wait| wait.is_zero());
            let patience = newcomer.patience.saturating_sub(MARGIN);
            let late = Luck::ALL.map(|luck| {
                let allowed = if at_once {
                    patience + luck.handicap
                } else {
                    patience
                };
                // Without a time there is no room yet.
                waits(luck).map_or(SECOND, |wait| wait.saturating_sub(allowed))
            });
            let late = late.into_iter().max().unwrap_or_default();
            if late.is_zero() {
                return after;
            }
            after += whole_seconds(late);
        }
        let mut accounts = self.accounts.iter();
        let own = accounts.find(|(name, _)| **name == *newcomer.budget);
        let last = own.map_or(self.now, |(_, own)| own.clone().leaves_last(self.now));
        after.max(whole_seconds(last.saturating_duration_since(self.now)))
    }

    /// Whether somebody waits for a lane rather than for its turn, or the newcomer would.
    fn is_contended(&self, newcomer: &Newcomer<'_>) -> bool {
        self.lanes.any_blocked() || !self.lanes.are_free(newcomer.keys)
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(SECOND)
}

/// What happens at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A write that had left before the run has settled.
    Settled(Turn),
    /// An attempt of this budget that had left before the run is answered.
    AnsweredUnseen(usize),
    /// The attempt with this number is answered.
    Answered(usize),
    /// The newcomer may go.
    Ready,
}

/// An attempt that left during the run.
struct Sent {
    account: usize,
    slot: Slot,
    turn: Option<Turn>,
}

struct Run {
    accounts: Vec<(Arc<str>, Account)>,
    lanes: Lanes,
    now: Instant,
    /// The write of each place, and the budget and place of each write.
    turns: HashMap<Place, Turn>,
    places: HashMap<Turn, (usize, Place)>,
    events: BinaryHeap<Reverse<(Instant, Event)>>,
    sent: Vec<Option<Sent>>,
    luck: Luck,
}

impl Run {
    fn new(from: &Forecast) -> Self {
        let mut run = Self {
            accounts: from.accounts.clone(),
            lanes: from.lanes.clone(),
            now: from.now,
            turns: HashMap::new(),
            places: HashMap::new(),
            events: BinaryHeap::new(),
            sent: Vec::new(),
            luck: Luck::USUAL,
        };
        let mut budgets = HashMap::new();
        for (number, (_, account)) in run.accounts.iter_mut().enumerate() {
            budgets.extend(account.turns().places().map(|place| (place, number)));
            for answered in account.answers(from.now) {
                run.events
                    .push(Reverse((answered, Event::AnsweredUnseen(number))));
            }
        }
        for (turn, place, expected) in from.lanes.writes() {
            match budgets.get(&place) {
                Some(number) => {
                    run.turns.insert(place, turn);
                    run.places.insert(turn, (*number, place));
                }
                // It has left: it settles when it is expected to.
                None => run
                    .events
                    .push(Reverse((expected.max(from.now), Event::Settled(turn)))),
            }
        }
        run
    }

    /// Runs until the newcomer leaves who comes at `comes`.
    fn until_it_leaves(
        mut self,
        newcomer: &Newcomer<'_>,
        comes: Instant,
        luck: Luck,
    ) -> Option<Instant> {
        self.luck = luck;
        let mut joined = false;
        // Each step sends or ends somebody's attempt, or is a time at which that may be.
        for _ in 0..MOST_WAITING * 8 {
            self.happen();
            if !joined && self.now >= comes {
                if !self.has_room(newcomer) {
                    return None;
                }
                self.join(newcomer)?;
                joined = true;
            }
            let (left, wake) = self.send();
            if left {
                return Some(self.now);
            }
            self.step(wake, (!joined).then_some(comes))?;
        }
        None
    }

    /// Runs until nobody waits any more for a budget that is the newcomer's or has to do with
    /// lanes; the newcomer is counted, whether there is room for it or not.
    fn until_all_left(mut self, newcomer: &Newcomer<'_>, luck: Luck) -> Option<Instant> {
        self.luck = luck;
        self.join(newcomer)?;
        let involved: BTreeSet<usize> = self.places.values().map(|(number, _)| *number).collect();
        for _ in 0..MOST_WAITING * 8 {
            self.happen();
            let (_, wake) = self.send();
            let accounts = &mut self.accounts;
            if involved.iter().all(|n| accounts[*n].1.turns().is_empty()) {
                return Some(self.now);
            }
            self.step(wake, None)?;
        }
        None
    }

    /// On to the next instant at which something happens.
    fn step(&mut self, wake: Option<Instant>, coming: Option<Instant>) -> Option<()> {
        let next = self.events.peek().map(|Reverse((at, _))| *at);
        let next = [next, wake, coming].into_iter().flatten().min()?;
        self.now = next.max(self.now);
        Some(())
    }

    fn has_room(&mut self, newcomer: &Newcomer<'_>) -> bool {
        let mut accounts = self.accounts.iter_mut();
        let own = accounts.find(|(name, _)| **name == *newcomer.budget);
        own.is_some_and(|(_, own)| {
            let (turns, most) = (own.turns(), newcomer.most);
            turns.len() < most && !turns.has_share(newcomer.caller, most)
        })
    }

    /// Whatever is due.
    fn happen(&mut self) {
        while let Some(Reverse((at, event))) = self.events.peek().copied() {
            if at > self.now {
                return;
            }
            self.events.pop();
            match event {
                Event::Settled(turn) => self.settle(turn),
                Event::Ready => {
                    if let Some((account, place)) = self.places.get(&LAST_TURN) {
                        self.accounts[*account].1.turns().ready(*place);
                    }
                }
                Event::AnsweredUnseen(number) => self.accounts[number].1.answered_unseen(),
                Event::Answered(number) => {
                    let Some(sent) = self.sent[number].take() else {
                        continue;
                    };
                    let account = &mut self.accounts[sent.account].1;
                    let answer = account.answer_time();
                    account.end(sent.slot, End::Answered(None), answer, self.now);
                    if let Some(turn) = sent.turn {
                        self.settle(turn);
                    }
                }
            }
        }
    }

    fn settle(&mut self, turn: Turn) {
        for ready in self.lanes.settle(turn) {
            if ready == LAST_TURN {
                self.newcomer_is_ready();
            } else if let Some((account, place)) = self.places.get(&ready) {
                self.accounts[*account].1.turns().ready(*place);
            }
        }
    }

    fn join(&mut self, newcomer: &Newcomer<'_>) -> Option<()> {
        let accounts = self.accounts.iter();
        let number = accounts
            .enumerate()
            .find(|(_, (name, _))| **name == *newcomer.budget)?
            .0;
        let turns = self.accounts[number].1.turns();
        let caller = newcomer.caller.clone();
        turns.join(NEWCOMER, caller, newcomer.urgency, self.now);
        let keys = newcomer.keys;
        self.turns.insert(NEWCOMER, LAST_TURN);
        self.places.insert(LAST_TURN, (number, NEWCOMER));
        if keys.is_empty()
            || self
                .lanes
                .enter(LAST_TURN, keys.clone(), self.now, NEWCOMER)
        {
            self.newcomer_is_ready();
        }
        self.happen();
        Some(())
    }

    fn newcomer_is_ready(&mut self) {
        let ready = self.now + self.luck.handicap;
        self.events.push(Reverse((ready, Event::Ready)));
    }

    /// Lets go whoever may; whether the newcomer was among them, and when to look again.
    fn send(&mut self) -> (bool, Option<Instant>) {
        let (mut left, mut wake) = (false, None::<Instant>);
        let turns = &self.turns;
        for (number, (_, account)) in self.accounts.iter_mut().enumerate() {
            let answer = account.answer_time() + self.luck.drift;
            loop {
                match account.next(self.now) {
                    Next::Go(place, slot) => {
                        left |= place == NEWCOMER;
                        let answered = Event::Answered(self.sent.len());
                        self.events.push(Reverse((self.now + answer, answered)));
                        self.sent.push(Some(Sent {
                            account: number,
                            slot,
                            turn: turns.get(&place).copied(),
                        }));
                    }
                    Next::Wait(at) => {
                        wake = Some(wake.map_or(at, |wake| wake.min(at)));
                        break;
                    }
                    Next::Idle => break,
                }
            }
        }
        (left, wake)
    }
}

#[cfg(test)]
mod tests;
