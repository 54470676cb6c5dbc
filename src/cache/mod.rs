//! The cache of reads: stored responses and shared fetches.
//!
//! Promises:
//!
//! - *Isolated.* No response obtained with one credential is served to another: the credential is
//!   part of every key.
//! - *Fresh.* Once a write has settled ([`Cache::settle`] has returned), no later reader gets data
//!   older than a direct read at that moment would have returned. The fence is checked three times:
//!   when a stored response is found, when a fetch is joined, and when a shared response is handed
//!   over ([`Cache::accepts`]). A reader who joined a fetch before it was sent needs no check: the
//!   response is as new as one of its own.
//! - *Single flight.* Of the readers who want the same thing at the same time, one fetches. As long
//!   as readers may wait ([`JoinRequest::waits`]), at most one fetch of a key is in flight and one
//!   is to follow, even during a settle time.
//! - *Bounded.* The store in bytes; the fetches and the marks in number.
//!
//! Pure parts: [`fence`] (which responses are valid), [`decide`] (who joins, who fetches),
//! [`request`] (what a reader accepts), [`fields`] (which request fields are sent), [`storable`]
//! and [`lifetime`] (what may be stored, and for how long), [`reuse`] (what may be served),
//! [`conditional`], [`range`], [`vary`], [`coding`], the parsers [`control`], [`targeted`] and
//! [`date`], [`key`], [`unauthorized`], [`cache_status`], [`reason`], `refusals`. The others hold
//! state: [`entry`], `store` and `marks` (together in `responses`), [`flight`], [`leader`].
//!
//! Steps of a read:
//!
//! 1. [`request::examine`] says whether the request is cacheable and what the reader accepts.
//!    [`CacheKey::new`] builds its key, and [`Cache::locate`] finds the variant.
//! 2. [`Cache::find`] looks into the store. A hit needs nothing else, not even the tags.
//! 3. On a miss, [`Cache::join`] decides. A [`Leader`] moves into a task of its own, which waits
//!    for its turn, calls [`Leader::start`] when it sends, and ends the fetch. The first reader
//!    gets the complete response directly from that task. A [`Follower`] waits, and serves a shared
//!    response if [`Cache::accepts`] it for its request. Otherwise the reader tries once more, and
//!    then fetches alone.
//! 4. If the fetch fails, a stale response from [`Cache::find`] may be served instead. See
//!    [`reuse`].
//!
//! The cache sends no requests and reads no clock.

pub use responses::Found;

use entry::Entry;
use fence::{Dependency, Stamp, Tag};
use flight::{Flights, Follower};
use http::{HeaderMap, StatusCode};
use key::{CacheKey, CredentialHash};
use leader::Leader;
use lifetime::Rules;
use media::MediaType;
use parking_lot::Mutex;
use reason::Miss;
use request::Wants;
use responses::Responses;
use reuse::{Freshness, Need};
use std::sync::Arc;
use std::time::Instant;
use store::StoredValue;
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
pub mod headers;
pub mod inspect;
pub mod key;
pub mod leader;
pub mod lifetime;
mod marks;
pub mod media;
mod progress;
pub mod range;
pub mod reason;
mod refusals;
pub mod request;
mod responses;
pub mod reuse;
pub mod storable;
mod store;
pub mod targeted;
#[cfg(test)]
mod tests;
pub mod unauthorized;
pub mod vary;

/// The largest number of credentials with a recent 401 that are remembered, about 150 bytes each.
const MAX_UNAUTHORIZED: usize = 10_000;

/// The bounds of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSpec {
    /// The weight of all stored responses in bytes, including headers, keys and bookkeeping.
    pub bytes: u64,
    /// The largest body that is stored or shared, in bytes.
    pub largest_body: usize,
    /// The largest number of concurrent shared fetches.
    pub fetches: usize,
    /// The largest number of marks of the fence.
    pub marks: usize,
}

/// The place of a response: the key of the request, and the key of the variant that applies to it.
#[derive(Clone, Debug)]
pub struct Located {
    /// The key, without the part that only variants have.
    pub primary: CacheKey,
    /// The key of the variant, if the responses under `primary` are known to vary.
    variant: Option<CacheKey>,
}

impl Located {
    /// The key under which the response is stored.
    pub fn key(&self) -> &CacheKey {
        self.variant.as_ref().unwrap_or(&self.primary)
    }
}

