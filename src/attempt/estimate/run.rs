//! Pure. The simulation behind an estimate: copies of budgets and lanes, and a clock that jumps
//! from event to event.

use crate::caller::Caller;
use crate::lanes::{Keys, LaneOrder, Turn};
use crate::limit::account::{Account, Next};
use crate::limit::turns::{LinePosition, Urgency};
use crate::limit::window::{AttemptEnd, Slot};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most requests queued for the budgets of a credential for a run: before a write is rejected,
/// and before a write with closed lanes is accepted.
pub(crate) const MOST_WAITING: usize = 1_000;
pub(crate) const MOST_WAITING_IN_LANES: usize = 200;
/// The most unsettled writes of a credential for a run: those that are queued, and as many that are
/// in flight, settling or deferred.
pub(crate) const MOST_UNSETTLED: usize = 2 * MOST_WAITING;
/// The most steps of a run. Each step starts or ends an attempt, or is an instant at which that is
/// possible, so no run needs more. The bound protects against a run without end.
const MOST_STEPS: usize = MOST_WAITING * 8;
/// The position and the turn of the new write: behind all others.
const NEWCOMER: LinePosition = LinePosition::MAX;
const LAST_TURN: Turn = Turn::MAX;

/// The circumstances of a run. Where several requests compete for a slot, a moment decides which
/// gets it. So nothing is promised that does not hold under all circumstances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Luck {
    /// The delay of the new write after the time that it was told.
    pub(super) later: Duration,
    /// The delay of the new write against others that become ready at the same time.
    pub(super) handicap: Duration,
    /// The extra time of each response: timers are not exact.
    drift: Duration,
}

impl Luck {
    /// Everything happens when it is expected to.
    pub(super) const USUAL: Self = Self {
        later: Duration::ZERO,
        handicap: Duration::ZERO,
        drift: Duration::from_millis(3),
    };
    /// The new write is ready at the same time as others, and all of them go first.
    pub(super) const LOSES: Self = Self {
        handicap: Duration::from_millis(500),
        ..Self::USUAL
    };
    /// The caller comes back a little late, and others have come before it.
    const COMES_LATE: Self = Self {
        later: Duration::from_millis(100),
        ..Self::USUAL
    };
    /// Each response takes longer than any before.
    const ALL_IS_SLOW: Self = Self {
        drift: Duration::from_millis(50),
        ..Self::USUAL
    };
    /// All circumstances under which a promise must hold.
    pub(super) const ALL: [Self; 4] = [
        Self::USUAL,
        Self::LOSES,
        Self::COMES_LATE,
        Self::ALL_IS_SLOW,
    ];
}

/// A write that is not queued yet.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer<'a> {
    /// The name of its budget.
    pub budget: &'a str,
    /// Its caller.
    pub caller: &'a Caller,
    /// Its urgency among the queued requests of its caller.
    pub urgency: Urgency,
    /// Its order keys.
    pub keys: &'a Keys,
    /// The longest time that it would wait.
    pub patience: Duration,
    /// The most requests that may be queued for its budget. One peer may have half of that.
    pub most: usize,
}

/// An event of a run.
///
/// The order of the variants is the order of events at one instant: settled writes open their lanes
/// before the new write becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A write that was in flight at the copy has settled.
    Settled(Turn),
    /// An attempt of this budget that was in flight at the copy got its response.
    AnsweredUnseen(usize),
    /// The attempt with this number got its response.
    Answered(usize),
    /// The new write is ready for its turn.
    Ready,
}

/// An attempt sent during the run. `account` is the index of its budget; `turn` is that of a write,
/// and `None` for a read.
struct Sent {
    account: usize,
    slot: Slot,
    turn: Option<Turn>,
}

/// A discrete-event simulation. `events` has the known future. Each step moves `now` to the next
/// event or to the next instant at which a budget has a slot, and then does what the gateway would
/// do: it opens lanes, lets the new write join, and sends whatever has a turn and a slot.
///
/// The budgets are copies of the real accounts, so that the simulation takes turns and slots by the
/// very rules of the gateway. Only the response times are guesses.
pub(super) struct Run {
    accounts: Vec<(Arc<str>, Account)>,
    lanes: LaneOrder,
    now: Instant,
    /// The write at each position. Reads are in the lines as well, but not here.
    turns: HashMap<LinePosition, Turn>,
    /// The budget of each write, by its index, and the position in its line.
    places: HashMap<Turn, (usize, LinePosition)>,
    /// The earliest event first.
    events: BinaryHeap<Reverse<(Instant, Event)>>,
    /// The attempts sent during the run, by the number in [`Event::Answered`]. `None` once
    /// answered.
    sent: Vec<Option<Sent>>,
    luck: Luck,
}

