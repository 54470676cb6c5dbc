//! Writes that outlast a crash: deferred ones, and those with an `Idempotency-Key`.
//!
//! `accept` takes them in and answers their callers, `enqueue` reads them back when it is their
//! turn, `run` sends them, `completion` records what came of it, `recovery` goes on with what the
//! last process left, `requests` shows them to those whose they are and `operate` to operators;
//! `rebind` gives them to another credential of the same workspace, which `workspace` asks for.
//! `pending` is one of them, `scheduler` those that wait to be brought before their budgets.
//! `checks` knows which credentials the API takes, `summary` is what is told of a write after its
//! request was erased, and `retention` says how much is remembered of those that have ended.
//!
//! Promises:
//! - Nothing is acknowledged, and nothing leaves, before the journal has it on the disk.
//! - What has been recorded as sent is sent again only if that can do no more than the first time.
//! - The lanes of a write open after its end is on the disk: were it repeated after a crash, it
//!   would otherwise undo what a later write of its lanes has done since.

mod accept;
mod checks;
mod completion;
mod enqueue;
mod operate;
mod pending;
mod rebind;
mod record;
mod recovery;
mod requests;
mod retention;
mod run;
mod scheduler;
mod summary;
mod workspace;

pub use operate::{Listing, Selection};
pub(crate) use pending::PendingWrite;
pub use recovery::{Recovered, RecoveryError};

use crate::credential::Credential;
use crate::exchange::request::short;
use crate::journal::{Journal, JournalError, KeyHash, Remembered, State, WriteId, WriteIds};
use crate::lanes::Turn;
use crate::metrics::DurableGauge;
use crate::write::Writes;
use checks::Checks;
use parking_lot::Mutex;
use pending::{NewWrite, Stage, Tries};
use retention::{AT_LEAST, Ended as EndedBefore, Retention};
use scheduler::{LineKey, Scheduler};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Bounds of what is accepted and has not ended, and of what is remembered of the rest.
#[derive(Clone, Copy, Debug)]
pub struct DurableBounds {
    /// How many; one peer may have half of them, and so may one credential.
    pub writes: usize,
    /// Bytes of their requests; shared in the same way.
    pub bytes: usize,
    /// How long those that have ended are remembered.
    pub keep: Duration,
    /// How much of them is remembered; one credential may have half of it.
    pub ended: Remembered,
    /// Whether the API is asked which workspace a credential belongs to.
    pub workspaces: bool,
}

/// The writes that outlast a crash. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Durable {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: Arc<dyn Journal>,
    /// Whether the journal outlasts the process.
    outlasts: bool,
    bounds: DurableBounds,
    ids: WriteIds,
    registry: Mutex<Registry>,
    scheduler: Mutex<Scheduler<Arc<PendingWrite>>>,
    /// Which credentials the API takes.
    checks: Mutex<Checks<watch::Receiver<Option<checks::Verdict>>>>,
    /// More may be brought than was.
    wakeup: Notify,
    /// How many have ended since the start: in the order of [`State::ALL`].
    ended: [AtomicU64; 6],
}

/// Those that have been accepted and have not ended.
#[derive(Debug, Default)]
struct Registry {
    by_id: HashMap<WriteId, Arc<PendingWrite>>,
    by_key: HashMap<(Credential, KeyHash), Arc<PendingWrite>>,
    bytes: usize,
    peers: HashMap<IpAddr, Load>,
    credentials: HashMap<Credential, Load>,
    /// Those that have ended.
    ended: EndedBefore,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    writes: usize,
    bytes: usize,
}

/// What came of claiming a place for a write.
enum Claim {
    /// It is there, for this one.
    New(Arc<PendingWrite>),
    /// One with the same key is under way.
    UnderWay(Arc<PendingWrite>),
    /// There are as many as may be.
    Full,
}

