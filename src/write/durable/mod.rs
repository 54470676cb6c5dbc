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
pub(crate) use pending::Live;
pub use recovery::{Recovered, RecoveryError};

use crate::credential::Credential;
use crate::exchange::request::short;
use crate::journal::{Journal, JournalError, KeyHash, Remembered, State, WriteId, WriteIds};
use crate::metrics::DurableGauge;
use crate::queue::lanes::Turn;
use crate::write::Writes;
use checks::Checks;
use parking_lot::Mutex;
use pending::{Birth, Stage, Tries};
use retention::{AT_LEAST, Ended as EndedBefore, Retention};
use scheduler::{Feed, LineKey};
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
    feed: Mutex<Feed<Arc<Live>>>,
    /// Which credentials the API takes.
    checks: Mutex<Checks<watch::Receiver<Option<checks::Verdict>>>>,
    /// More may be brought than was.
    hungry: Notify,
    /// How many have ended since the start: in the order of [`State::ALL`].
    ended: [AtomicU64; 6],
}

/// Those that have been accepted and have not ended.
#[derive(Debug, Default)]
struct Registry {
    by_id: HashMap<WriteId, Arc<Live>>,
    by_key: HashMap<(Credential, KeyHash), Arc<Live>>,
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
    New(Arc<Live>),
    /// One with the same key is under way.
    UnderWay(Arc<Live>),
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
                feed: Mutex::default(),
                checks: Mutex::default(),
                hungry: Notify::new(),
                ended: Default::default(),
            }),
        }
    }

    /// How many are in which state.
    pub fn levels(&self, now: Instant) -> DurableGauge {
        let registry = self.shared.registry.lock();
        let is_under_way = |live: &&Arc<Live>| matches!(live.stage(), Stage::Left);
        let dispatched = registry.by_id.values().filter(is_under_way).count();
        let (all, bytes) = (registry.by_id.len(), registry.bytes);
        let first = registry.by_id.values().map(|live| live.accepted).min();
        drop(registry);
        DurableGauge {
            queued: all - dispatched,
            dispatched,
            paused: self.shared.feed.lock().paused().count(),
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

    fn live(&self, id: WriteId) -> Option<Arc<Live>> {
        self.shared.registry.lock().by_id.get(&id).cloned()
    }

    /// Room for one more, unless its key is known.
    fn claim(&self, birth: Birth) -> Claim {
        let bounds = &self.shared.bounds;
        let mut registry = self.shared.registry.lock();
        let key = birth.key.map(|key| (birth.credential, key.hash));
        if let Some(under_way) = key.and_then(|key| registry.by_key.get(&key)) {
            return Claim::UnderWay(under_way.clone());
        }
        let peer = registry.peers.get(&birth.caller.peer);
        let loads = [peer, registry.credentials.get(&birth.credential)];
        let is_share_full = loads.into_iter().flatten().any(|own| {
            own.writes >= bounds.writes.div_ceil(2)
                || own.bytes + birth.bytes > bounds.bytes.div_ceil(2)
        });
        let is_full = is_share_full
            || registry.by_id.len() >= bounds.writes
            || registry.bytes + birth.bytes > bounds.bytes
            || birth.bytes > bounds.bytes.div_ceil(2);
        if is_full {
            return Claim::Full;
        }
        let live = Arc::new(Live::new(birth, Tries::default()));
        registry.add(live.clone());
        Claim::New(live)
    }

    /// Takes in one that the last process left, whatever the bounds are now.
    fn adopt(&self, birth: Birth, tries: Tries) -> Arc<Live> {
        let live = Arc::new(Live::new(birth, tries));
        self.shared.registry.lock().add(live.clone());
        live
    }

    /// Another takes the place of this one, under the same id.
    fn replace(&self, live: &Live, birth: Birth, tries: Tries) -> Arc<Live> {
        let next = Arc::new(Live::new(birth, tries));
        let mut registry = self.shared.registry.lock();
        registry.remove(live);
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

    fn release(&self, live: &Live) {
        self.shared.registry.lock().remove(live);
    }

    /// Lets a deferred one wait to be brought before its budget.
    fn feed(&self, live: &Arc<Live>, turn: Turn, is_ready: impl Fn() -> bool) {
        let line = line_of(live);
        let mut feed = self.shared.feed.lock();
        feed.enter(turn, live.clone(), line, live.urgency, false);
        // Its lanes may have opened before it was here to be named.
        if is_ready() {
            feed.ready(turn);
        }
        drop(feed);
        self.shared.hungry.notify_one();
    }
}

fn line_of(live: &Live) -> LineKey {
    LineKey {
        credential: live.credential,
        operation: live.operation.name.clone(),
        caller: live.caller.clone(),
        merges: live
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
    fn add(&mut self, live: Arc<Live>) {
        self.bytes += live.bytes;
        let peer = self.peers.entry(live.caller.peer).or_default();
        peer.add(live.bytes);
        let own = self.credentials.entry(live.credential).or_default();
        own.add(live.bytes);
        if let Some(key) = &live.key {
            self.by_key
                .insert((live.credential, key.hash), live.clone());
        }
        self.by_id.insert(live.id, live);
    }

    fn remove(&mut self, live: &Live) {
        // Another credential may have it under the same id by now.
        let known = self.by_id.get(&live.id);
        if !known.is_some_and(|known| std::ptr::eq(&**known, live)) {
            return;
        }
        self.by_id.remove(&live.id);
        if let Some(key) = &live.key {
            self.by_key.remove(&(live.credential, key.hash));
        }
        self.bytes = self.bytes.saturating_sub(live.bytes);
        let peer = self.peers.get_mut(&live.caller.peer);
        if peer.is_some_and(|peer| !peer.remove(live.bytes)) {
            self.peers.remove(&live.caller.peer);
        }
        let own = self.credentials.get_mut(&live.credential);
        if own.is_some_and(|own| !own.remove(live.bytes)) {
            self.credentials.remove(&live.credential);
        }
    }
}

/// Stands before a budget until it is dropped.
struct Brought {
    durable: Durable,
    turn: Turn,
    line: LineKey,
}

impl Drop for Brought {
    fn drop(&mut self) {
        self.durable.shared.feed.lock().gone(self.turn, &self.line);
        self.durable.shared.hungry.notify_one();
    }
}

impl Writes {
    /// Brings deferred writes before their budgets, for as long as the future is polled. Another
    /// one may take over from one that panicked.
    pub async fn drive_deferred(self: Arc<Self>) {
        loop {
            let follows = |credential, turn, these: &_| self.queue.follows(credential, turn, these);
            let brought = self.durable.shared.feed.lock().bring(follows);
            for (live, turn, line) in brought {
                let brought = Brought {
                    durable: self.durable.clone(),
                    turn,
                    line,
                };
                self.bring(live, brought);
            }
            tokio::select! {
                () = self.durable.shared.hungry.notified() => {}
                freed = self.queue.freed() => {
                    let mut feed = self.durable.shared.feed.lock();
                    for turn in freed {
                        feed.ready(turn);
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
    fn tell_end(&self, live: &Live, state: State, attempts: u32) {
        self.durable.count_end(state);
        self.metrics
            .durable_ended(&live.operation.name, state.as_str());
        let (operation, credential) = (&live.operation.name, live.credential);
        let (id, request_id, summary) = (live.id, live.request_id(), &live.summary);
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
