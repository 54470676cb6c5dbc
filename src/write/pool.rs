//! The pool of writes that wait and may be taken along in a batch. One lock, never held across an
//! await.
//!
//! Invariant: a write is in the pool or it is not. Who takes it out has it, with its place in
//! the lanes. So a caller that hangs up and a batch that takes the write along cannot both succeed.
//!
//! The pool sends nothing and knows no slots.

use crate::credential::Credential;
use crate::exchange::request::RequestContext;
use crate::lanes::{Lanes, Turn};
use crate::merge::{Batching, Bounds, Debt, MemberOutcome, Parts, choose};
use crate::write::member::{Batchable, Member};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::oneshot;

/// The most writes that are looked through for a batch: many times what it can have.
const MOST_LOOKED_AT: usize = 1_000;
/// The most debts that are kept. Beyond that all are forgotten, which costs some slots.
const MOST_DEBTS: usize = 10_000;

/// The properties that the writes of a batch have in common.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PoolLine {
    /// The token with which the batch is sent: budget and lanes are its own.
    credential: Credential,
    operation: Arc<str>,
    /// Durable writes are batched among themselves: a full disk must not hold up others.
    is_durable: bool,
    /// Writes that were refused together are batched among themselves.
    batching: Batching,
}

/// A write in the pool.
struct Candidate {
    member: Member,
    /// What the write brings to a batch.
    batchable: Batchable,
    /// Tells the write that another took it out.
    taken: oneshot::Sender<()>,
}

impl Candidate {
    /// Takes the write out of the pool, and tells it so.
    fn take(self) -> (Member, Batchable) {
        // A write that takes itself out does not listen.
        let _ = self.taken.send(());
        (self.member, self.batchable)
    }
}

/// All writes that may be taken along. Cheap to clone.
#[derive(Clone, Default)]
pub struct BatchPool {
    shared: Arc<Mutex<Shared>>,
}

/// All that the lock guards. Empty lines are removed, so that memory is bounded by what waits.
#[derive(Default)]
struct Shared {
    /// Writes in the order of acceptance.
    lines: HashMap<PoolLine, BTreeMap<Turn, Candidate>>,
    /// The cost of refused batches that is not made up for yet.
    ///
    /// An entry exists only while something is owed. At most [`MOST_DEBTS`].
    debts: HashMap<(Credential, Arc<str>), Debt>,
}

impl std::fmt::Debug for BatchPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BatchPool")
    }
}

/// The entry of a write in the pool. Dropping it takes the write out, with its place in the lanes.
pub(super) struct PoolGuard {
    pool: BatchPool,
    /// The key of the write in the pool, together with its turn.
    line: PoolLine,
    turn: Turn,
    /// Resolves when another write has taken this one along.
    taken: oneshot::Receiver<()>,
}

impl BatchPool {
    /// Adds a write: from now on it may be taken along, until it leaves or the guard is dropped.
    pub(super) fn enter(
        &self,
        batching: Batching,
        member: Member,
        batchable: Batchable,
    ) -> PoolGuard {
        let line = PoolLine {
            credential: member.recipient.context.credential,
            operation: member.recipient.context.operation.name.clone(),
            is_durable: member.entry.is_some(),
            batching,
        };
        let (taken, is_taken) = oneshot::channel();
        let turn = member.place.turn();
        let mut shared = self.shared.lock();
        let waiting = shared.lines.entry(line.clone()).or_default();
        let candidate = Candidate {
            member,
            batchable,
            taken,
        };
        waiting.insert(turn, candidate);
        drop(shared);
        PoolGuard {
            pool: self.clone(),
            line,
            turn,
            taken: is_taken,
        }
    }

    /// Returns the writes with which a write of this operation could be batched, and the number of
    /// attempts that they need at best.
    ///
    /// Serves the estimate of a new write. Only writes on one path share a batch, so the attempts
    /// are counted by path. Writes that a debt forces to be sent alone need one each.
    pub(super) fn waiting(
        &self,
        context: &RequestContext,
        is_durable: bool,
    ) -> (BTreeSet<Turn>, usize) {
        let line = PoolLine {
            credential: context.credential,
            operation: context.operation.name.clone(),
            is_durable,
            batching: Batching::Full,
        };
        let shared = self.shared.lock();
        // By path: the number of waiting elements, and the most that one batch holds.
        let mut elements: HashMap<&str, (usize, usize)> = HashMap::new();
        let waiting = shared.lines.get(&line).into_iter().flatten();
        let turns = waiting.map(|(turn, other)| {
            let parts = &other.batchable.parts;
            let path = other.member.recipient.context.target.path();
            let sum = elements.entry(path).or_insert((0, parts.most()));
            sum.0 += parts.len();
            *turn
        });
        let turns: BTreeSet<Turn> = turns.collect();
        let attempts = elements.values().map(|(sum, most)| sum.div_ceil(*most));
        let attempts: usize = attempts.sum();
        let alone = shared.debt(&line).alone(turns.len());
        (turns, attempts + alone)
    }

