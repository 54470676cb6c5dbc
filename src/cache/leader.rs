//! The one who fetches an answer that others wait for.
//!
//! Promises that an answer is stored only if it may be, if it is believed, and if no newer fetch
//! of its key has begun; and that those who joined get what may be shared, whatever became of
//! storing it. Owned by a task of its own, not by the first reader's: a reader who hangs up does
//! not end the fetch of the rest.

use super::Inner;
use super::entry::{About, Answer, Entry};
use super::fence::{Dependency, Stamp, Tag};
use super::flight::{Follower, Outcome, Ticket};
use super::key::Key;
use super::reason::{Miss, Refusal};
use super::storable::{Facts, Verdict, judge};
use http::{HeaderMap, StatusCode};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Carries out a fetch. Dropped without an end, it frees the key and those who joined find the
/// fetch lost.
pub struct Leader<E> {
    pub(super) inner: Arc<Inner<E>>,
    pub(super) ticket: Ticket<E>,
    pub(super) stamp: Stamp,
    pub(super) tags: Vec<Tag>,
    pub(super) ttl: Duration,
    pub(super) why: Miss,
}

/// What became of an answer.
#[derive(Clone, Debug)]
pub struct Landed {
    /// What the others get, unless it is for the first reader alone.
    pub shared: Option<Arc<Entry>>,
    /// Whether it was stored, else why not.
    pub stored: Result<(), Refusal>,
}

impl<E> Leader<E> {
    /// Why the first reader did not get a stored answer.
    pub fn why(&self) -> Miss {
        self.why
    }

    /// The key of the fetch.
    pub fn key(&self) -> &Key {
        self.ticket.key()
    }

    /// To be called when the request is about to be sent, and before every further attempt: until
    /// then it may have waited for a budget, and writes that settled meanwhile do not make its
    /// answer old. Never call it once a byte of the request may have left.
    pub fn departs(&mut self, now: Instant) {
        self.stamp = self.inner.marks.stamp(now);
        self.ticket.depart(self.stamp);
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
        self.tags.extend(tags);
    }

    /// Why the answer is for the first reader alone, if its head says so already: then nobody else
    /// need wait for its body. Its length is that announced, 0 if none is.
    pub fn refusal(&self, status: StatusCode, headers: &HeaderMap, length: u64) -> Option<Refusal> {
        let body_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        match self.judge(status, headers, body_bytes) {
            Verdict::Keep(reason) => Some(reason),
            Verdict::Share(_) | Verdict::Store { .. } => None,
        }
    }

    /// The answer is there, complete: judges it, stores it if it may be, and hands it to those
    /// who joined if it is not for the first reader alone.
    pub fn finish(self, answer: &Answer<'_>, now: Instant) -> Landed {
        match self.judge(answer.status, answer.headers, answer.body.len()) {
            Verdict::Keep(reason) => self.refuse(reason),
            Verdict::Share(reason) => {
                let entry = self.entry(answer, Duration::ZERO, Duration::ZERO);
                self.ticket.land(Outcome::Shared(Arc::clone(&entry)), || ());
                Landed {
                    shared: Some(entry),
                    stored: Err(reason),
                }
            }
            Verdict::Store {
                fresh_for,
                initial_age,
            } => {
                let entry = self.entry(answer, fresh_for, initial_age);
                self.store(entry, now)
            }
        }
    }

    /// The answer is for the first reader alone, or not wholly there: those who joined have to
    /// ask for themselves.
    pub fn refuse(self, reason: Refusal) -> Landed {
        self.ticket.land(Outcome::NotShared(reason), || ());
        Landed {
            shared: None,
            stored: Err(reason),
        }
    }

    /// There is no answer; everyone who joined gets the error.
    pub fn fail(self, error: E) {
        self.ticket.land(Outcome::Failed(error), || ());
    }

    fn judge(&self, status: StatusCode, headers: &HeaderMap, body_bytes: usize) -> Verdict {
        judge(&Facts {
            ttl: self.ttl,
            status,
            headers,
            body_bytes,
            largest_body: self.inner.largest_body,
        })
    }

    fn store(self, entry: Arc<Entry>, now: Instant) -> Landed {
        let Self { inner, ticket, .. } = self;
        let key = ticket.key().clone();
        let copy = Arc::clone(&entry);
        let stored = ticket.land(Outcome::Shared(Arc::clone(&entry)), || {
            inner.store_if_believed(key, copy, now)
        });
        Landed {
            shared: Some(entry),
            stored: stored.unwrap_or(Err(Refusal::Superseded)),
        }
    }

    fn entry(&self, answer: &Answer<'_>, fresh_for: Duration, initial_age: Duration) -> Arc<Entry> {
        let mut depends: Vec<_> = self.tags.iter().cloned().map(Dependency::Tag).collect();
        // A 401 raises the marks of its own credential: those who wait for it would find it
        // overtaken by itself, and each would fetch another.
        if answer.status != StatusCode::UNAUTHORIZED {
            depends.extend(self.key().dependencies());
        }
        let about = About {
            stamp: self.stamp,
            depends: depends.into(),
            fresh_for,
            initial_age,
        };
        Arc::new(Entry::new(answer, about))
    }
}

impl<E> fmt::Debug for Leader<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leader({})", self.why.as_str())
    }
}
