//! The one who fetches an answer that others wait for.
//!
//! Promises that an answer is stored only if it may be, if it is believed, and if no newer fetch
//! of its key has begun; and that those who joined get what may be shared, whatever became of
//! storing it. Owned by a task of its own, not by the first reader's: a reader who hangs up does
//! not end the fetch of the rest.

use super::Inner;
use super::coding::{self, Unfit};
use super::conditional::{Validators, renewed};
use super::entry::{About, Answer, Entry};
use super::fence::{Dependency, Stamp, Tag};
use super::flight::{Follower, Hurry, Outcome, Ticket};
use super::key::Key;
use super::lifetime::{Lifetime, Rules, Said};
use super::reason::{Miss, Refusal};
use super::request::Wants;
use super::reuse::{Need, may_stand_in};
use super::storable::{Facts, Verdict, is_last_word, judge};
use super::vary::Variance;
use http::{HeaderMap, StatusCode};
use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Carries out a fetch. Dropped without an end, it frees the key and those who joined find the
/// fetch lost.
pub struct Leader<E> {
    pub(super) inner: Arc<Inner<E>>,
    pub(super) ticket: Ticket<E>,
    /// The key without what varies.
    pub(super) primary: Key,
    /// What is stored already, if the API may be asked about it or it may stand in for a failure.
    pub(super) stored: Option<Arc<Entry>>,
    pub(super) stamp: Stamp,
    pub(super) depends: Vec<Dependency>,
    pub(super) rules: Rules,
    pub(super) why: Miss,
}

/// When an answer came, and to what.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The header of the request that was sent for it, as its reader wrote it.
    pub request: &'a HeaderMap,
    /// The moment.
    pub now: Instant,
    /// The same by the wall clock.
    pub wall: SystemTime,
}

/// What became of an answer.
#[derive(Clone, Debug)]
pub struct Landed {
    /// The answer as it is kept, unless it is for the first reader alone.
    pub entry: Option<Arc<Entry>>,
    /// Whether it was stored, else why not.
    pub stored: Result<(), Refusal>,
}

impl<E> Leader<E> {
    /// Why the first reader did not get a stored answer.
    pub fn why(&self) -> Miss {
        self.why
    }

    /// The key of the fetch without what varies.
    pub fn key(&self) -> &Key {
        &self.primary
    }

    /// To be called when the request is about to be sent, and before every further attempt: until
    /// then it may have waited for a budget, and writes that settled meanwhile do not make its
    /// answer old. They do so to what is stored: a 304 then says nothing of it. Never call it once
    /// a byte of the request may have left. `false` if it is not to be sent: it is a renewal, and a
    /// reader has begun a fetch of its own since, which may have ended already.
    pub fn departs(&mut self, now: Instant) -> bool {
        let Some(stamp) = self.ticket.depart(|| self.inner.marks.stamp(now)) else {
            return false;
        };
        self.stamp = stamp;
        // A write may have settled while it waited; in this order, none does so unnoticed.
        self.stored = self
            .stored
            .take()
            .filter(|stored| self.inner.is_comparable(stored));
        true
    }

    /// Whether it is to wait for another fetch of its key: see [`Leader::turn`].
    pub fn is_next(&self) -> bool {
        self.ticket.is_next()
    }

    /// Waits until it is this fetch's turn: of one key, one at a time is under way. To be awaited
    /// before a budget is asked for; a fetch that hangs is not waited for longer than whoever calls
    /// this likes.
    pub async fn turn(&mut self) {
        self.ticket.turn().await;
    }

    /// When the API shows every write to what the answer depends on, as far as is known.
    pub fn settled_at(&self) -> Option<Instant> {
        self.inner.marks.read().settled_at(&self.depends)
    }

    /// Tells whether somebody joined who cannot wait for long.
    pub fn hurry(&self) -> Hurry {
        self.ticket.hurry()
    }

    /// To be called when an attempt came to nothing and another one has to wait for its budget:
    /// those who joined wait as long for that as they may themselves.
    pub fn turns_back(&self) {
        self.ticket.turn_back();
    }

    /// For a reader who does not carry out the fetch but wants to know how far it has come.
    pub fn follow(&self) -> Follower<E> {
        self.ticket.follow(self.why)
    }

