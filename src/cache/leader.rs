//! The leader of a fetch that other readers may join.
//!
//! Promises that a response is stored only if that is permitted, if the response is valid, and if
//! no newer fetch of its key has been sent. Followers get what may be shared, whether or not the
//! response was stored. A task of its own owns the leader, not the task of the first reader, so
//! that a reader who hangs up does not end the fetch for the others.
//!
//! The leader does not send requests. Its owner sends them and reports each step.

use super::coding::{self, Unfit};
use super::conditional::{Validators, renewed};
use super::entry::{About, Entry};
use super::fence::{Dependency, Stamp};
use super::flight::{FetchOutcome, FlightGuard};
use super::headers::ReceivedResponse;
use super::key::CacheKey;
use super::lifetime::{Lifetime, Rules, Said};
use super::reason::{Miss, StoreRefusal};
use super::request::Wants;
use super::responses::Responses;
use super::reuse::Need;
use super::storable::{ResponseFacts, Storability, is_last_word, judge};
use super::vary::Variance;
use crate::error::GatewayError;
use http::{HeaderMap, StatusCode};
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Carries out a fetch. Dropping a leader before the end frees the key, and the followers find the
/// fetch lost.
pub struct Leader {
    /// The place in the table of fetches. It tells the followers how far the fetch has come.
    pub flight: FlightGuard,
    pub(super) responses: Arc<Responses>,
    /// The key, without the part that only variants have.
    pub(super) primary: CacheKey,
    /// The stored response, if it can be validated or may be served when the API fails.
    pub(super) stored: Option<Arc<Entry>>,
    pub(super) stamp: Stamp,
    pub(super) depends: Vec<Dependency>,
    pub(super) rules: Rules,
    pub(super) why: Miss,
}

/// The circumstances in which a response was received.
#[derive(Clone, Copy, Debug)]
pub struct Receipt<'a> {
    /// The header of the request as its reader wrote it.
    pub request: &'a HeaderMap,
    /// The instant of receipt.
    pub now: Instant,
    /// The wall-clock time of receipt.
    pub wall: SystemTime,
}

/// The result of a fetch.
#[derive(Clone, Debug)]
pub struct Completed {
    /// The response as stored or shared. `None` if it is for the first reader only.
    pub entry: Option<Arc<Entry>>,
    /// Whether the response was stored, or the reason why not.
    pub stored: Result<(), StoreRefusal>,
}

impl Leader {
    /// The reason why the store did not serve the first reader.
    pub fn why(&self) -> Miss {
        self.why
    }

    /// The key of the fetch, without the part that only variants have.
    pub fn key(&self) -> &CacheKey {
        &self.primary
    }

    /// Marks the fetch as sent. Must be called right before the first attempt and before each
    /// further one, and never after a byte of the request may have been sent.
    ///
    /// Until this call the fetch may have been queued, and writes that settled in that time do not
    /// make its response old. They do invalidate the stored response, which a 304 then cannot
    /// confirm. Returns `false` if the request must not be sent: it is a refresh, and a reader has
    /// begun a fetch of its own since, which may already have ended.
    pub fn start(&mut self, now: Instant) -> bool {
        let Some(stamp) = self.flight.depart(|| self.responses.marks.stamp(now)) else {
            return false;
        };
        self.stamp = stamp;
        // A write may have settled during the wait. The stamp is taken before this check, so no
        // write can go unnoticed between the two.
        self.stored = self
            .stored
            .take()
            .filter(|stored| self.responses.is_comparable(stored));
        true
    }

    /// The instant from which the API reflects every known write to the dependencies.
    pub fn settled_at(&self) -> Option<Instant> {
        self.responses.marks.read().settled_at(&self.depends)
    }

    /// The stored response. See [`reuse`](super::reuse) for when it may be served.
    pub fn stored(&self) -> Option<&Arc<Entry>> {
        self.stored.as_ref()
    }

    /// The validators for a conditional request, which saves the API from sending the stored
    /// response again.
    pub fn validators(&self) -> Option<Validators> {
        self.stored.as_ref()?.validators()
    }

