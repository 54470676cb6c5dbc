//! Pure. Which of the deferred writes are brought before their budgets.
//!
//! There may be a hundred thousand of them, far more than may wait for a budget. Of the writes of
//! one credential and operation a few stand before the budget ([`AT_ONCE`]): enough that no slot is
//! left unused, and that a batch can be full. Callers take turns in being scheduled, with as many
//! writes in each as the weight of their client says: what stands before the budget would otherwise
//! undo the weights there. Within a caller the more urgent come first, but every fourth is the
//! oldest, so that none starves. Writes whose lanes are closed wait here and keep no other from the
//! line, with one exception: a write that could join a batch with those before the budget is
//! scheduled as well.

use crate::credential::Credential;
use crate::lanes::Turn;
use crate::limit::turns::{ClientWeights, Urgency};
use group::DeferredGroup;
use line::{DeferredLine, GroupKey};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

mod group;
mod line;

pub use line::LineKey;

/// The most writes of one credential and operation before their budget.
pub const AT_ONCE: usize = 64;
/// The most writes of all before their budgets: a tenth of what may wait for budgets by default.
const MOST: usize = 1_000;

/// All writes that wait to be scheduled; `T` is a write.
#[derive(Debug)]
pub struct Scheduler<T> {
    /// A line whose last write left is forgotten at its next turn, so memory is bounded by what
    /// waits.
    lines: HashMap<LineKey, DeferredLine>,
    /// The groups that may have a write to schedule, in the order of their turns; each once. A
    /// group that has none leaves the ring until something changes in it.
    ring: VecDeque<GroupKey>,
    /// The same writes and those before their budgets, by credential and operation.
    groups: HashMap<GroupKey, DeferredGroup>,
    /// The number of all writes before their budgets; at most [`MOST`].
    stand: usize,
    /// Every write that waits here, with what is needed to find it in its line.
    writes: HashMap<Turn, (T, LineKey, Urgency)>,
    /// The pauses, and since when. Several may hold back one write; each ends by itself.
    paused: HashMap<Pause, Instant>,
    /// The weights of all clients: how many writes of a line go in its turn.
    weights: Arc<ClientWeights>,
}

/// A set of writes that are not scheduled for now.
///
/// They keep their places, and other lines go on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pause {
    /// All of a credential.
    Credential(Credential),
    /// All of a credential that the API no longer accepts.
    Refused(Credential),
    /// All of one operation, of one credential or of every one.
    Operation(Option<Credential>, Arc<str>),
}

impl<T> Default for Scheduler<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            ring: VecDeque::new(),
            groups: HashMap::new(),
            stand: 0,
            writes: HashMap::new(),
            paused: HashMap::new(),
            weights: Arc::default(),
        }
    }
}

impl<T> Scheduler<T> {
    /// Returns the number of writes that wait here.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Returns whether no write waits here.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Adds a write; the turn is that of its lanes, and `is_ready` says whether they are open.
    pub fn enter(&mut self, turn: Turn, write: T, line: LineKey, urgency: Urgency, is_ready: bool) {
        let waiting = self.lines.entry(line.clone()).or_default();
        waiting.blocked.insert(turn);
        let group = self.groups.entry(line.group()).or_default();
        group.waiting.insert(turn);
        if line.merges && !std::mem::replace(&mut waiting.in_followers, true) {
            group.followers.push_back(line.clone());
        }
        self.wake(&line.group());
        self.writes.insert(turn, (write, line, urgency));
        if is_ready {
            self.ready(turn);
        }
    }

    /// Notes that the lanes of a write have opened. Nothing happens if it is not here.
    pub fn ready(&mut self, turn: Turn) {
        let Some((_, key, urgency)) = self.writes.get(&turn) else {
            return;
        };
        let (key, urgency) = (key.clone(), *urgency);
        let (Some(line), Some(group)) =
            (self.lines.get_mut(&key), self.groups.get_mut(&key.group()))
        else {
            return;
        };
        if line.blocked.remove(&turn) {
            line.ready.insert(turn, urgency);
            if !std::mem::replace(&mut line.in_ring, true) {
                group.ring.push_back(key.clone());
            }
            self.wake(&key.group());
        }
    }

