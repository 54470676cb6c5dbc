//! Who waits and may be taken along. One lock, never held across an await.
//!
//! A write is on the platform or it is not: whoever takes it off has it, with its place in the
//! lanes. So one that hangs up and one that is taken along cannot both have their way.

use crate::credential::Credential;
use crate::exchange::request::RequestContext;
use crate::lanes::Turn as Order;
use crate::lanes::{LanePosition, Lanes};
use crate::merge::{Batching, Bounds, Debt, Outcome, Parts, choose};
use crate::write::accept::AttemptReport;
use crate::write::durable::PendingWrite;
use bytes::Bytes;
use http::Request;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Those looked through for a union: many times what it can have.
const MOST_LOOKED_AT: usize = 1_000;
/// Debts that are kept. Beyond, those of others are forgotten, which costs them some slots.
const MOST_DEBTS: usize = 10_000;

/// What a write's turn is.
pub(crate) enum SendTurn {
    /// It leaves alone.
    Alone(crate::limit::ticket::Permit, LanePosition),
    /// It leaves, and takes others along.
    Leader(crate::limit::ticket::Permit, Box<Candidate>, Vec<Candidate>),
    /// Another took it along, and tells what became of it.
    Member(oneshot::Receiver<AttemptReport>),
}

type Departs = oneshot::Sender<oneshot::Receiver<AttemptReport>>;

/// One that travels with others, or may.
pub(crate) struct Candidate {
    pub(crate) turn: Order,
    pub(crate) context: RequestContext,
    pub(crate) pending: Option<Arc<PendingWrite>>,
    pub(crate) request: Request<Bytes>,
    pub(crate) parts: Parts,
    /// Its place in the lanes; whoever takes it off the platform takes it over.
    pub(crate) place: Option<LanePosition>,
    /// Tells it that it leaves; `None` of the one that leads.
    departs: Option<Departs>,
    /// Tells what became of it.
    pub(crate) tell: Option<oneshot::Sender<AttemptReport>>,
}

impl Candidate {
    /// It leaves. Its way to be told so, if another takes it along.
    pub(super) fn depart(&mut self, tell: oneshot::Sender<AttemptReport>) -> Option<Departs> {
        self.tell = Some(tell);
        self.departs.take()
    }
}

/// Those of one credential and operation that wait, in the order of acceptance. Those that outlast
/// a crash travel among themselves: a disk without room must not hold up others. So do those that
/// have been refused together.
type Line = (Credential, Arc<str>, bool, Batching);

/// All that may be taken along. Cheap to clone.
#[derive(Clone, Default)]
pub struct BatchPool {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    lines: HashMap<Line, BTreeMap<Order, Candidate>>,
    /// What refused batches have cost, where that has not been made up for.
    debts: HashMap<(Credential, Arc<str>), Debt>,
}

impl std::fmt::Debug for BatchPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BatchPool")
    }
}

/// A write's place on the platform, until it is dropped.
pub(crate) struct PoolEntry {
    pool: BatchPool,
    line: Line,
    turn: Order,
    waiting: Option<Box<dyn FnOnce(LanePosition, Departs) -> Candidate + Send>>,
    free: Option<oneshot::Receiver<()>>,
    report: Option<oneshot::Receiver<oneshot::Receiver<AttemptReport>>>,
}

impl BatchPool {
    /// Prepares a place for a write; [`PoolEntry::take`] takes it.
    pub(super) fn enter(
        &self,
        context: &RequestContext,
        pending: Option<&Arc<PendingWrite>>,
        (request, parts, batching): (Request<Bytes>, Parts, Batching),
        place: &mut LanePosition,
    ) -> PoolEntry {
        let (context, pending, turn) = (context.clone(), pending.cloned(), place.turn());
        let line = (
            context.credential,
            context.operation.name.clone(),
            pending.is_some(),
            batching,
        );
        let waiting = move |place: LanePosition, departs| Candidate {
            turn,
            context,
            pending,
            request,
            parts,
            place: Some(place),
            departs: Some(departs),
            tell: None,
        };
        PoolEntry {
            pool: self.clone(),
            line,
            turn,
            waiting: Some(Box::new(waiting)),
            free: place.opening(),
            report: None,
        }
    }

    /// Those that a write of this operation could travel with, and in how many dispatches they
    /// would leave at best.
    pub(crate) fn waiting(
        &self,
        context: &RequestContext,
        is_durable: bool,
    ) -> (BTreeSet<Order>, usize) {
        let name = context.operation.name.clone();
        let line = (context.credential, name, is_durable, Batching::Full);
        let shared = self.shared.lock();
        let mut elements: HashMap<&str, (usize, usize)> = HashMap::new();
        let waiting = shared.lines.get(&line).into_iter().flatten();
        let turns = waiting.map(|(turn, other)| {
            let path = other.context.target.path();
            let sum = elements.entry(path).or_insert((0, other.parts.most()));
            sum.0 += other.parts.len();
            *turn
        });
        let turns: BTreeSet<Order> = turns.collect();
        let dispatches = elements.values().map(|(sum, most)| sum.div_ceil(*most));
        let dispatches: usize = dispatches.sum();
        let alone = shared.debt(&line).alone(turns.len());
        (turns, dispatches + alone)
    }

    fn remove(&self, line: &Line, turn: Order) -> Option<Candidate> {
        let mut shared = self.shared.lock();
        let waiting = shared.lines.get_mut(line)?;
        let candidate = waiting.remove(&turn);
        if waiting.is_empty() {
            shared.lines.remove(line);
        }
        candidate
    }