impl Durable {
    /// None yet; what the journal has comes in by [`Writes::recover`]. `newest` is the last id that
    /// an earlier process made.
    pub fn new(
        journal: Arc<dyn Journal>,
        outlasts: bool,
        newest: Option<WriteId>,
        bounds: DurableBounds,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                journal,
                outlasts,
                bounds,
                ids: newest.map_or_else(WriteIds::default, WriteIds::after),
                registry: Mutex::default(),
                scheduler: Mutex::default(),
                checks: Mutex::default(),
                wakeup: Notify::new(),
                ended: Default::default(),
            }),
        }
    }

    /// How many are in which state.
    pub fn levels(&self, now: Instant) -> DurableGauge {
        let registry = self.shared.registry.lock();
        let is_under_way = |pending: &&Arc<PendingWrite>| matches!(pending.stage(), Stage::Left);
        let dispatched = registry.by_id.values().filter(is_under_way).count();
        let (all, bytes) = (registry.by_id.len(), registry.bytes);
        let first = registry
            .by_id
            .values()
            .map(|pending| pending.accepted)
            .min();
        drop(registry);
        DurableGauge {
            queued: all - dispatched,
            dispatched,
            paused: self.shared.scheduler.lock().paused().count(),
            bytes,
            oldest: first.map_or(0.0, |since| {
                now.saturating_duration_since(since).as_secs_f64()
            }),
        }
    }

    /// How many have ended since the start, by state.
    fn ended(&self) -> serde_json::Map<String, Value> {
        let counted = State::ALL.into_iter().zip(&self.shared.ended);
        let ended = counted.filter(|(state, _)| state.has_ended());
        ended
            .map(|(state, n)| (state.as_str().to_owned(), n.load(Ordering::Relaxed).into()))
            .collect()
    }

    /// One more has ended in this state.
    fn count_end(&self, state: State) {
        let mut counted = State::ALL.iter().zip(&self.shared.ended);
        if let Some((_, n)) = counted.find(|(of, _)| **of == state) {
            n.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn journal(&self) -> &dyn Journal {
        &*self.shared.journal
    }

    /// Those that have writes.
    fn credentials(&self) -> BTreeSet<Credential> {
        let registry = self.shared.registry.lock();
        registry.credentials.keys().copied().collect()
    }

    /// Whether this credential has writes that have not ended.
    fn has_writes(&self, credential: Credential) -> bool {
        let registry = self.shared.registry.lock();
        registry.credentials.contains_key(&credential)
    }

    fn pending(&self, id: WriteId) -> Option<Arc<PendingWrite>> {
        self.shared.registry.lock().by_id.get(&id).cloned()
    }

    /// Room for one more, unless its key is known.
    fn claim(&self, new_write: NewWrite) -> Claim {
        let bounds = &self.shared.bounds;
        let mut registry = self.shared.registry.lock();
        let key = new_write.key.map(|key| (new_write.credential, key.hash));
        if let Some(under_way) = key.and_then(|key| registry.by_key.get(&key)) {
            return Claim::UnderWay(under_way.clone());
        }
        let peer = registry.peers.get(&new_write.caller.peer);
        let loads = [peer, registry.credentials.get(&new_write.credential)];
        let is_share_full = loads.into_iter().flatten().any(|own| {
            own.writes >= bounds.writes.div_ceil(2)
                || own.bytes + new_write.bytes > bounds.bytes.div_ceil(2)
        });
        let is_full = is_share_full
            || registry.by_id.len() >= bounds.writes
            || registry.bytes + new_write.bytes > bounds.bytes
            || new_write.bytes > bounds.bytes.div_ceil(2);
        if is_full {
            return Claim::Full;
        }
        let pending = Arc::new(PendingWrite::new(new_write, Tries::default()));
        registry.add(pending.clone());
        Claim::New(pending)
    }

    /// Takes in one that the last process left, whatever the bounds are now.
    fn adopt(&self, new_write: NewWrite, tries: Tries) -> Arc<PendingWrite> {
        let pending = Arc::new(PendingWrite::new(new_write, tries));
        self.shared.registry.lock().add(pending.clone());
        pending
    }

    /// Another takes the place of this one, under the same id.
    fn replace(
        &self,
        pending: &PendingWrite,
        new_write: NewWrite,
        tries: Tries,
    ) -> Arc<PendingWrite> {
        let next = Arc::new(PendingWrite::new(new_write, tries));
        let mut registry = self.shared.registry.lock();
        registry.remove(pending);
        registry.add(next.clone());
        next
    }

    fn retention(&self) -> Retention {
        Retention {
            most: self.shared.bounds.ended,
        }
    }

    /// Whether one more write of this credential can be remembered when it ends.
    fn has_room_for_end(&self, credential: Credential) -> bool {
        let registry = self.shared.registry.lock();
        self.retention().takes(&registry.ended, credential)
    }

    fn release(&self, pending: &PendingWrite) {
        self.shared.registry.lock().remove(pending);
    }

    /// Lets a deferred one wait to be brought before its budget.
    fn scheduler(&self, pending: &Arc<PendingWrite>, turn: Turn, is_ready: impl Fn() -> bool) {
        let line = line_of(pending);
        let mut scheduler = self.shared.scheduler.lock();
        scheduler.enter(turn, pending.clone(), line, pending.urgency, false);
        // Its lanes may have opened before it was here to be named.
        if is_ready() {
            scheduler.ready(turn);
        }
        drop(scheduler);
        self.shared.wakeup.notify_one();
    }
}

fn line_of(pending: &PendingWrite) -> LineKey {
    LineKey {
        credential: pending.credential,
        operation: pending.operation.name.clone(),
        caller: pending.caller.clone(),
        merges: pending
            .operation
            .merge
            .as_ref()
            .is_some_and(|merge| merge.enabled),
    }
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.writes += 1;
        self.bytes += bytes;
    }

    /// Takes one of so many bytes away; whether there are others.
    fn remove(&mut self, bytes: usize) -> bool {
        self.writes = self.writes.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.writes > 0
    }
}