    /// Removes a write.
    pub fn leave(&mut self, turn: Turn) -> Option<T> {
        let (write, key, urgency) = self.writes.remove(&turn)?;
        if let Some(line) = self.lines.get_mut(&key) {
            line.ready.remove(turn, urgency);
            line.blocked.remove(&turn);
            if line.is_forgotten() {
                self.lines.remove(&key);
            }
        }
        if let Some(group) = self.groups.get_mut(&key.group()) {
            group.waiting.remove(&turn);
        }
        // One that waited behind it may join a batch now.
        self.wake(&key.group());
        Some(write)
    }

    /// Lets the next call of [`Scheduler::schedule`] look at a group, because something has changed
    /// in it.
    fn wake(&mut self, key: &GroupKey) {
        if let Some(group) = self.groups.get_mut(key)
            && !std::mem::replace(&mut group.in_ring, true)
        {
            self.ring.push_back(key.clone());
        }
    }

    /// Returns the writes that are brought before their budgets now, each with its turn and line.
    /// They count until [`Scheduler::gone`] is called with these. `follows` says whether a write
    /// waits in its lanes for no others than these.
    ///
    /// Groups take turns, and the lines of a group do, however many writes each of them has; only
    /// the lines have weights. Groups in which nothing has changed are not looked at.
    pub fn schedule(
        &mut self,
        follows: impl Fn(Credential, Turn, &BTreeSet<Turn>) -> bool,
    ) -> Vec<(T, Turn, LineKey)> {
        let mut scheduled = Vec::new();
        while self.stand < MOST {
            let Some(key) = self.ring.pop_front() else {
                break;
            };
            let next = self.next_of(&key, &follows);
            let next = next.and_then(|(turn, line)| Some((self.leave(turn)?, turn, line)));
            match (next, self.groups.get_mut(&key)) {
                (Some(next), Some(group)) => {
                    // By leaving it has put the group at the end of the ring.
                    group.standing.insert(next.1);
                    self.stand += 1;
                    scheduled.push(next);
                }
                (None, Some(group)) if group.is_empty() => drop(self.groups.remove(&key)),
                _ => {}
            }
        }
        scheduled
    }

    /// Returns the next write of a group that has left the ring, and its line. `None` if the group
    /// is paused, enough of it stand before the budget, or none of it may be scheduled.
    fn next_of(
        &mut self,
        key: &GroupKey,
        follows: &impl Fn(Credential, Turn, &BTreeSet<Turn>) -> bool,
    ) -> Option<(Turn, LineKey)> {
        let group = self.groups.get_mut(key)?;
        group.in_ring = false;
        if group.standing.len() >= AT_ONCE || is_paused(&self.paused, key) {
            return None;
        }
        // Ready writes and followers alternate. A follower takes no slot of its own, since it
        // travels with one that stands; but it takes one of the places before the budget.
        let lines = &mut self.lines;
        if group.owes_follower
            && let Some(next) = group.follower(lines, key.0, follows)
        {
            group.owes_follower = false;
            return Some(next);
        }
        if let Some(next) = group.ready(lines, &self.weights) {
            group.owes_follower = true;
            return Some(next);
        }
        group.follower(lines, key.0, follows)
    }

    /// Notes that a scheduled write no longer stands before its budget.
    /// Nothing happens if it was not among them, so a second call does no harm.
    pub fn gone(&mut self, turn: Turn, line: &LineKey) {
        let key = line.group();
        if let Some(group) = self.groups.get_mut(&key)
            && group.standing.remove(&turn)
        {
            self.stand = self.stand.saturating_sub(1);
            self.wake(&key);
        }
    }

    /// Applies other weights of clients, from the next write on.
    pub fn set_weights(&mut self, weights: Arc<ClientWeights>) {
        self.weights = weights;
    }

    /// Pauses writes until they are resumed. Returns `false` if they were paused already.
    pub fn pause(&mut self, pause: Pause, now: Instant) -> bool {
        let is_new = !self.paused.contains_key(&pause);
        self.paused.entry(pause).or_insert(now);
        is_new
    }

    /// Ends a pause. Returns `false` if there was none.
    pub fn resume(&mut self, pause: &Pause) -> bool {
        let was_paused = self.paused.remove(pause).is_some();
        if was_paused {
            // Looks at every group: a pause ends rarely.
            let groups: Vec<GroupKey> = self.groups.keys().cloned().collect();
            groups.iter().for_each(|key| self.wake(key));
        }
        was_paused
    }