    /// Notes that a write that was refused with others is sent alone.
    pub(super) fn sent_alone(&self, context: &RequestContext) {
        let name = &context.operation.name;
        let paid = |debt: &mut Debt| debt.carried_out(1);
        self.shared.lock().change(context.credential, name, paid);
    }

    /// Notes the outcomes of a batch.
    pub(super) fn batch_ended(&self, context: &RequestContext, outcomes: &[MemberOutcome]) {
        let change = |debt: &mut Debt| match outcomes.first() {
            Some(MemberOutcome::Refused) => debt.refused(),
            _ if outcomes
                .iter()
                .any(|it| matches!(it, MemberOutcome::Unattributed)) =>
            {
                debt.unattributed();
            }
            _ => debt.carried_out(outcomes.len()),
        };
        let name = &context.operation.name;
        self.shared.lock().change(context.credential, name, change);
    }
}

impl Shared {
    /// Returns what the operation of this line owes, which is nothing for most.
    fn debt(&self, line: &PoolLine) -> Debt {
        let debt = self.debts.get(&(line.credential, line.operation.clone()));
        debt.copied().unwrap_or_default()
    }

    /// Changes the debt of one operation of a credential.
    fn change(&mut self, credential: Credential, name: &Arc<str>, by: impl FnOnce(&mut Debt)) {
        let key = (credential, name.clone());
        // Most attempts change nothing: then no entry is made.
        let before = self.debts.get(&key).copied().unwrap_or_default();
        let mut debt = before;
        by(&mut debt);
        if debt == before {
            return;
        }
        // What is paid takes no memory.
        if debt.is_paid() {
            self.debts.remove(&key);
            return;
        }
        if self.debts.len() >= MOST_DEBTS {
            self.debts.clear();
        }
        self.debts.insert(key, debt);
    }

    /// Returns the turns of those that share a batch with `own`, which is among them.
    fn chosen(&self, line: &PoolLine, own: (Turn, &Parts), lanes: &Lanes) -> Vec<Turn> {
        // The order is that of acceptance: an older write is taken along first.
        let waiting = self.lines.get(line).into_iter().flatten();
        let waiting = waiting.take(MOST_LOOKED_AT);
        let candidates = waiting.map(|(turn, other)| (*turn, &other.batchable.parts));
        // A member may wait in its lanes for other members only. A write from outside would have to
        // settle first.
        let follows = |turn, these: &_| lanes.follows(line.credential, turn, these);
        let bounds = Bounds {
            batching: self.debt(line).limit(line.batching),
            ..Bounds::default()
        };
        choose(own, candidates, bounds, follows)
    }

    /// Takes a write out. `None` if another has done so.
    fn remove(&mut self, line: &PoolLine, turn: Turn) -> Option<Candidate> {
        let waiting = self.lines.get_mut(line)?;
        let candidate = waiting.remove(&turn);
        if waiting.is_empty() {
            self.lines.remove(line);
        }
        candidate
    }
}

impl PoolGuard {
    /// Waits until another write takes this one along. From then on the write is part of that
    /// attempt, and hears of it by its own channel.
    pub(super) async fn taken(&mut self) {
        let _ = (&mut self.taken).await;
    }

    /// Takes the write out, which is sent in no batch now. `None` if another has taken it along.
    /// Then the report of that attempt follows.
    pub(super) fn leave(&self) -> Option<Member> {
        let own = self.pool.shared.lock().remove(&self.line, self.turn)?;
        Some(own.take().0)
    }

    /// Takes the write out, with those that share a batch with it; all in the order of acceptance.
    /// `None` if another has taken it along.
    ///
    /// `may_leave` marks a durable write as sent, unless it has to stay. It is called under the
    /// lock of the pool, so it must neither wait nor use the pool.
    pub(super) fn leave_with_others(
        &self,
        lanes: &Lanes,
        may_leave: impl Fn(&Member) -> bool,
    ) -> Option<Vec<(Member, Batchable)>> {
        let line = &self.line;
        let mut shared = self.pool.shared.lock();
        // Taken out first: nobody else can take it along from here on.
        let own = shared.remove(line, self.turn)?.take();
        // Chosen and taken out under one lock, so that none of them can leave in between.
        let chosen = shared.chosen(line, (self.turn, &own.1.parts), lanes);
        let mut members = vec![own];
        for turn in chosen.into_iter().filter(|turn| *turn != self.turn) {
            let Some(other) = shared.remove(line, turn) else {
                break;
            };
            if !may_leave(&other.member) {
                // It stays, and so do those behind it: they may follow it in its lanes.
                shared
                    .lines
                    .entry(line.clone())
                    .or_default()
                    .insert(turn, other);
                break;
            }
            members.push(other.take());
        }
        // A write that is sent alone makes up for a part of a refused batch.
        if members.len() == 1 {
            shared.change(line.credential, &line.operation, |debt| debt.carried_out(1));
        }
        // The first of them gives the batch its header, not the one that got the slot.
        members.sort_by_key(|(member, _)| member.turn());
        Some(members)
    }
}

impl Drop for PoolGuard {
    fn drop(&mut self) {
        let left = self.pool.shared.lock().remove(&self.line, self.turn);
        // Its place in the lanes goes with it, after the lock is released.
        drop(left);
    }
}