/// The input of [`Cache::join`].
#[derive(Clone, Copy, Debug)]
pub struct JoinRequest<'a> {
    /// The place of the response.
    pub at: &'a Located,
    /// The tags on which the response will depend. `None` if the route declares none, so that any
    /// write may change it.
    pub tags: Option<&'a [Tag]>,
    /// The path of the request.
    pub path: &'a str,
    /// The configuration of the operation.
    pub rules: &'a Rules,
    /// The requirements of the reader.
    pub wants: &'a Wants,
    /// Whether a reader waits for the response.
    pub purpose: Purpose,
    /// Whether the reader may wait for the end of a fetch in flight before it begins its own.
    pub waits: bool,
}

/// The purpose of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Serves a reader.
    Show,
    /// Refreshes the store. No reader waits for the response.
    Renew,
}

/// The next step of a reader.
#[derive(Debug)]
pub enum Join {
    /// Serve this response.
    Hit(Arc<Entry>, Freshness),
    /// Wait for another reader's fetch.
    Follow(Follower),
    /// Have the response fetched, for all who ask meanwhile.
    Lead(Leader),
    /// Fetch alone. Nothing is stored or shared.
    Alone(Miss),
}

/// The data that a write changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Unknown: any data.
    Everything,
    /// At most the responses to this credential.
    Credential(CredentialHash),
    /// Responses that depend on these names, and those that any write may have changed.
    Named {
        /// The tags of the write's route.
        tags: Vec<Tag>,
        /// The target of the write, and what its response names (`Location`, `Content-Location`;
        /// RFC 9111, section 4.4), whatever their queries.
        paths: Vec<Arc<str>>,
    },
    /// All responses of these operations (indices in the route table), and those that any write may
    /// have changed.
    Operations(Vec<u32>),
}

/// The cache of reads.
pub struct Cache {
    responses: Arc<Responses>,
    flights: Arc<Flights>,
    unauthorized: Mutex<Unauthorized>,
}

impl Cache {
    /// Creates an empty cache within these bounds.
    pub fn new(spec: &CacheSpec) -> Self {
        let responses = Responses::new(spec.bytes, spec.marks, spec.largest_body);
        Self {
            responses: Arc::new(responses),
            flights: Arc::new(Flights::new(spec.fetches)),
            unauthorized: Mutex::new(Unauthorized::new(MAX_UNAUTHORIZED)),
        }
    }

    /// Returns a fresh response that every request with this key may get. For readers without
    /// requirements. Takes none of the cache's own locks while no write settles.
    pub fn lookup(&self, key: &CacheKey, now: Instant) -> Option<Arc<Entry>> {
        self.responses.lookup(key, now)
    }

    /// Locates the response to a request with this header.
    pub fn locate(&self, primary: CacheKey, request: &HeaderMap) -> Located {
        let variant = match self.responses.store.get(&primary) {
            Some(StoredValue::Varies(fields)) => {
                Some(primary.variant(&fields, &vary::selection(&fields, request)))
            }
            _ => None,
        };
        Located { primary, variant }
    }

    /// Looks up a stored response that meets the reader's requirements. Takes none of the cache's
    /// own locks while no write settles.
    pub fn find(&self, at: &Located, wants: &Wants, now: Instant) -> Found {
        let absent = match at.variant {
            Some(_) => Miss::Variant,
            None => Miss::Absent,
        };
        self.responses.find(at.key(), wants, absent, now)
    }

    /// Returns whether a stale response may be served now for the reason `need`.
    pub fn may_stand_in(&self, entry: &Entry, wants: &Wants, need: Need, now: Instant) -> bool {
        self.responses.may_stand_in(entry, wants, need, now)
    }

