//! Reads: answers that are stored, and fetches that are shared.
//!
//! Promises:
//! - *Isolated.* No answer obtained with one credential is shown to another: the credential is
//!   part of every key.
//! - *Fresh.* Once a write has settled ([`Cache::settle`] has returned), no reader who comes after
//!   it gets data older than a direct read at that moment would have brought: not from the store,
//!   not from a fetch that was under way, not after joining one. Three doors see to it: stored
//!   answers are judged when they are found, fetches when they are joined, and shared answers
//!   once more when they are handed over ([`Cache::accepts`]). Who joined a fetch before it left needs
//!   no door: its answer is as new as one of their own.
//! - *One fetch.* Of those who ask for one thing at a time, one fetches; of one key at most one fetch
//!   is under way and one to come, also while a write settles.
//! - *Bounded.* The store in bytes, the fetches and the marks in number.
//!
//! Pure parts: [`fence`] (what is believed), [`decide`] (who joins, who fetches), [`request`] (what
//! a reader accepts), [`fields`] (what is sent of a request), [`storable`] and [`lifetime`] (what
//! may be stored, and how long it lives), [`reuse`] (what may be shown), [`conditional`], [`range`], [`vary`], [`coding`], the languages
//! [`control`], [`targeted`] and [`date`], [`key`], [`unauthorized`], [`cache_status`], [`reason`],
//! `refusals`. The rest holds state: [`entry`], `store`, [`flight`], [`leader`], `marks`.
//!
//! How to use it, on the path of a read:
//! 1. [`request::examine`] says whether it is a matter for the cache, and what the reader accepts;
//!    [`Key::new`] names it, and [`Cache::locate`] finds the variant that is meant.
//! 2. [`Cache::find`]. What it shows needs nothing else, not even the tags.
//! 3. Otherwise [`Cache::board`]. A [`Leader`] moves into a task of its own, which awaits
//!    [`Leader::turn`], calls [`Leader::departs`] when it sends, and ends it; the first reader gets
//!    the whole answer from that task directly. A [`Follower`] waits, and what it gets shared is shown if
//!    [`Cache::accepts`] it for that request; else the reader boards once more, and after that
//!    fetches alone.
//! 4. Where that fails, what [`Cache::find`] has found stale may stand in: see [`reuse`].
//!
//! It fetches nothing itself and reads no clock.

use entry::Entry;
use fence::{CredentialHash, Dependency, Stamp, Tag};
use flight::{Flights, Follower, Plan};
use http::{HeaderMap, StatusCode};
use key::{Key, KeyHash};
use leader::Leader;
use lifetime::Rules;
use marks::Marks;
use parking_lot::Mutex;
use reason::{Miss, Refusal};
use refusals::Refusals;
use request::Wants;
use reuse::{Need, Use};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use store::{Slot, Store};
use unauthorized::{Doubt, Refused, Unauthorized};

pub mod cache_status;
pub mod coding;
pub mod conditional;
pub mod control;
pub mod date;
pub mod decide;
pub mod entry;
pub mod fence;
pub mod fields;
pub mod flight;
pub mod inspect;
pub mod key;
pub mod leader;
pub mod lifetime;
mod marks;
mod progress;
pub mod range;
pub mod reason;
mod refusals;
pub mod request;
pub mod reuse;
pub mod storable;
mod store;
pub mod targeted;
#[cfg(test)]
mod tests;
pub mod unauthorized;
pub mod vary;

/// How many credentials with a recent 401 are remembered; about 150 bytes each.
const MAX_UNAUTHORIZED: usize = 10_000;
/// How many keys are remembered whose answers were not stored; about 100 bytes each.
const MAX_REFUSALS: usize = 10_000;

/// The bounds of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What all stored answers may weigh, headers, keys and bookkeeping included, in bytes.
    pub bytes: u64,
    /// The largest body that is stored or shared, in bytes.
    pub largest_body: usize,
    /// How many shared fetches may be under way.
    pub fetches: usize,
    /// How many marks the fence holds.
    pub marks: usize,
}

