//! The durable writes that have been accepted and have not ended, and what bounds them.
//!
//! Promises bounds on their number and on the bytes of their requests; one principal may have half
//! of each, and so may one credential. Each write is known here by its id, and by its key, from
//! before the journal has it until after the journal has its end.
//!
//! Sends nothing, records nothing, and never waits.

use crate::caller::Principal;
use crate::credential::Credential;
use crate::error::GatewayError;
use crate::journal::{Journal, KeyHash, Remembered, State, WriteId, WriteIds};
use crate::metrics::DurableGauge;
use crate::write::durable::checks::{self, Checks};
use crate::write::durable::pending::PendingWrite;
use crate::write::durable::retention::{Ended as EndedBefore, Retention};
use crate::write::durable::scheduler::{Pause, Scheduler};
use crate::write::durable::stage::Stage;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};

/// The bounds of what is accepted and has not ended, and of what is remembered of the rest.
#[derive(Clone, Copy, Debug)]
pub struct DurableBounds {
    /// The most writes; one principal may have half of them, and so may one credential.
    pub writes: usize,
    /// The most bytes of their requests; shared in the same way.
    pub bytes: usize,
    /// The time for which those that have ended are remembered.
    pub keep: Duration,
    /// The most of them that is remembered; one credential may have half of it.
    pub ended: Remembered,
    /// Whether the API is asked which workspace a credential belongs to.
    pub workspaces: bool,
}

/// The durable writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Durable {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// The writes themselves. In memory is only what the registry needs of them.
    pub(super) journal: Journal,
    /// Whether the journal outlasts the process.
    pub(super) outlasts: bool,
    /// Bounds that are fixed at the start.
    pub(super) bounds: DurableBounds,
    /// Makes the ids of new writes. They grow, also across restarts.
    pub(super) ids: WriteIds,
    /// The writes that have not ended.
    pub(super) registry: Mutex<Registry>,
    /// The deferred writes that wait to be scheduled.
    pub(super) scheduler: Mutex<Scheduler<Arc<PendingWrite>>>,
    /// Which credentials the API takes.
    pub(super) checks: Mutex<Checks<watch::Receiver<Option<checks::Verdict>>>>,
    /// Wakes the scheduler: a write waits, or there is room before a budget.
    pub(super) wakeup: Notify,
    /// The number of writes that ended since the start, in the order of [`State::ALL`].
    pub(super) ended: [AtomicU64; 6],
}

/// The writes that have been accepted and have not ended. One lock: a write is here by its id, by
/// its key and in the loads, or in none of them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) by_id: HashMap<WriteId, Arc<PendingWrite>>,
    /// Only writes with an `Idempotency-Key`. A key belongs to its credential.
    by_key: HashMap<(Credential, KeyHash), Arc<PendingWrite>>,
    /// The bytes of all of them, as the journal keeps them.
    bytes: usize,
    /// The load of each principal, removed with its last write. So is that of each credential.
    principals: HashMap<Principal, Load>,
    credentials: HashMap<Credential, Load>,
    /// The counts of ended writes that are remembered.
    pub(super) ended: EndedBefore,
}

/// The writes of one principal or of one credential.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    writes: usize,
    bytes: usize,
}

/// The result of claiming room for a write.
pub(super) enum Claim {
    /// There is room, and this is its entry.
    New(Arc<PendingWrite>),
    /// A write with the same key has not ended.
    Pending(Arc<PendingWrite>),
    /// There is no room.
    Full,
}