impl Registry {
    fn add(&mut self, pending: Arc<PendingWrite>) {
        self.bytes += pending.bytes;
        let peer = self.peers.entry(pending.caller.peer).or_default();
        peer.add(pending.bytes);
        let own = self.credentials.entry(pending.credential).or_default();
        own.add(pending.bytes);
        if let Some(key) = &pending.key {
            self.by_key
                .insert((pending.credential, key.hash), pending.clone());
        }
        self.by_id.insert(pending.id, pending);
    }

    fn remove(&mut self, pending: &PendingWrite) {
        // Another credential may have it under the same id by now.
        let known = self.by_id.get(&pending.id);
        if !known.is_some_and(|known| std::ptr::eq(&**known, pending)) {
            return;
        }
        self.by_id.remove(&pending.id);
        if let Some(key) = &pending.key {
            self.by_key.remove(&(pending.credential, key.hash));
        }
        self.bytes = self.bytes.saturating_sub(pending.bytes);
        let peer = self.peers.get_mut(&pending.caller.peer);
        if peer.is_some_and(|peer| !peer.remove(pending.bytes)) {
            self.peers.remove(&pending.caller.peer);
        }
        let own = self.credentials.get_mut(&pending.credential);
        if own.is_some_and(|own| !own.remove(pending.bytes)) {
            self.credentials.remove(&pending.credential);
        }
    }
}

/// Stands before a budget until it is dropped.
struct Scheduled {
    durable: Durable,
    turn: Turn,
    line: LineKey,
}

impl Drop for Scheduled {
    fn drop(&mut self) {
        self.durable
            .shared
            .scheduler
            .lock()
            .gone(self.turn, &self.line);
        self.durable.shared.wakeup.notify_one();
    }
}

impl Writes {
    /// Brings deferred writes before their budgets, for as long as the future is polled. Another
    /// one may take over from one that panicked.
    pub async fn drive_deferred(self: Arc<Self>) {
        loop {
            let follows = |credential, turn, these: &_| self.lanes.follows(credential, turn, these);
            let scheduled = self.durable.shared.scheduler.lock().schedule(follows);
            for (pending, turn, line) in scheduled {
                let scheduled = Scheduled {
                    durable: self.durable.clone(),
                    turn,
                    line,
                };
                self.schedule(pending, scheduled);
            }
            tokio::select! {
                () = self.durable.shared.wakeup.notified() => {}
                freed = self.lanes.freed() => {
                    let mut scheduler = self.durable.shared.scheduler.lock();
                    for turn in freed {
                        scheduler.ready(turn);
                    }
                }
            }
        }
    }

    /// Forgets what has ended long ago, and what there is too much of.
    pub async fn forget_ended(&self) {
        if let Err(error) = self.forget().await {
            tracing::warn!(%error, "cannot delete ended writes");
        }
    }

    async fn forget(&self) -> Result<(), JournalError> {
        let (journal, keep) = (self.durable.journal(), self.durable.shared.bounds.keep);
        let now = self.clock.wall();
        let old = journal.forget(now - keep).await?;
        let ended = EndedBefore::counted(journal.remembered().await?);
        let retention = self.durable.retention();
        let before = now - keep.min(AT_LEAST);
        let mut forgotten = Remembered::default();
        for (credential, surplus) in retention.beyond_shares(&ended) {
            let of = journal.forget_oldest(Some(credential), surplus, before);
            let of = of.await?;
            forgotten.writes += of.writes;
            forgotten.bytes += of.bytes;
        }
        if let Some(surplus) = retention.beyond(&ended, forgotten) {
            let of = journal.forget_oldest(None, surplus, before).await?;
            forgotten.writes += of.writes;
        }
        let ended = match forgotten.writes {
            0 => ended,
            _ => EndedBefore::counted(journal.remembered().await?),
        };
        self.durable.shared.registry.lock().ended = ended;
        if old > 0 {
            tracing::debug!(writes = old, "ended writes deleted");
        }
        if forgotten.writes > 0 {
            tracing::warn!(
                writes = forgotten.writes,
                "ended writes deleted early: journal.ended_writes or journal.ended_bytes is \
                 reached"
            );
        }
        Ok(())
    }

    /// What became of a write is told under its state.
    fn report_end(&self, pending: &PendingWrite, state: State, attempts: u32) {
        self.durable.count_end(state);
        self.metrics
            .durable_ended(&pending.operation.name, state.as_str());
        let (operation, credential) = (&pending.operation.name, pending.credential);
        let (id, request_id, summary) = (pending.id, pending.request_id(), &pending.summary);
        if state == State::Unknown {
            tracing::warn!(
                %id, request_id, %operation, %credential, attempts,
                method = short(&summary.method),
                path = summary.path,
                elements = summary.named(),
                caller = summary.caller,
                "durable write ended: outcome unknown; check the current state before you send \
                 it again"
            );
        } else {
            tracing::info!(
                %id, request_id, %operation, %credential, attempts, state = state.as_str(),
                "durable write ended"
            );
        }
    }
}