/// Where a request's answer stands: its key, and the key of the variant that is meant.
#[derive(Clone, Debug)]
pub struct Located {
    /// The key without what varies.
    pub primary: Key,
    /// The key of the variant, where the answers under `primary` are known to vary.
    variant: Option<Key>,
}

impl Located {
    /// The key under which the answer would stand.
    pub fn key(&self) -> &Key {
        self.variant.as_ref().unwrap_or(&self.primary)
    }
}

/// What a reader asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where the answer would stand.
    pub at: &'a Located,
    /// What the answer will depend on, as far as the route knows; `None` if it does not, so that any
    /// write may change it.
    pub tags: Option<&'a [Tag]>,
    /// The path of the request.
    pub path: &'a str,
    /// What the operator has configured.
    pub rules: &'a Rules,
    /// What the reader accepts.
    pub wants: &'a Wants,
    /// Whether a reader waits for it.
    pub purpose: Purpose,
    /// Whether it may wait for the end of a fetch that is under way before it begins its own.
    pub waits: bool,
}

/// What a fetch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To show something to a reader.
    Show,
    /// To have something newer in the store; nobody waits for it.
    Renew,
}

/// What the store has for a reader.
#[derive(Clone, Debug)]
pub enum Found {
    /// Show this.
    Shown(Arc<Entry>, Use),
    /// Ask the API, and why. An answer that is stale but believed may stand in if that fails.
    Not(Miss, Option<Arc<Entry>>),
}

/// What a reader has to do.
#[derive(Debug)]
pub enum Board<E> {
    /// Show this.
    Hit(Arc<Entry>, Use),
    /// Wait for a fetch under way.
    Follow(Follower<E>),
    /// Have it fetched, for everyone who asks meanwhile.
    Lead(Leader<E>),
    /// Fetch for itself; nothing is stored or shared.
    Alone(Miss),
}

/// What a write changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Nobody knows: anything.
    Everything,
    /// What this credential is shown, at most.
    Credential(CredentialHash),
    /// What depends on these, and what nobody can tell the writes of.
    Named {
        /// The tags of its route.
        tags: Vec<Tag>,
        /// Its target, and what its answer names (`Location`, `Content-Location`; RFC 9111,
        /// section 4.4), whatever their queries.
        paths: Vec<Arc<str>>,
    },
    /// What any of these operations (their indices in the route table) showed anyone, and what
    /// nobody can tell the writes of.
    Operations(Vec<u32>),
}

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// All of it.
    Everything,
    /// What depends on this.
    Tag(Tag),
    /// What this operation (its index in the route table) showed anyone.
    Operation(u32),
    /// What this credential was shown.
    Credential(CredentialHash),
    /// What stands under this key, all variants of it.
    Key(KeyHash),
}

/// The cache's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Stored answers; follows the truth within a moment.
    pub entries: u64,
    /// What they weigh, in bytes; follows the truth within a moment.
    pub bytes: u64,
    /// Answers pushed out for want of room, since the start.
    pub evictions: u64,
    /// Shared fetches under way.
    pub fetches: usize,
    /// Marks of the fence.
    pub marks: usize,
    /// The fence's generation: how often a mark or the floor was raised, plus one.
    pub generation: u64,
    /// How often the fence's floor was raised, since the start.
    pub floor_moves: u64,
}

/// The cache. Cheap to clone. `E` is the error of a failed fetch, handed to everyone who waits.
pub struct Cache<E> {
    inner: Arc<Inner<E>>,
}

pub(crate) struct Inner<E> {
    store: Store,
    marks: Marks,
    flights: Arc<Flights<E>>,
    unauthorized: Mutex<Unauthorized>,
    refusals: Mutex<Refusals>,
    /// Operations without a time to live whose latest answer was not for others: of these, each
    /// reader fetches for itself, so that nobody waits for an answer that is not for it. Otherwise
    /// those who ask at a time wait for one fetch.
    unshared: Mutex<HashSet<u32>>,
    largest_body: usize,
}