    /// The reason why the response is for the first reader only, if its head already shows that.
    /// Followers then need not wait for the body. `length` is the announced length, 0 if there is
    /// none.
    pub fn refusal(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        length: u64,
        receipt: &Receipt<'_>,
    ) -> Option<StoreRefusal> {
        let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        match self.judge(status, headers, body_bytes, receipt) {
            Storability::Private(reason) => Some(reason),
            Storability::Share(_) | Storability::Validate(_) | Storability::Store(_) => None,
        }
    }

    /// Ends the fetch with a complete response: judges it, stores it if permitted, and hands it to
    /// the followers if they may share it.
    pub fn finish(self, answer: &ReceivedResponse<'_>, receipt: &Receipt<'_>) -> Completed {
        let verdict = self.judge(answer.status, answer.headers, answer.body.len(), receipt);
        let most = self.responses.largest_body;
        let coding = match coding::examine(answer.headers, answer.body, most) {
            Ok(coding) => coding,
            Err(Unfit::TooLong) => {
                return self.refuse(StoreRefusal::TooLarge, answer.status, receipt.now);
            }
            Err(Unfit::Malformed) => {
                return self.refuse(StoreRefusal::Undecodable, answer.status, receipt.now);
            }
        };
        let make = |leader: &Self, life: Option<Lifetime>| {
            let about = About {
                coding,
                ..leader.about(answer.status, answer.headers, life, receipt)
            };
            Arc::new(Entry::new(answer, about))
        };
        self.complete(verdict, answer.status, receipt, make)
    }

    /// Ends the fetch with a 304: the stored response counts as fetched now. Returns the response
    /// for the first reader, and the result. If the response may not be stored any more, it is
    /// removed.
    ///
    /// # Errors
    /// Returns the leader if the 304 was not requested or is about another response. The next
    /// attempt then requests the whole response.
    pub fn renew(
        mut self,
        headers: &HeaderMap,
        receipt: &Receipt<'_>,
    ) -> Result<(Arc<Entry>, Completed), Box<Self>> {
        let stored = self.stored.take();
        let confirmed = |stored: &Arc<Entry>| {
            let validators = stored.validators();
            validators.is_some_and(|validators| validators.are_confirmed_by(headers))
        };
        let Some(stored) = stored.filter(confirmed) else {
            return Err(Box::new(self));
        };
        let headers = renewed(&stored.shared_headers(), headers);
        let status = stored.status();
        let verdict = self.judge(status, &headers, stored.body().len(), receipt);
        let make = |leader: &Self, life: Option<Lifetime>| {
            let about = About {
                coding: stored.coding(),
                ..leader.about(status, &headers, life, receipt)
            };
            Arc::new(stored.renewed(&headers, about))
        };
        // The first reader gets the response even if it may not be stored any more.
        let shown = make(&self, None);
        if let Storability::Private(_) | Storability::Share(_) = verdict {
            // Removed before the fetch ends, so that no reader finds it afterwards.
            self.responses.store.remove(self.flight.key());
        }
        Ok((shown, self.complete(verdict, status, receipt, make)))
    }

    /// Ends the fetch with a response that is incomplete or for the first reader only. Followers
    /// have to fetch for themselves.
    pub fn refuse(self, reason: StoreRefusal, status: StatusCode, now: Instant) -> Completed {
        self.end_older(reason, status);
        self.responses.note(&self.primary, Err(reason), now);
        self.flight.complete(FetchOutcome::NotShared(reason), || ());
        Completed {
            entry: None,
            stored: Err(reason),
        }
    }

    /// Ends the fetch without a response. All followers get the error.
    pub fn fail(self, error: GatewayError) {
        self.flight.complete(FetchOutcome::Failed(error), || ());
    }