impl Run {
    /// A run that begins at `now` with these budgets and lanes, which it uses up.
    pub(super) fn new(accounts: Vec<(Arc<str>, Account)>, lanes: LaneOrder, now: Instant) -> Self {
        let mut run = Self {
            accounts,
            lanes,
            now,
            turns: HashMap::new(),
            places: HashMap::new(),
            events: BinaryHeap::new(),
            sent: Vec::new(),
            luck: Luck::USUAL,
        };
        // What is in flight ends at its usual time; nothing else is known of it.
        let mut budgets = HashMap::new();
        for (number, (_, account)) in run.accounts.iter_mut().enumerate() {
            budgets.extend(account.turns().places().map(|place| (place, number)));
            for answered in account.answers(now) {
                run.events
                    .push(Reverse((answered, Event::AnsweredUnseen(number))));
            }
        }
        // A write that is in no line was sent before the copy, or waits for something that is not a
        // budget. It keeps its lanes closed until it is expected to have settled.
        for (turn, place, expected) in run.lanes.writes() {
            match budgets.get(&place) {
                Some(number) => {
                    run.turns.insert(place, turn);
                    run.places.insert(turn, (*number, place));
                }
                None => run
                    .events
                    .push(Reverse((expected.max(now), Event::Settled(turn)))),
            }
        }
        run
    }

    /// Runs until the new write, which arrives at `comes`, is sent. Returns `None` if there is no
    /// room when it arrives, or if the run ends without a result.
    pub(super) fn until_it_leaves(
        mut self,
        newcomer: &Newcomer<'_>,
        comes: Instant,
        luck: Luck,
    ) -> Option<Instant> {
        self.luck = luck;
        // The events of an instant come first: a settled write may open the lanes of the new one,
        // and a response may return the slot that it gets.
        let mut joined = false;
        for _ in 0..MOST_STEPS {
            self.happen();
            if !joined && self.now >= comes {
                // What was sent until then has made room; what is left may still fill the line.
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

    /// Runs until nothing is queued for the budgets that have the new write or writes with lanes.
    /// The new write is queued regardless of room.
    pub(super) fn until_all_left(mut self, newcomer: &Newcomer<'_>, luck: Luck) -> Option<Instant> {
        self.luck = luck;
        self.join(newcomer)?;
        let involved: BTreeSet<usize> = self.places.values().map(|(number, _)| *number).collect();
        for _ in 0..MOST_STEPS {
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

    /// Moves to the next instant at which something happens. Returns `None` if there is none.
    fn step(&mut self, wake: Option<Instant>, coming: Option<Instant>) -> Option<()> {
        let next = self.events.peek().map(|Reverse((at, _))| *at);
        let next = [next, wake, coming].into_iter().flatten().min()?;
        self.now = next.max(self.now);
        Some(())
    }

    /// Whether the line of the new write's budget has room for it.
    fn has_room(&mut self, newcomer: &Newcomer<'_>) -> bool {
        let mut accounts = self.accounts.iter_mut();
        let own = accounts.find(|(name, _)| **name == *newcomer.budget);
        own.is_some_and(|(_, own)| {
            let (turns, most) = (own.turns(), newcomer.most);
            turns.len() < most && !turns.has_share(newcomer.caller, most)
        })
    }

    /// Applies all events that are due.
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
                    // A slot is returned before the lanes open, as in the real order: the response
                    // ends the attempt, then the write settles.
                    account.end(sent.slot, AttemptEnd::Answered(None), answer, self.now);
                    if let Some(turn) = sent.turn {
                        self.settle(turn);
                    }
                }
            }
        }
    }

    /// Opens the lanes of a write. Those that only waited for it are ready for their turn.
    fn settle(&mut self, turn: Turn) {
        for ready in self.lanes.settle(turn) {
            if ready == LAST_TURN {
                self.newcomer_is_ready();
            } else if let Some((account, place)) = self.places.get(&ready) {
                self.accounts[*account].1.turns().ready(*place);
            }
        }
    }

    /// Adds the new write to its lanes and to the line of its budget, behind all others. Returns
    /// `None` if the budget is not among the copies.
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

    /// Makes the new write ready for its turn, after its handicap.
    fn newcomer_is_ready(&mut self) {
        let ready = self.now + self.luck.handicap;
        self.events.push(Reverse((ready, Event::Ready)));
    }

    /// Sends everything that has a turn and a slot. Returns whether the new write was among it, and
    /// when the next slot is free.
    fn send(&mut self) -> (bool, Option<Instant>) {
        // A budget without a slot wakes the run when it has one; a response may come earlier.
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