    /// Removes all writes of credentials that the API has refused since before `since`, and ends
    /// their pauses.
    pub fn given_up(&mut self, since: Instant) -> Vec<T> {
        let refused = self.paused.iter().filter(|(_, at)| **at <= since);
        let refused: HashSet<Credential> = refused
            .filter_map(|(pause, _)| match pause {
                Pause::Refused(credential) => Some(*credential),
                _ => None,
            })
            .collect();
        if refused.is_empty() {
            return Vec::new();
        }
        self.paused.retain(|pause, _| match pause {
            Pause::Refused(credential) => !refused.contains(credential),
            _ => true,
        });
        let writes = self.writes.iter();
        let of_those = writes.filter(|(_, (_, line, _))| refused.contains(&line.credential));
        let mut turns: Vec<Turn> = of_those.map(|(turn, _)| *turn).collect();
        // In the order of acceptance, in which they are ended.
        turns.sort_unstable();
        turns
            .into_iter()
            .filter_map(|turn| self.leave(turn))
            .collect()
    }

    /// Returns whether the writes of this line are paused.
    pub fn is_paused(&self, line: &LineKey) -> bool {
        is_paused(&self.paused, &line.group())
    }

    /// Returns what is paused, and since when.
    pub fn paused(&self) -> impl Iterator<Item = (&Pause, Instant)> {
        self.paused.iter().map(|(pause, since)| (pause, *since))
    }

    /// Returns whether the writes of this credential are paused because the API refuses it.
    pub fn is_refused(&self, credential: Credential) -> bool {
        self.paused.contains_key(&Pause::Refused(credential))
    }

    /// Returns how many of these wait here that were accepted before this turn, and how many stand
    /// before their budget.
    ///
    /// The writes of all callers count, since they share the budget. Urgency is left out, so this
    /// is a position by age.
    pub fn before(&self, turn: Turn, credential: Credential, operation: &str) -> (usize, usize) {
        // Those before the budget are counted apart, for the budget knows when they leave.
        let group = self.groups.get(&(credential, Arc::from(operation)));
        group.map_or((0, 0), |group| {
            (below(&group.waiting, turn), group.standing.len())
        })
    }
}

/// Returns how many are below `turn`. Most callers ask for one of the last turns, so the few at or
/// above it are counted first.
fn below(turns: &BTreeSet<Turn>, turn: Turn) -> usize {
    const FEW: usize = 256;
    let not_below = turns.range(turn..).take(FEW).count();
    if not_below < FEW {
        turns.len() - not_below
    } else {
        turns.range(..turn).count()
    }
}