    /// The answer turned out to depend on these as well.
    pub fn add_tags(&mut self, tags: impl IntoIterator<Item = Tag>) {
        self.depends.extend(tags.into_iter().map(Dependency::Tag));
    }

    /// What is stored already; see [`reuse`](super::reuse) for when it may be shown.
    pub fn stored(&self) -> Option<&Arc<Entry>> {
        self.stored.as_ref()
    }

    /// What the API is to be asked with, so that it need not send again what is stored.
    pub fn validators(&self) -> Option<Validators> {
        self.stored.as_ref()?.validators()
    }

    /// Why the answer is for the first reader alone, if its head says so already: then nobody else
    /// need wait for its body. Its length is that announced, 0 if none is.
    pub fn refusal(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        length: u64,
        arrival: &Arrival<'_>,
    ) -> Option<Refusal> {
        let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        match self.judge(status, headers, body_bytes, arrival) {
            Verdict::Keep(reason) => Some(reason),
            Verdict::Share(_) | Verdict::Validate(_) | Verdict::Store(_) => None,
        }
    }

    /// The answer is there, complete: judges it, stores it if it may be, and hands it to those
    /// who joined if it is not for the first reader alone.
    pub fn finish(self, answer: &Answer<'_>, arrival: &Arrival<'_>) -> Landed {
        let verdict = self.judge(answer.status, answer.headers, answer.body.len(), arrival);
        let most = self.inner.largest_body;
        let coding = match coding::examine(answer.headers, answer.body, most) {
            Ok(coding) => coding,
            Err(Unfit::TooLong) => {
                return self.refuse(Refusal::TooLarge, answer.status, arrival.now);
            }
            Err(Unfit::Malformed) => {
                return self.refuse(Refusal::Undecodable, answer.status, arrival.now);
            }
        };
        let make = |leader: &Self, life: Option<Lifetime>| {
            let about = About {
                coding,
                ..leader.about(answer.status, answer.headers, life, arrival)
            };
            Arc::new(Entry::new(answer, about))
        };
        self.land(verdict, answer.status, arrival, make)
    }

    /// The API says that what is stored has not changed: it is as good as fetched now. Gives the
    /// answer as it is from now on, for the first reader, and what became of it; if it may not be
    /// kept any more, what was stored is forgotten.
    ///
    /// # Errors
    /// With the leader, if the 304 was not asked for or names another answer; the next attempt
    /// then asks for the whole.
    pub fn renew(
        mut self,
        headers: &HeaderMap,
        arrival: &Arrival<'_>,
    ) -> Result<(Arc<Entry>, Landed), Box<Self>> {
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
        let verdict = self.judge(status, &headers, stored.body().len(), arrival);
        let make = |leader: &Self, life: Option<Lifetime>| {
            let about = About {
                coding: stored.coding(),
                ..leader.about(status, &headers, life, arrival)
            };
            Arc::new(stored.renewed(&headers, about))
        };
        let shown = make(&self, None);
        if let Verdict::Keep(_) | Verdict::Share(_) = verdict {
            self.inner.store.remove(self.ticket.key());
        }
        Ok((shown, self.land(verdict, status, arrival, make)))
    }

    /// The answer is for the first reader alone, or not wholly there: those who joined have to
    /// ask for themselves.
    pub fn refuse(self, reason: Refusal, status: StatusCode, now: Instant) -> Landed {
        self.end_older(reason, status);
        self.note(Err(reason), now);
        self.ticket.land(Outcome::NotShared(reason), || ());
        Landed {
            entry: None,
            stored: Err(reason),
        }
    }

    /// There is no answer; everyone who joined gets the error.
    pub fn fail(self, error: E) {
        self.ticket.land(Outcome::Failed(error), || ());
    }