impl<E> Cache<E> {
    /// An empty cache within these bounds.
    pub fn new(spec: &Spec) -> Self {
        let inner = Inner {
            store: Store::new(spec.bytes),
            marks: Marks::new(spec.marks),
            flights: Arc::new(Flights::new(spec.fetches)),
            unauthorized: Mutex::new(Unauthorized::new(MAX_UNAUTHORIZED)),
            refusals: Mutex::new(Refusals::new(MAX_REFUSALS)),
            unshared: Mutex::default(),
            largest_body: spec.largest_body,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The answer under a key that every request with it may be shown as a fresh one. Takes no lock
    /// of ours while no write settles. For readers who want nothing in particular.
    pub fn lookup(&self, key: &Key, now: Instant) -> Option<Arc<Entry>> {
        match self.inner.store.get(key) {
            Some(Slot::Answer(entry)) if entry.is_fresh(now) && entry.variance().is_none() => {
                self.inner.marks.believes(&entry).then_some(entry)
            }
            _ => None,
        }
    }

    /// Where the answer to a request with this header stands.
    pub fn locate(&self, primary: Key, request: &HeaderMap) -> Located {
        let variant = match self.inner.store.get(&primary) {
            Some(Slot::Varies(fields)) => {
                Some(primary.variant(&fields, &vary::selection(&fields, request)))
            }
            _ => None,
        };
        Located { primary, variant }
    }

    /// What is stored for a reader who accepts this. Takes no lock of ours while no write settles.
    pub fn find(&self, at: &Located, wants: &Wants, now: Instant) -> Found {
        let Some(Slot::Answer(entry)) = self.inner.store.get(at.key()) else {
            let why = if at.variant.is_some() {
                Miss::Variant
            } else {
                Miss::Absent
            };
            return Found::Not(why, None);
        };
        if !self.inner.marks.believes(&entry) {
            return Found::Not(Miss::Fenced, None);
        }
        match reuse::judge(entry.life(), entry.age(now), wants) {
            Ok(how) => Found::Shown(entry, how),
            Err(why) => Found::Not(why, Some(entry)),
        }
    }

    /// Whether a stale answer may be shown in this need, at this moment.
    pub fn may_stand_in(&self, entry: &Entry, wants: &Wants, need: Need, now: Instant) -> bool {
        reuse::may_stand_in(entry.life(), entry.age(now), wants, need)
            && self.inner.marks.believes(entry)
    }

    /// Decides what a reader has to do.
    pub fn board(&self, ask: &Ask<'_>, now: Instant) -> Board<E> {
        let shows = ask.purpose == Purpose::Show;
        let mut why = match self.find(ask.at, ask.wants, now) {
            Found::Shown(entry, how) if shows => return Board::Hit(entry, how),
            Found::Shown(..) => Miss::Expired,
            Found::Not(why, _) => why,
        };
        let depends = dependencies(ask);
        let operation = ask.at.primary.operation();
        let is_shared = ask.rules.ttl.is_some() || !self.inner.unshared.lock().contains(&operation);
        let boarded = self
            .inner
            .flights
            .board(ask.at.key(), !shows, |current, free| {
                // What stood in the way of a hit may have ended since: a fetch stores its answer
                // and leaves the table in one step, so here it is seen in one place or the other.
                if current.is_none()
                    && shows
                    && let Found::Shown(entry, how) = self.find(ask.at, ask.wants, now)
                {
                    return Plan::Other(Board::Hit(entry, how));
                }
                let scene = decide::Scene {
                    fence: &self.inner.marks.read(),
                    depends: &depends,
                    flight: current.as_ref().map(|current| current.state()),
                    free,
                    sharing: decide::Sharing {
                        is_shared: !shows || is_shared,
                        joins_under_way: !shows || !ask.wants.is_reload(),
                        waits: shows && ask.waits,
                        shows,
                    },
                };
                if scene.fence.settling(&depends, now) {
                    why = Miss::Settling;
                }
                match (decide::seat(&scene, now), current) {
                    (decide::Seat::Follow, Some(current)) => {
                        let present = scene.fence.stamp(now);
                        Plan::Other(Board::Follow(current.follow(why, present)))
                    }
                    (decide::Seat::Lead(stamp), _) => Plan::Lead(stamp),
                    (decide::Seat::LeadNext(stamp), _) => Plan::LeadNext(stamp),
                    (decide::Seat::Alone(why), _) => Plan::Other(Board::Alone(why)),
                    // A seat beside nobody: never given, and harmless.
                    (decide::Seat::Follow, None) => Plan::Other(Board::Alone(why)),
                }
            });
        match boarded {
            Err(board) => board,
            Ok((ticket, stamp)) => Board::Lead(Leader {
                inner: Arc::clone(&self.inner),
                primary: ask.at.primary.clone(),
                stored: self.inner.comparable(ask.at.key()),
                ticket,
                stamp,
                depends,
                rules: *ask.rules,
                why,
            }),
        }
    }

    /// Whether a shared answer may be shown to this request at this moment: it may vary, and a write
    /// may have settled since its fetch was joined. To whoever joined it before it left (`came`, see
    /// [`Follower::came`]) that is as new as an answer of their own, whatever was written.
    pub fn accepts(&self, entry: &Entry, came: Option<Stamp>, request: &HeaderMap) -> bool {
        let chosen = entry.variance();
        let is_own = || came.is_some_and(|came| entry.stamp().is_after(&came));
        chosen.is_none_or(|variance| variance.permits(request))
            && (is_own() || self.inner.marks.believes(entry))
    }

    /// The API has answered a request for itself alone, which left after `began`: what is stored is
    /// forgotten if it is older and there is nothing any more, or not for this credential.
    pub fn answered_alone(&self, at: &Located, status: StatusCode, began: Instant) {
        if matches!(status.as_u16(), 403 | 404 | 410) {
            self.inner.end_older(at.key(), began);
        }
    }

    /// A write ended, or will never be known to have: from the moment this returns, nothing that
    /// it touched is shown if its fetch began before. Until `settled` nothing it touched is
    /// stored or shared, because the API may lag. To be called before the write's caller hears.
    pub fn settle(&self, touched: &Touched, settled: Instant) {
        let marks = &self.inner.marks;
        match touched {
            Touched::Everything => marks.raise_floor(settled),
            Touched::Credential(credential) => {
                marks.raise([Dependency::Credential(*credential)], settled);
            }
            Touched::Named { tags, paths } => {
                let tags = tags.iter().cloned().map(Dependency::Tag);
                let paths = paths.iter().cloned().map(Dependency::Path);
                marks.raise(tags.chain(paths).chain([Dependency::AnyWrite]), settled);
            }
            Touched::Operations(operations) => {
                let shown = operations.iter().copied().map(Dependency::Operation);
                marks.raise(shown.chain([Dependency::AnyWrite]), settled);
            }
        }
    }

    /// The upstream answered this credential with 401: see [`unauthorized`]. To be called before
    /// the answer is handed on, whatever the request was.
    pub fn unauthorized(&self, credential: &CredentialHash, refused: Refused, now: Instant) {
        let doubt = self
            .inner
            .unauthorized
            .lock()
            .note(*credential, refused, now);
        let name = match doubt {
            Doubt::Operation(operation) => Dependency::Access(*credential, operation),
            Doubt::Credential => Dependency::Credential(*credential),
        };
        self.inner.marks.raise([name], now);
    }

    /// The cache's figures.
    pub fn stats(&self) -> Stats {
        // Before the fence is locked: elsewhere its lock is the inner one.
        let fetches = self.inner.flights.under_way();
        let fence = self.inner.marks.read();
        Stats {
            entries: self.inner.store.entries(),
            bytes: self.inner.store.bytes(),
            evictions: self.inner.store.evictions(),
            fetches,
            marks: fence.marks(),
            generation: fence.generation(),
            floor_moves: fence.floor_moves(),
        }
    }

    /// Carries out what the store has put off, so that [`Cache::stats`] is exact and memory is
    /// given back. Nobody here calls it: whoever asks for the figures does so before, and a timer
    /// may where nobody asks. Not on the path of a request.
    pub fn tidy(&self) {
        self.inner.store.tidy();
    }
}

impl<E> Inner<E> {
    /// What the API can be asked about before the answer under a key is fetched anew, or may stand in
    /// for a failure.
    fn comparable(&self, key: &Key) -> Option<Arc<Entry>> {
        let Some(Slot::Answer(entry)) = self.store.get(key) else {
            return None;
        };
        self.is_comparable(&entry).then_some(entry)
    }

    /// One that is not believed after a write is comparable only if its tag promises equal bytes.
    fn is_comparable(&self, entry: &Entry) -> bool {
        let is_strong = || entry.validators().is_some_and(|own| own.is_strong());
        self.marks.believes(entry) || is_strong()
    }

    /// Remembers what became of an answer: whether it was stored, and for others as well.
    fn note(&self, key: KeyHash, operation: u32, stored: Result<bool, Refusal>, now: Instant) {
        match stored {
            Ok(true) => drop(self.unshared.lock().remove(&operation)),
            Ok(false) => drop(self.unshared.lock().insert(operation)),
            Err(why) => {
                if why.is_of_the_answer() {
                    self.unshared.lock().insert(operation);
                }
                self.refusals.lock().note(key, why, now);
            }
        }
    }

    /// Forgets what stands under a key if its fetch began before.
    fn end_older(&self, key: &Key, began: Instant) {
        if let Some(Slot::Answer(entry)) = self.store.get(key)
            && entry.stamp().at() < began
        {
            self.store.remove(key);
        }
    }

    fn store_if_believed(
        &self,
        primary: &Key,
        entry: &Arc<Entry>,
        now: Instant,
    ) -> Result<(), Refusal> {
        if !self.marks.believes(entry) {
            let settling = self.marks.read().settling(entry.depends(), now);
            return Err(if settling {
                Refusal::Settling
            } else {
                Refusal::Fenced
            });
        }
        let key = match entry.variance() {
            None => primary.clone(),
            Some(variance) => {
                let fields = Arc::clone(&variance.fields);
                if !self.store.insert(primary.clone(), Slot::Varies(fields)) {
                    return Err(Refusal::TooLarge);
                }
                primary.variant(&variance.fields, &variance.selection)
            }
        };
        let newer = |slot: Slot| matches!(slot, Slot::Answer(old) if old.stamp() > entry.stamp());
        if self.store.get(&key).is_some_and(newer) {
            return Err(Refusal::Superseded);
        }
        if self.store.insert(key, Slot::Answer(Arc::clone(entry))) {
            Ok(())
        } else {
            Err(Refusal::TooLarge)
        }
    }
}

/// What the answer to a reader will depend on, as far as is known before it is there.
fn dependencies(ask: &Ask<'_>) -> Vec<Dependency> {
    let primary = &ask.at.primary;
    let (credential, operation) = (primary.credential(), primary.operation());
    let mut depends = vec![
        Dependency::Credential(credential),
        Dependency::Access(credential, operation),
        Dependency::Operation(operation),
        Dependency::Path(ask.path.into()),
        Dependency::Key(primary.hash()),
    ];
    match ask.tags {
        Some(tags) => depends.extend(tags.iter().cloned().map(Dependency::Tag)),
        None => depends.push(Dependency::AnyWrite),
    }
    depends
}

impl<E> Clone for Cache<E> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<E> std::fmt::Debug for Cache<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({:?})", self.inner.flights)
    }
}