    fn add(&self, line: &Line, candidate: Candidate) {
        let mut shared = self.shared.lock();
        let waiting = shared.lines.entry(line.clone()).or_default();
        waiting.insert(candidate.turn, candidate);
    }

    /// Takes one off the platform, and those that fit with it and may leave.
    fn take_along(
        &self,
        line: &Line,
        turn: Order,
        lanes: &Lanes,
        may_leave: impl Fn(&PendingWrite) -> bool,
    ) -> Option<(Candidate, Vec<Candidate>)> {
        let mut shared = self.shared.lock();
        let batching = shared.debt(line).limit(line.3);
        let waiting = shared.lines.get_mut(line)?;
        let own = waiting.remove(&turn)?;
        let leave = |pending: &Arc<PendingWrite>| may_leave(pending);
        if !own.pending.as_ref().is_none_or(leave) {
            // It is being taken back or has to wait, and takes nobody along.
            return Some((own, Vec::new()));
        }
        let looked_at = waiting.iter().take(MOST_LOOKED_AT);
        let candidates = looked_at.map(|(turn, other)| (*turn, &other.parts));
        let follows = |turn, these: &_| lanes.follows(line.0, turn, these);
        let first = (turn, &own.parts);
        let bounds = Bounds {
            batching,
            ..Bounds::default()
        };
        let chosen = choose(first, candidates, bounds, follows);
        let mut others: Vec<Candidate> = chosen
            .iter()
            .filter_map(|turn| waiting.remove(turn))
            .collect();
        // One that is being taken back or has to wait does not leave, and those that follow it in
        // its lanes may have been chosen because of it.
        let stays = others
            .iter()
            .position(|other| !other.pending.as_ref().is_none_or(leave));
        if let Some(stays) = stays {
            for (at, other) in others.drain(..).enumerate() {
                if let Some(pending) = other.pending.as_ref().filter(|_| at < stays) {
                    pending.stays();
                }
                waiting.insert(other.turn, other);
            }
        }
        if waiting.is_empty() {
            shared.lines.remove(line);
        }
        if others.is_empty() {
            shared.change(line.0, &line.1, |debt| debt.carried_out(1));
        }
        Some((own, others))
    }

    /// A write that was refused with others leaves alone.
    pub(super) fn sent_alone(&self, context: &RequestContext) {
        let name = &context.operation.name;
        let paid = |debt: &mut Debt| debt.carried_out(1);
        self.shared.lock().change(context.credential, name, paid);
    }

    /// A batch has come to this.
    pub(super) fn batch_ended(&self, context: &RequestContext, outcomes: &[Outcome]) {
        let change = |debt: &mut Debt| match outcomes.first() {
            Some(Outcome::Refused) => debt.refused(),
            _ if outcomes
                .iter()
                .any(|it| matches!(it, Outcome::Unattributed)) =>
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
    fn debt(&self, line: &Line) -> Debt {
        let debt = self.debts.get(&(line.0, line.1.clone()));
        debt.copied().unwrap_or_default()
    }

    fn change(&mut self, credential: Credential, name: &Arc<str>, by: impl FnOnce(&mut Debt)) {
        let key = (credential, name.clone());
        let before = self.debts.get(&key).copied().unwrap_or_default();
        let mut debt = before;
        by(&mut debt);
        if debt == before {
            return;
        }
        if debt.is_paid() {
            self.debts.remove(&key);
            return;
        }
        if self.debts.len() >= MOST_DEBTS {
            self.debts.clear();
        }
        self.debts.insert(key, debt);
    }
}

impl PoolEntry {
    /// Takes the place: from now on it may be taken along.
    pub(super) fn take(&mut self, place: LanePosition) {
        let (departs, report) = oneshot::channel();
        self.report = Some(report);
        if let Some(waiting) = self.waiting.take() {
            self.pool.add(&self.line, waiting(place, departs));
        }
    }

    /// Says when its lanes open; `None` if they are open.
    pub(super) fn free(&mut self) -> Option<oneshot::Receiver<()>> {
        self.free.take()
    }

    /// Waits until another takes it along.
    pub(super) async fn departs(&mut self) -> oneshot::Receiver<AttemptReport> {
        if let Some(report) = &mut self.report
            && let Ok(report) = report.await
        {
            return report;
        }
        std::future::pending().await
    }

    /// Takes it off the platform, with those that fit; `None` if it has been taken along.
    /// `may_leave` is asked under the lock of the platform, and says that a write leaves from then
    /// on.
    pub(super) fn leave(
        &mut self,
        lanes: &Lanes,
        may_leave: impl Fn(&PendingWrite) -> bool,
    ) -> Option<(Candidate, Vec<Candidate>)> {
        let pool = &self.pool;
        let (mut own, others) = pool.take_along(&self.line, self.turn, lanes, may_leave)?;
        own.departs = None;
        Some((own, others))
    }

    /// Takes it off the platform alone; `None` if it has been taken along.
    pub(super) fn leave_alone(&mut self) -> Option<Candidate> {
        self.pool.remove(&self.line, self.turn)
    }
}

impl Drop for PoolEntry {
    fn drop(&mut self) {
        // Its place in the lanes goes with it, after the lock is released.
        drop(self.pool.remove(&self.line, self.turn));
    }
}