    fn land(
        self,
        verdict: Verdict,
        status: StatusCode,
        arrival: &Arrival<'_>,
        make: impl Fn(&Self, Option<Lifetime>) -> Arc<Entry>,
    ) -> Landed {
        let now = arrival.now;
        let (life, is_shared, refusal) = match verdict {
            Verdict::Keep(reason) => return self.refuse(reason, status, now),
            Verdict::Share(reason) => (None, true, Some(reason)),
            Verdict::Validate(life) => (Some(life), false, None),
            Verdict::Store(life) => (Some(life), true, None),
        };
        let entry = make(&self, life);
        let refusal = refusal.or_else(|| self.would_hide_better(status, now));
        if let Some(reason) = refusal {
            self.end_older(reason, status);
        }
        let outcome = if is_shared {
            Outcome::Shared(Arc::clone(&entry))
        } else {
            Outcome::NotShared(Refusal::NoCache)
        };
        let (inner, primary) = (Arc::clone(&self.inner), self.primary.clone());
        let noted = (primary.hash(), primary.operation());
        let copy = Arc::clone(&entry);
        let stored = self.ticket.land(outcome, || match refusal {
            Some(reason) => Err(reason),
            None => inner.store_if_believed(&primary, &copy, now),
        });
        let stored = stored.unwrap_or(Err(refusal.unwrap_or(Refusal::Superseded)));
        inner.note(noted.0, noted.1, stored.map(|()| is_shared), now);
        Landed {
            entry: Some(entry),
            stored,
        }
    }

    /// A failure does not take the place of what may stand in for it (RFC 5861, section 4).
    fn would_hide_better(&self, status: StatusCode, now: Instant) -> Option<Refusal> {
        (is_failure(status) && self.has_stand_in(now)).then_some(Refusal::Status)
    }

    /// Whether something is stored that may be shown if the API fails.
    pub fn has_stand_in(&self, now: Instant) -> bool {
        self.stored.as_ref().is_some_and(|stored| {
            may_stand_in(stored.life(), stored.age(now), &Wants::FRESH, Need::IfError)
                && self.inner.marks.believes(stored)
        })
    }

    /// The answer is not stored: what is older than it is no longer shown in its place.
    fn end_older(&self, reason: Refusal, status: StatusCode) {
        let is_whole = matches!(reason, Refusal::Status | Refusal::NoRoom);
        let is_last = is_whole || reason.is_of_the_answer();
        if is_last && is_last_word(status) {
            self.inner.end_older(self.ticket.key(), self.stamp.at());
        }
    }

    fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body_bytes: usize,
        arrival: &Arrival<'_>,
    ) -> Verdict {
        // Ages are counted from the sending on.
        let way = arrival.now.saturating_duration_since(self.stamp.at());
        judge(&Facts {
            rules: &self.rules,
            status,
            headers,
            body_bytes,
            largest_body: self.inner.largest_body,
            now: arrival.wall.checked_sub(way).unwrap_or(arrival.wall),
        })
    }

    /// What is known of an answer; without a life it is shared now and not stored.
    fn about(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        life: Option<Lifetime>,
        arrival: &Arrival<'_>,
    ) -> About {
        let mut depends = self.depends.clone();
        // A 401 raises the marks of its own credential: those who wait for it would find it
        // overtaken by itself, and each would fetch another.
        if status == StatusCode::UNAUTHORIZED {
            let of_credential = |name: &Dependency| {
                matches!(name, Dependency::Credential(_) | Dependency::Access(..))
            };
            depends.retain(|name| !of_credential(name));
        }
        // What is refused or absent may be there after any write: the tags say what the answer
        // shows, not what it depends on that it shows nothing.
        if life.is_some() && status.as_u16() >= 400 && !depends.contains(&Dependency::AnyWrite) {
            depends.push(Dependency::AnyWrite);
        }
        let said = Said::of(headers, self.rules.precedence, arrival.wall);
        About {
            stamp: self.stamp,
            depends: depends.into(),
            life: life.unwrap_or_default(),
            coding: coding::Coding::Plain,
            no_transform: said.directives.no_transform,
            variance: Variance::of(headers, arrival.request),
            key: self.primary.hash(),
            received: arrival.wall,
        }
    }

    fn note(&self, stored: Result<bool, Refusal>, now: Instant) {
        let (key, operation) = (self.primary.hash(), self.primary.operation());
        self.inner.note(key, operation, stored, now);
    }
}

/// The statuses that say that the API failed (RFC 5861, section 4).
pub fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

impl<E> fmt::Debug for Leader<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leader({})", self.why.as_str())
    }
}