    /// Ends the fetch as the decision says. `make` builds the entry with its lifetime, or without
    /// one if it is only shared.
    fn complete(
        self,
        verdict: Storability,
        status: StatusCode,
        receipt: &Receipt<'_>,
        make: impl Fn(&Self, Option<Lifetime>) -> Arc<Entry>,
    ) -> Completed {
        let now = receipt.now;
        let (life, is_shared, refusal) = match verdict {
            Storability::Private(reason) => return self.refuse(reason, status, now),
            Storability::Share(reason) => (None, true, Some(reason)),
            Storability::Validate(life) => (Some(life), false, None),
            Storability::Store(life) => (Some(life), true, None),
        };
        let entry = make(&self, life);
        let refusal = refusal.or_else(|| self.would_hide_better(status, now));
        if let Some(reason) = refusal {
            self.end_older(reason, status);
        }
        let outcome = if is_shared {
            FetchOutcome::Shared(Arc::clone(&entry))
        } else {
            FetchOutcome::NotShared(StoreRefusal::NoCache)
        };
        let (responses, primary) = (self.responses, self.primary);
        // Stored under the lock of the fetches, so that a reader finds either the fetch or what it
        // stored.
        let stored = self.flight.complete(outcome, || match refusal {
            Some(reason) => Err(reason),
            None => responses.store_if_believed(&primary, &entry, now),
        });
        let stored = stored.unwrap_or(Err(refusal.unwrap_or(StoreRefusal::Superseded)));
        responses.note(&primary, stored.map(|()| is_shared), now);
        Completed {
            entry: Some(entry),
            stored,
        }
    }

    /// The reason not to store a failure: it would replace a response that may be served in its
    /// place (RFC 5861, section 4).
    fn would_hide_better(&self, status: StatusCode, now: Instant) -> Option<StoreRefusal> {
        (is_failure(status) && self.has_stand_in(now)).then_some(StoreRefusal::Status)
    }

    /// Whether a stored response may be served if the API fails.
    pub fn has_stand_in(&self, now: Instant) -> bool {
        self.stored.as_ref().is_some_and(|stored| {
            let (wants, need) = (&Wants::FRESH, Need::IfError);
            self.responses.may_stand_in(stored, wants, need, now)
        })
    }

    /// Removes an older stored response in favour of one that is not stored itself.
    fn end_older(&self, reason: StoreRefusal, status: StatusCode) {
        let is_whole = matches!(reason, StoreRefusal::Status | StoreRefusal::NoRoom);
        let is_last = is_whole || reason.is_of_the_answer();
        if is_last && is_last_word(status) {
            self.responses.end_older(self.flight.key(), self.stamp.at());
        }
    }

    /// Decides whether the response may be stored or shared.
    fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body_bytes: usize,
        receipt: &Receipt<'_>,
    ) -> Storability {
        // Ages count from the sending of the request.
        let way = receipt.now.saturating_duration_since(self.stamp.at());
        judge(&ResponseFacts {
            rules: &self.rules,
            status,
            headers,
            body_bytes,
            largest_body: self.responses.largest_body,
            now: receipt.wall.checked_sub(way).unwrap_or(receipt.wall),
        })
    }

    /// The facts about a response. Without a lifetime, it is shared now but not stored.
    fn about(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        life: Option<Lifetime>,
        receipt: &Receipt<'_>,
    ) -> About {
        let mut depends = self.depends.clone();
        // A 401 raises the marks of its own credential. With these dependencies, followers would
        // find it invalidated by itself, and each would fetch again.
        if status == StatusCode::UNAUTHORIZED {
            let of_credential = |name: &Dependency| {
                matches!(name, Dependency::Credential(_) | Dependency::Access(..))
            };
            depends.retain(|name| !of_credential(name));
        }
        // Any write may create what is missing, or permit what is denied. The tags name the data in
        // a response, but not the data whose absence caused it.
        if life.is_some() && status.as_u16() >= 400 && !depends.contains(&Dependency::AnyWrite) {
            depends.push(Dependency::AnyWrite);
        }
        let said = Said::of(headers, self.rules.precedence, receipt.wall);
        About {
            stamp: self.stamp,
            depends: depends.into(),
            life: life.unwrap_or_default(),
            coding: coding::Coding::Plain,
            no_transform: said.directives.no_transform,
            variance: Variance::of(headers, receipt.request),
            key: self.primary.hash(),
            received: receipt.wall,
        }
    }
}

/// Whether the status means that the API failed (RFC 5861, section 4).
pub fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leader({})", self.why.as_str())
    }
}