/// Returns whether any pause applies to a group. Costs nothing while nothing is paused.
fn is_paused(paused: &HashMap<Pause, Instant>, (credential, operation): &GroupKey) -> bool {
    let of_operation = |credential| Pause::Operation(credential, operation.clone());
    !paused.is_empty()
        && [
            Pause::Credential(*credential),
            Pause::Refused(*credential),
            of_operation(None),
            of_operation(Some(*credential)),
        ]
        .iter()
        .any(|pause| paused.contains_key(pause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{Caller, Principal};
    use crate::clock::Clock;
    use proptest::prelude::*;
    use std::net::IpAddr;
    use std::time::Duration;

    fn line(n: u8) -> LineKey {
        LineKey {
            credential: Credential::from_bytes([n / 2; 16]),
            operation: "createInvites".into(),
            caller: Caller {
                principal: IpAddr::from([10, 0, 0, n]).into(),
                name: None,
            },
            merges: false,
        }
    }

    fn urgency(u: u8) -> Urgency {
        Urgency::new(u).unwrap()
    }

    fn scheduled(scheduler: &mut Scheduler<Turn>) -> Vec<Turn> {
        let scheduled = scheduler.schedule(|_, _, _| false).into_iter();
        let scheduled = scheduled.map(|(write, turn, key)| {
            scheduler.gone(turn, &key);
            write
        });
        scheduled.collect()
    }

    #[test]
    fn a_few_are_brought_and_more_when_those_are_gone() {
        let mut scheduler = Scheduler::default();
        for turn in 0..140 {
            scheduler.enter(turn, turn, line(0), urgency(3), true);
        }
        let nobody = |_, _, _: &BTreeSet<Turn>| false;
        let first = scheduler.schedule(nobody);
        assert_eq!(first.len(), AT_ONCE);
        assert!(scheduler.schedule(nobody).is_empty());
        scheduler.gone(7, &line(0));
        assert_eq!(scheduler.schedule(nobody)[0].0, AT_ONCE as Turn);
        let before = scheduler.before(139, line(0).credential, "createInvites");
        assert_eq!(before, (139 - AT_ONCE - 1, AT_ONCE));
    }

    #[test]
    fn the_urgent_come_first_and_nobody_starves() {
        let mut scheduler = Scheduler::default();
        scheduler.enter(0, 0, line(0), urgency(7), true);
        for turn in 1..9 {
            scheduler.enter(turn, turn, line(0), urgency(1), true);
        }
        assert_eq!(scheduled(&mut scheduler), [1, 2, 3, 0, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn callers_take_turns_and_all_of_an_operation_share_the_line() {
        let mut scheduler = Scheduler::default();
        for turn in 0..200 {
            let who = if turn == 199 { 1 } else { 0 };
            scheduler.enter(turn, turn, line(who), urgency(3), true);
        }
        let first = scheduler.schedule(|_, _, _| false);
        assert_eq!(first.len(), AT_ONCE);
        assert_eq!(first[1].0, 199, "the second is the other caller's");
    }

    /// The line of a client, beside that of `line(0)`.
    fn of_client(name: &str) -> LineKey {
        LineKey {
            caller: Caller {
                principal: Principal::Client(name.into()),
                name: None,
            },
            ..line(0)
        }
    }

    #[test]
    fn more_of_a_client_with_a_larger_share_stand_and_follow() {
        let mut scheduler = Scheduler::default();
        let weights = |shares| Arc::new(ClientWeights::of_shares(shares));
        scheduler.set_weights(weights(&[("a", 1), ("b", 3)]));
        for turn in 0..400 {
            let line = of_client(if turn % 2 == 0 { "a" } else { "b" });
            scheduler.enter(turn, turn, line, urgency(3), true);
        }
        let names = |scheduled: &[(Turn, Turn, LineKey)]| -> String {
            let principals = scheduled.iter().map(|(_, _, line)| &line.caller.principal);
            principals.map(Principal::to_string).collect()
        };
        let nobody = |_, _, _: &BTreeSet<Turn>| false;
        let first = scheduler.schedule(nobody);
        assert_eq!(names(&first), "abbb".repeat(AT_ONCE / 4));
        // One by one, as slots come free.
        let mut next = String::new();
        for (_, turn, line) in &first[..8] {
            scheduler.gone(*turn, line);
            next += &names(&scheduler.schedule(nobody));
        }
        assert_eq!(next, "abbbabbb");
        // A reload takes effect with the next one, in the present turn.
        for (_, turn, line) in &first[8..10] {
            scheduler.gone(*turn, line);
            scheduler.schedule(nobody);
        }
        scheduler.set_weights(weights(&[("a", 2)]));
        let mut next = String::new();
        for (_, turn, line) in &first[10..17] {
            scheduler.gone(*turn, line);
            next += &names(&scheduler.schedule(nobody));
        }
        assert_eq!(next, "baabaab");
    }

    #[test]
    fn one_that_can_travel_with_those_in_line_is_brought_to_them() {
        let mut scheduler = Scheduler::default();
        let merging = LineKey {
            merges: true,
            ..line(0)
        };
        for turn in 0..5 {
            scheduler.enter(turn, turn, merging.clone(), urgency(3), turn == 0);
        }
        // Each waits for the one before it.
        let scheduled =
            scheduler.schedule(|_, turn, these| turn == 3 || these.contains(&(turn - 1)));
        let turns: Vec<Turn> = scheduled.iter().map(|(_, turn, _)| *turn).collect();
        assert_eq!(turns, [0, 1, 2, 3, 4]);
        scheduler.enter(9, 9, line(0), urgency(3), false);
        assert!(
            scheduler.schedule(|_, _, _| true).is_empty(),
            "these are not merged"
        );
    }

    /// Contract of batching: a caller whose writes wait for each other is not sent one by one while
    /// another has more ready writes than may stand.
    #[test]
    fn followers_join_although_another_caller_has_many_ready_writes() {
        let mut scheduler = Scheduler::default();
        let merging = |n| LineKey {
            merges: true,
            ..line(n)
        };
        for turn in 0..200 {
            scheduler.enter(turn, turn, merging(0), urgency(3), true);
        }
        for turn in 200..241 {
            scheduler.enter(turn, turn, merging(1), urgency(3), turn == 200);
        }
        // Each of the second caller's waits for the one before it.
        let follows = |_, turn: Turn, these: &BTreeSet<Turn>| these.contains(&(turn - 1));
        let mut turns = Vec::new();
        let mut standing = VecDeque::new();
        for _ in 0..AT_ONCE {
            for (_, turn, key) in scheduler.schedule(follows) {
                turns.push(turn);
                standing.push_back((turn, key));
            }
            if let Some((turn, key)) = standing.pop_front() {
                scheduler.gone(turn, &key);
            }
        }
        let followers = turns.iter().filter(|turn| **turn > 200).count();
        assert_eq!(followers, 40, "{turns:?}");
        assert!(
            turns.iter().filter(|turn| **turn < 200).count() >= AT_ONCE,
            "{turns:?}"
        );
    }

    #[test]
    fn writes_that_join_no_batch_do_not_hide_those_of_others() {
        let mut scheduler = Scheduler::default();
        let merging = |n| LineKey {
            merges: true,
            ..line(n)
        };
        for turn in 0..100 {
            scheduler.enter(turn, turn, merging(0), urgency(3), false);
        }
        scheduler.enter(100, 100, merging(1), urgency(3), true);
        scheduler.enter(101, 101, merging(1), urgency(3), false);
        let follows = |_, turn: Turn, these: &BTreeSet<Turn>| these.contains(&100) && turn == 101;
        let mut turns = Vec::new();
        for _ in 0..3 {
            turns.extend(
                scheduler
                    .schedule(follows)
                    .into_iter()
                    .map(|(_, turn, _)| turn),
            );
            // Anything that changes lets the group be looked at again.
            scheduler.leave(0);
        }
        assert_eq!(turns, [100, 101]);
    }

    #[test]
    fn closed_lanes_keep_nobody_else() {
        let mut scheduler = Scheduler::default();
        for turn in 0..100 {
            scheduler.enter(turn, turn, line(0), urgency(3), turn == 99);
        }
        assert_eq!(scheduled(&mut scheduler), [99]);
        scheduler.ready(50);
        scheduler.ready(50);
        scheduler.ready(1_000);
        assert_eq!(scheduled(&mut scheduler), [50]);
        assert_eq!(scheduler.leave(3), Some(3));
        assert_eq!(scheduler.leave(3), None);
        scheduler.ready(3);
        assert!(scheduled(&mut scheduler).is_empty());
    }

    #[test]
    fn what_is_paused_waits_and_nothing_else() {
        let mut scheduler = Scheduler::default();
        let all = Pause::Operation(None, "createInvites".into());
        let one = Pause::Credential(line(0).credential);
        for n in [0, 2] {
            scheduler.enter(n.into(), n.into(), line(n), urgency(3), true);
        }
        let now = Clock::system().now();
        assert!(scheduler.pause(one.clone(), now) && !scheduler.pause(one.clone(), now));
        assert_eq!(scheduled(&mut scheduler), [2]);
        assert!(scheduler.pause(all.clone(), now) && scheduler.resume(&one));
        assert!(scheduled(&mut scheduler).is_empty());
        assert!(scheduler.resume(&all));
        assert_eq!(scheduled(&mut scheduler), [0]);
    }

    #[test]
    fn what_was_refused_for_long_is_given_up_and_nothing_else() {
        let mut scheduler = Scheduler::default();
        let now = Clock::system().now();
        for n in [0, 1, 2] {
            scheduler.enter(n.into(), n.into(), line(n), urgency(3), n == 0);
        }
        scheduler.pause(Pause::Credential(line(2).credential), now);
        scheduler.pause(
            Pause::Refused(line(0).credential),
            now + Duration::from_secs(1),
        );
        assert!(scheduler.given_up(now).is_empty() && scheduled(&mut scheduler).is_empty());
        assert_eq!(scheduler.given_up(now + Duration::from_secs(1)), [0, 1]);
        assert_eq!(scheduler.paused().count(), 1);
        assert_eq!(scheduler.len(), 1);
    }

    proptest! {
        /// Everything that enters is brought once, if its lanes open and it does not leave.
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(
            steps in prop::collection::vec((0u8..4, 0u8..4, any::<bool>(), 0u8..8), 1..200)
        ) {
            let mut scheduler = Scheduler::default();
            scheduler.set_weights(Arc::new(ClientWeights::of_shares(&[("0", 1), ("1", 2), ("2", 3)])));
            let line = |n: u8| LineKey { caller: of_client(&n.to_string()).caller, ..line(n) };
            let (mut standing, mut seen) = (Vec::new(), Vec::new());
            let mut left = 0;
            for (turn, (what, n, is_ready, u)) in steps.iter().enumerate() {
                let turn = turn as Turn;
                match what {
                    0 | 1 => {
                        let line = LineKey { merges: *n == 1, ..line(*n) };
                        scheduler.enter(turn, turn, line, urgency(*u), *is_ready);
                    }
                    2 => {
                        for (write, turn, key) in scheduler.schedule(|_, turn, _| turn % 3 == 0) {
                            standing.push((turn, key));
                            seen.push(write);
                        }
                        if let Some((turn, key)) = standing.pop() {
                            scheduler.gone(turn, &key);
                        }
                    }
                    _ => left += usize::from(scheduler.leave(Turn::from(*u)).is_some()),
                }
                let in_ring = scheduler.groups.values().filter(|group| group.in_ring);
                prop_assert_eq!(in_ring.count(), scheduler.ring.len(), "one turn a round");
                for (group, known) in &scheduler.groups {
                    prop_assert_eq!(scheduler.ring.contains(group), known.in_ring);
                    let ring: HashSet<&LineKey> = known.ring.iter().collect();
                    prop_assert_eq!(ring.len(), known.ring.len(), "one turn a round");
                    for line in known.ring.iter().skip(1) {
                        prop_assert_eq!(scheduler.lines[line].gone, 0, "a turn that has not begun");
                    }
                    let followers: HashSet<&LineKey> = known.followers.iter().collect();
                    prop_assert_eq!(followers.len(), known.followers.len(), "one turn a round");
                    for (key, line) in scheduler.lines.iter().filter(|(key, _)| key.group() == *group) {
                        prop_assert_eq!(ring.contains(key), line.in_ring);
                        prop_assert_eq!(followers.contains(key), line.in_followers);
                        prop_assert!(line.in_ring || line.ready.is_empty());
                        let is_looked_at = line.in_followers || !key.merges;
                        prop_assert!(is_looked_at || line.blocked.is_empty());
                        prop_assert!(!line.is_forgotten());
                    }
                    let lines = scheduler.lines.iter();
                    let lines = lines.filter(|(key, _)| key.group() == *group);
                    let blocked = |line: &DeferredLine| line.blocked.clone().into_iter();
                    let writes = lines.flat_map(|(_, line)| line.ready.iter().chain(blocked(line)));
                    let writes: BTreeSet<Turn> = writes.collect();
                    prop_assert_eq!(&writes, &known.waiting);
                }
            }
            for turn in 0..steps.len() {
                scheduler.ready(turn as Turn);
            }
            for (turn, key) in standing {
                scheduler.gone(turn, &key);
            }
            while !scheduler.is_empty() {
                for (write, turn, key) in scheduler.schedule(|_, _, _| false) {
                    seen.push(write);
                    scheduler.gone(turn, &key);
                }
            }
            let entered = steps.iter().filter(|step| step.0 < 2).count();
            prop_assert_eq!(seen.len() + left, entered);
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len() + left, entered);
            // The last round forgets the lines that are empty.
            prop_assert!(scheduler.schedule(|_, _, _| false).is_empty());
            prop_assert!(scheduler.lines.is_empty() && scheduler.ring.is_empty());
            prop_assert!(scheduler.groups.is_empty());
            prop_assert_eq!(scheduler.stand, 0);
        }
    }
}