    /// Decides the next step of a reader: serve, join, lead, or fetch alone.
    ///
    /// The table of fetches stays locked from the decision until the reader has joined or begun a
    /// fetch, so that nothing changes in between.
    pub fn join(&self, request: &JoinRequest<'_>, now: Instant) -> Join {
        let shows = request.purpose == Purpose::Show;
        let why = match self.find(request.at, request.wants, now) {
            Found::Shown(entry, how) if shows => return Join::Hit(entry, how),
            Found::Shown(..) => Miss::Expired,
            Found::Not(why, _) => why,
        };
        let key = request.at.key();
        let depends = dependencies(request);
        let is_shared = request.rules.ttl.is_some() || {
            let unshared = self.responses.unshared.lock();
            !unshared.contains(&key.operation())
        };
        let flights = self.flights.lock();
        let flight = flights.current(key);
        // The obstacle to a hit may have gone since the lookup. A fetch stores its response and
        // leaves the table in one step, so a reader who looks here sees it in one place or the
        // other.
        if flight.is_none()
            && shows
            && let Found::Shown(entry, how) = self.find(request.at, request.wants, now)
        {
            return Join::Hit(entry, how);
        }
        let fence = self.responses.marks.read();
        let why = match fence.settling(&depends, now) {
            true => Miss::Settling,
            false => why,
        };
        let input = decide::LookupInput {
            fence: &fence,
            depends: &depends,
            flight,
            free: flights.free(),
            sharing: decide::Sharing {
                is_shared: !shows || is_shared,
                joins_in_flight: !shows || !request.wants.is_reload(),
                waits: shows && request.waits,
                shows,
            },
        };
        let (stamp, is_next) = match decide::decision(&input, now) {
            decide::LookupDecision::Follow => {
                let follower = flights.follow(key, why, fence.stamp(now));
                // The decision follows a current fetch only.
                return follower.map_or(Join::Alone(why), Join::Follow);
            }
            decide::LookupDecision::Alone(why) => return Join::Alone(why),
            decide::LookupDecision::Lead(stamp) => (stamp, false),
            decide::LookupDecision::LeadNext(stamp) => (stamp, true),
        };
        drop(fence);
        let begun = decide::InFlight {
            stamp,
            has_left: false,
            is_renewal: !shows,
        };
        Join::Lead(Leader {
            flight: flights.begin(key, begun, is_next),
            responses: Arc::clone(&self.responses),
            primary: request.at.primary.clone(),
            stored: self.responses.comparable(key),
            stamp,
            depends,
            rules: *request.rules,
            why,
        })
    }

    /// Whether a shared response may be served to this request now. The response may vary, and a
    /// write may have settled since its fetch was joined. For a reader who joined before the fetch
    /// was sent (`came`, see [`Follower::came`]), the response is as new as one of its own,
    /// whatever was written.
    pub fn accepts(&self, entry: &Entry, came: Option<Stamp>, request: &HeaderMap) -> bool {
        let chosen = entry.variance();
        let is_own = || came.is_some_and(|came| entry.stamp().is_after(&came));
        chosen.is_none_or(|variance| variance.permits(request))
            && (is_own() || self.responses.marks.believes(entry))
    }

    /// Reports the response to a request outside the cache that was sent after `began`. Removes an
    /// older stored response if the API says that there is nothing any more, or not for this
    /// credential.
    pub fn answered_alone(
        &self,
        at: &Located,
        status: StatusCode,
        headers: &HeaderMap,
        began: Instant,
    ) {
        // A page of something in front of the API says nothing about the API's data.
        let is_of_api = MediaType::of(headers) != MediaType::Other;
        if is_of_api && matches!(status.as_u16(), 403 | 404 | 410) {
            self.responses.end_older(at.key(), began);
        }
    }

    /// Applies the end of a write, or its unknown outcome, to the fence. Once this returns, nothing
    /// that the write touched is served if its fetch began before. Until `settled`, nothing that it
    /// touched is stored or shared, because the API may lag. Must be called before the write's
    /// caller gets its response.
    pub fn settle(&self, touched: &Invalidation, settled: Instant) {
        let marks = &self.responses.marks;
        match touched {
            Invalidation::Everything => marks.raise_floor(settled),
            Invalidation::Credential(credential) => {
                marks.raise([Dependency::Credential(*credential)], settled);
            }
            Invalidation::Named { tags, paths } => {
                let tags = tags.iter().cloned().map(Dependency::Tag);
                let paths = paths.iter().cloned().map(Dependency::Path);
                marks.raise(tags.chain(paths).chain([Dependency::AnyWrite]), settled);
            }
            Invalidation::Operations(operations) => {
                let shown = operations.iter().copied().map(Dependency::Operation);
                marks.raise(shown.chain([Dependency::AnyWrite]), settled);
            }
        }
    }

    /// Reports a 401 for this credential. See [`unauthorized`]. Must be called before the response
    /// is passed on, whatever the request was.
    pub fn unauthorized(&self, credential: &CredentialHash, refused: Refused, now: Instant) {
        let doubt = self.unauthorized.lock().note(*credential, refused, now);
        let name = match doubt {
            Doubt::Operation(operation) => Dependency::Access(*credential, operation),
            Doubt::Credential => Dependency::Credential(*credential),
        };
        self.responses.marks.raise([name], now);
    }
}

/// The dependencies of a response, as far as they are known before it is received.
fn dependencies(ask: &JoinRequest<'_>) -> Vec<Dependency> {
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

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({:?})", self.flights)
    }
}