impl Durable {
    /// Creates an empty registry. Recovery adds what the journal has.
    ///
    /// `outlasts` says whether the journal outlasts the process. `newest` is the last id that an
    /// earlier process made: those made here are above it.
    pub fn new(
        journal: Journal,
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

    /// Returns the number of writes in each state, and the age of the oldest by the wall clock: the
    /// process that accepted it may be an earlier one.
    pub fn levels(&self, now: SystemTime) -> DurableGauge {
        let registry = self.shared.registry.lock();
        let is_sent = |pending: &&Arc<PendingWrite>| matches!(pending.stage(), Stage::Sent);
        let dispatched = registry.by_id.values().filter(is_sent).count();
        let (all, bytes) = (registry.by_id.len(), registry.bytes);
        let first = registry.by_id.values().map(|pending| pending.since).min();
        drop(registry);
        let scheduler = self.shared.scheduler.lock();
        let is_rejected = |(pause, _): &(&Pause, _)| matches!(pause, Pause::Refused(_));
        let rejected = scheduler.paused().filter(is_rejected).count();
        DurableGauge {
            queued: all - dispatched,
            dispatched,
            paused: scheduler.paused().count(),
            rejected,
            bytes,
            oldest: first.map_or(0.0, |since| {
                now.duration_since(since).unwrap_or_default().as_secs_f64()
            }),
        }
    }

    /// Returns the number of writes that ended since the start, by state.
    pub(super) fn ended(&self) -> serde_json::Map<String, Value> {
        let counted = State::ALL.into_iter().zip(&self.shared.ended);
        let ended = counted.filter(|(state, _)| state.has_ended());
        ended
            .map(|(state, n)| (state.as_str().to_owned(), n.load(Ordering::Relaxed).into()))
            .collect()
    }

    /// Counts a write that ended in this state.
    pub(super) fn count_end(&self, state: State) {
        let mut counted = State::ALL.iter().zip(&self.shared.ended);
        if let Some((_, n)) = counted.find(|(of, _)| **of == state) {
            n.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the journal, which keeps what has to outlast this process.
    pub(crate) fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// Returns the credentials with writes that have not ended.
    pub(super) fn credentials(&self) -> BTreeSet<Credential> {
        let registry = self.shared.registry.lock();
        registry.credentials.keys().copied().collect()
    }

    /// Returns whether this credential has writes that have not ended.
    pub(super) fn has_writes(&self, credential: Credential) -> bool {
        let registry = self.shared.registry.lock();
        registry.credentials.contains_key(&credential)
    }

    /// Returns a write that has not ended.
    pub(super) fn pending(&self, id: WriteId) -> Option<Arc<PendingWrite>> {
        self.shared.registry.lock().by_id.get(&id).cloned()
    }

    /// Claims room for a write, unless its key is known.
    ///
    /// Two requests with one key cannot both claim it: the write is sent once, however often it is
    /// repeated meanwhile.
    ///
    /// The claim holds from before the journal is asked until [`Durable::release`]. There is room
    /// only within four bounds: all writes and all bytes, and half of each for one principal and
    /// for one credential. Halves are rounded up, so that a bound of one write admits one.
    pub(super) fn claim(&self, pending: PendingWrite) -> Claim {
        let bounds = &self.shared.bounds;
        let mut registry = self.shared.registry.lock();
        let key = pending.key.as_ref();
        let key = key.map(|key| (pending.credential, key.hash));
        if let Some(pending) = key.and_then(|key| registry.by_key.get(&key)) {
            return Claim::Pending(pending.clone());
        }
        // Nobody gets more than half, not even by one write. Who has no writes has no load yet, so
        // the size of a first write is checked by itself below.
        let principal = registry.principals.get(&pending.caller.principal);
        let loads = [principal, registry.credentials.get(&pending.credential)];
        let is_share_full = loads.into_iter().flatten().any(|own| {
            own.writes >= bounds.writes.div_ceil(2)
                || own.bytes + pending.bytes > bounds.bytes.div_ceil(2)
        });
        let is_full = is_share_full
            || registry.by_id.len() >= bounds.writes
            || registry.bytes + pending.bytes > bounds.bytes
            || pending.bytes > bounds.bytes.div_ceil(2);
        if is_full {
            return Claim::Full;
        }
        let pending = Arc::new(pending);
        registry.add(pending.clone());
        Claim::New(pending)
    }

    /// Adds a write that the last process left, whatever the bounds are now.
    /// The write was acknowledged, perhaps under larger bounds, and has to go on.
    pub(super) fn adopt(&self, pending: PendingWrite) -> Arc<PendingWrite> {
        let pending = Arc::new(pending);
        self.shared.registry.lock().add(pending.clone());
        pending
    }

    /// Replaces a write by another with the same id: it was given to another credential.
    ///
    /// Both steps happen under one lock, so that nobody finds the id missing.
    pub(super) fn replace(&self, pending: &PendingWrite, next: PendingWrite) -> Arc<PendingWrite> {
        let next = Arc::new(next);
        let mut registry = self.shared.registry.lock();
        registry.remove(pending);
        registry.add(next.clone());
        next
    }

    /// Returns the durable writes of a client in the order of acceptance.
    pub(super) fn of_client(&self, client: &str) -> Vec<Arc<PendingWrite>> {
        self.pending_with(|pending| {
            let of = pending.caller.principal.client();
            of.is_some_and(|of| **of == *client)
        })
    }

    /// Returns the deferred writes of a credential in the order of acceptance.
    pub(super) fn deferred_of(&self, credential: Credential) -> Vec<Arc<PendingWrite>> {
        self.pending_with(|pending| pending.credential == credential && pending.deferred)
    }

    fn pending_with(&self, wanted: impl Fn(&PendingWrite) -> bool) -> Vec<Arc<PendingWrite>> {
        let registry = self.shared.registry.lock();
        let pendings = registry.by_id.values();
        let own = pendings.filter(|pending| wanted(pending));
        let mut own: Vec<_> = own.cloned().collect();
        own.sort_unstable_by_key(|pending| pending.id);
        own
    }

    /// Returns the bounds of what is remembered of ended writes.
    pub(super) fn retention(&self) -> Retention {
        Retention {
            most: self.shared.bounds.ended,
        }
    }

    /// Returns whether one more write of this credential can be remembered when it ends.
    ///
    /// Asked before acceptance: a write whose end could not be remembered might be carried out
    /// twice, by a retry under its key.
    pub(super) fn has_room_for_end(&self, credential: Credential) -> bool {
        let registry = self.shared.registry.lock();
        self.retention().takes(&registry.ended, credential)
    }

    /// Removes a write that has ended, or was not accepted.
    ///
    /// If it was accepted, the journal has its end by now, and a request with its key finds it
    /// there.
    pub(super) fn release(&self, pending: &PendingWrite) {
        self.shared.registry.lock().remove(pending);
    }

    /// Returns a new id, for a write or a batch.
    pub(crate) fn new_id(&self, now: SystemTime) -> WriteId {
        self.shared.ids.next(now)
    }

    /// Ends a write that is not accepted, or not in the journal any more, with this error.
    pub(crate) fn refuse(&self, pending: &PendingWrite, error: GatewayError) {
        self.release(pending);
        pending.set(Stage::Released(Some(error)));
    }
}

impl Load {
    /// Adds a write of so many bytes.
    fn add(&mut self, bytes: usize) {
        self.writes += 1;
        self.bytes += bytes;
    }

    /// Removes a write of so many bytes. Returns whether there are others.
    fn remove(&mut self, bytes: usize) -> bool {
        self.writes = self.writes.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.writes > 0
    }
}

impl Registry {
    /// Adds a write by its id and key, and to the loads of its principal and credential.
    fn add(&mut self, pending: Arc<PendingWrite>) {
        self.bytes += pending.bytes;
        let principal = self
            .principals
            .entry(pending.caller.principal.clone())
            .or_default();
        principal.add(pending.bytes);
        let own = self.credentials.entry(pending.credential).or_default();
        own.add(pending.bytes);
        if let Some(key) = &pending.key {
            self.by_key
                .insert((pending.credential, key.hash), pending.clone());
        }
        self.by_id.insert(pending.id, pending);
    }

    /// Removes exactly this write, from everything that `add` put it into. A second call does
    /// nothing.
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
        let principal = self.principals.get_mut(&pending.caller.principal);
        if principal.is_some_and(|principal| !principal.remove(pending.bytes)) {
            self.principals.remove(&pending.caller.principal);
        }
        let own = self.credentials.get_mut(&pending.credential);
        if own.is_some_and(|own| !own.remove(pending.bytes)) {
            self.credentials.remove(&pending.credential);
        }
    }
}
