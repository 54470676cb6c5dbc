//! What the cache would do with a read, and what it does with the answer.
//!
//! It follows [`read`](crate::read::serve) step by step: what is found there is shown to nobody here,
//! and whoever would lead a fetch stores the answer to its own request. Two things are not the same:
//! the API is asked with the reader's own fields, so the answer to a reader with conditions of its own
//! (304), for a part, or in a coding that is not understood is not stored; and an answer is stored when
//! it comes, not when it would have come.

use crate::cache::entry::{self, Entry};
use crate::cache::leader::Leader;
use crate::cache::reuse::{Need, Use};
use crate::cache::{Board, Found, Located, Purpose, conditional, request};
use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::exchange::request::Ask;
use crate::merge::Parts;
use crate::read::serve::{Reading, must_not_decode, tags, wish};
use crate::shadow::copied::Copied;
use crate::shadow::model::Wish;
use crate::shadow::verdict::{Cached, Foreseen, NotTaken, compared, is_same_body};
use crate::shadow::{Shadow, budget_of};
use crate::upstream::AnswerBody;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long the head of an answer waits for its body where the two tell whether a stored answer was
/// right; most bodies come with their heads.
const SOON: Duration = Duration::from_millis(20);

/// What is to be done with the answer besides passing it on.
pub(super) enum Keep {
    Nothing,
    /// It is compared, stored, or both.
    Copy(Box<Judge>),
    /// It was asked for with HEAD: what is stored for GET may be another.
    Head(Located),
    /// It would have been for its reader alone, and was asked for then.
    Alone(Located, Instant),
}

/// Judges an answer once all of it is there.
#[derive(Debug)]
pub(super) struct Judge {
    shadow: Arc<Shadow>,
    reading: Reading,
    /// What would have been shown in its place.
    shown: Option<Arc<Entry>>,
    leader: Option<Leader<GatewayError>>,
    status: StatusCode,
    headers: HeaderMap,
}

impl Shadow {
    pub(super) fn foresee_read(self: &Arc<Self>, ask: &Ask) -> (Foreseen, Keep) {
        let reading = match self.reads.reading(ask) {
            Ok((rules, at, wants)) => Reading {
                ask: ask.clone(),
                rules,
                at,
                wants,
            },
            Err(_) if request::is_only_if_cached(&ask.headers) => return not_cached(),
            Err(_) => return (self.asks(ask, Cached::Bypass), Keep::Nothing),
        };
        let now = self.clock.now();
        match self.cache.find(&reading.at, &reading.wants, now) {
            Found::Shown(entry, how) => self.would_show(reading, entry, how, now),
            Found::Not(_, stale) => self.would_ask(reading, stale, now),
        }
    }

    fn would_show(
        self: &Arc<Self>,
        reading: Reading,
        entry: Arc<Entry>,
        how: Use,
        now: Instant,
    ) -> (Foreseen, Keep) {
        if must_not_decode(&reading, &entry) {
            if reading.wants.only_if_cached {
                return not_cached();
            }
            return self.would_ask_alone(&reading, now);
        }
        entry.note_shown();
        let ask = &reading.ask;
        // As the gateway would, it renews what is asked for often, or was shown while it is.
        let is_due = match how {
            // What passes is not the whole.
            _ if ask.method != Method::GET => false,
            Use::Fresh => {
                let rate = ask.operation.budget.rate;
                let spare = || {
                    let mut model = self.model.lock();
                    model.has_spare(&budget_of(ask), rate, now)
                };
                entry.is_due(now) && spare() && entry.claim_renewal()
            }
            Use::Stale(need) => need == Need::WhileRevalidate && entry.claim_attempt(now),
        };
        let leader = is_due.then(|| self.would_renew(&reading, now));
        let leader = leader.flatten();
        match how {
            Use::Fresh => {
                let keep = Keep::copy(self, reading, Some(entry), leader);
                (Foreseen::answered(Cached::Hit), keep)
            }
            // Nobody promises that it is what the API says now.
            Use::Stale(_) => {
                let keep = Keep::copy(self, reading, None, leader);
                (Foreseen::answered(Cached::Stale), keep)
            }
        }
    }

    fn would_ask(
        self: &Arc<Self>,
        reading: Reading,
        stale: Option<Arc<Entry>>,
        now: Instant,
    ) -> (Foreseen, Keep) {
        let ask = &reading.ask;
        if reading.wants.only_if_cached {
            return not_cached();
        }
        if ask.method == Method::HEAD {
            let foreseen = self.asks(ask, Cached::Miss);
            return (foreseen, Keep::Head(reading.at));
        }
        let less = request::asks_for_less(&ask.headers);
        if less.is_some() && reading.rules.ttl.is_none() && stale.is_none() {
            return (self.asks(ask, Cached::Bypass), Keep::Nothing);
        }
        if let Some(entry) = &stale
            && self.reads.may_stand_in(&reading, entry, Need::IfLimited)
            && self.model.lock().must_wait(&budget_of(ask), now)
        {
            let leader = entry.claim_attempt(now);
            let leader = leader.then(|| self.would_renew(&reading, now));
            let keep = Keep::copy(self, reading, None, leader.flatten());
            return (Foreseen::answered(Cached::Stale), keep);
        }
        let Some(tags) = tags(ask) else {
            return (self.asks(ask, Cached::Bypass), Keep::Nothing);
        };
        let board = {
            let wish = wish(&reading, tags.as_deref(), Purpose::Show);
            self.cache.board(&wish, now)
        };
        match board {
            Board::Hit(entry, how) => self.would_show(reading, entry, how, now),
            Board::Follow(_) => (Foreseen::answered(Cached::Joined), Keep::Nothing),
            Board::Alone(_) => self.would_ask_alone(&reading, now),
            Board::Lead(mut leader) => {
                let foreseen = self.asks(ask, Cached::Miss);
                if !foreseen
                    .departure
                    .is_some_and(|departure| departure.is_granted())
                {
                    return (foreseen, Keep::Nothing);
                }
                // One that would wait for its turn can be joined until its answer is there.
                if !leader.is_next() {
                    leader.departs(now);
                }
                (foreseen, Keep::copy(self, reading, None, Some(leader)))
            }
        }
    }

    fn would_ask_alone(self: &Arc<Self>, reading: &Reading, now: Instant) -> (Foreseen, Keep) {
        let foreseen = self.asks(&reading.ask, Cached::Miss);
        (foreseen, Keep::Alone(reading.at.clone(), now))
    }

    /// A read that needs the API, alone or for others.
    fn asks(self: &Arc<Self>, ask: &Ask, cached: Cached) -> Foreseen {
        let wish = Wish::<Parts> {
            patience: ask.patience,
            bytes: ask.weight(),
            parts: None,
        };
        self.foresee(ask, cached, wish)
    }

    /// The fetch of a new answer in place of one that would have been shown, if the gateway would have
    /// begun one. The answer that passes is taken for the one it would have brought.
    fn would_renew(
        self: &Arc<Self>,
        reading: &Reading,
        now: Instant,
    ) -> Option<Leader<GatewayError>> {
        let tags = tags(&reading.ask)?;
        let wish = wish(reading, tags.as_deref(), Purpose::Renew);
        let Board::Lead(mut leader) = self.cache.board(&wish, now) else {
            return None;
        };
        // It is no request of a caller's, but it has a slot.
        let foreseen = self.asks(&reading.ask, Cached::Miss);
        if !foreseen.departure?.is_granted() {
            return None;
        }
        leader.departs(now);
        Some(leader)
    }
}

fn not_cached() -> (Foreseen, Keep) {
    let foreseen = Foreseen::not_taken(Cached::Miss, NotTaken::NotCached);
    (foreseen, Keep::Nothing)
}

impl Keep {
    /// The answer to this is compared with what would have been `shown`, and stored by `leader`.
    fn copy(
        shadow: &Arc<Shadow>,
        reading: Reading,
        shown: Option<Arc<Entry>>,
        leader: Option<Leader<GatewayError>>,
    ) -> Self {
        // A part, or a head alone, is not what is stored.
        let is_whole = reading.ask.method == Method::GET;
        let (shown, leader) = (shown.filter(|_| is_whole), leader.filter(|_| is_whole));
        if shown.is_none() && leader.is_none() {
            return Self::Nothing;
        }
        Self::Copy(Box::new(Judge {
            shadow: shadow.clone(),
            reading,
            shown,
            leader,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
        }))
    }

    /// The answer as it is passed on, and whether it is what would have been shown from the store, if
    /// that is known by now.
    pub(super) async fn pass_on(
        self,
        shadow: &Arc<Shadow>,
        response: Response<AnswerBody>,
    ) -> (Response<Body>, Option<bool>) {
        let status = response.status();
        match self {
            Self::Nothing => {}
            Self::Head(at) => {
                if status == StatusCode::OK {
                    shadow.cache.compare_head(&at, response.headers());
                }
            }
            Self::Alone(at, began) => shadow.cache.answered_alone(&at, status, began),
            Self::Copy(judge) => return judge.pass_on(response).await,
        }
        (response.map(|body| Body::Streamed(Box::new(body))), None)
    }
}

impl Judge {
    /// The answer as it is passed on, with this judge at its end if its head is not enough.
    async fn pass_on(
        self: Box<Self>,
        response: Response<AnswerBody>,
    ) -> (Response<Body>, Option<bool>) {
        let (head, body) = response.into_parts();
        let length = body.size_hint().lower();
        let shadow = self.shadow.clone();
        let most = self.shadow.settings.get().largest_stored;
        let (judge, same) = self.head(head.status, &head.headers, length);
        let Some(judge) = judge else {
            let body = Body::Streamed(Box::new(body));
            return (Response::from_parts(head, body), same);
        };
        let compares = judge.shown.is_some();
        let peer = judge.reading.ask.caller.peer;
        let room = shadow.copies.nothing(peer);
        let mut copied = Copied::new(body, most, room, judge);
        if compares {
            // What has come by then is passed on with the head, the rest as it comes.
            drop(timeout(SOON, copied.read_ahead()).await);
        }
        let same = same.or(copied.same());
        let body = Body::Boxed(UnsyncBoxBody::new(copied));
        (Response::from_parts(head, body), same)
    }

    /// Judges the head of the answer, whose body has so many bytes at least. Gives the judge back if
    /// the body has to be judged as well, and what the head told already.
    fn head(
        mut self: Box<Self>,
        status: StatusCode,
        headers: &HeaderMap,
        length: u64,
    ) -> (Option<Box<Self>>, Option<bool>) {
        self.status = status;
        self.headers = headers.clone();
        let same = self.same_by_head();
        if let Some(same) = same {
            self.tell(same);
        }
        let is_part = matches!(
            status,
            StatusCode::NOT_MODIFIED
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::RANGE_NOT_SATISFIABLE
        );
        if same.is_some() || is_part || is_no_word(status) {
            self.shown = None;
        }
        if is_part {
            // It answers the reader's own condition, not the question for the whole.
            self.leader = None;
        }
        let arrival = self.shadow.reads.arrival(&self.reading);
        let refusal = self
            .leader
            .as_ref()
            .and_then(|leader| leader.refusal(status, headers, length, &arrival));
        if let Some(refusal) = refusal
            && let Some(leader) = self.leader.take()
        {
            leader.refuse(refusal, status, self.shadow.clock.now());
        }
        let has_more = self.shown.is_some() || self.leader.is_some();
        (has_more.then_some(self), same)
    }

    /// Whether the answer is what would have been shown, as far as its head tells.
    fn same_by_head(&self) -> Option<bool> {
        let shown = self.shown.as_ref()?;
        match self.status {
            status if is_no_word(status) => None,
            StatusCode::NOT_MODIFIED => {
                let (asked, stored) = (&self.reading.ask.headers, shown.shared_headers());
                let received = shown.received();
                Some(conditional::is_not_modified(asked, &stored, received))
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => None,
            status if status != shown.status() => Some(false),
            // What errors say may name the request.
            status if status.as_u16() >= 400 => Some(true),
            _ => None,
        }
    }

    /// Judges the whole answer, whose body is this. Whether it is what would have been shown, where
    /// that was the question.
    pub(super) fn whole(mut self: Box<Self>, body: &Bytes) -> Option<bool> {
        let most = self.shadow.settings.get().largest_stored;
        let same = self.shown.take().and_then(|shown| {
            let stored = (shown.body(), shown.coding());
            is_same_body(stored, &self.headers, body, most)
        });
        if let Some(same) = same {
            self.tell(same);
        }
        if let Some(leader) = self.leader.take() {
            let answer = entry::Answer {
                status: self.status,
                headers: &self.headers,
                body,
            };
            leader.finish(&answer, &self.shadow.reads.arrival(&self.reading));
        }
        same
    }

    /// The answer is longer than what is stored.
    pub(super) fn too_long(mut self: Box<Self>) {
        if let Some(leader) = self.leader.take() {
            let why = crate::cache::reason::Refusal::TooLarge;
            leader.refuse(why, self.status, self.shadow.clock.now());
        }
    }

    fn tell(&self, same: bool) {
        let ask = &self.reading.ask;
        let name = &ask.operation.name;
        self.shadow.metrics.compared(name, compared(same));
        if !same {
            tracing::info!(
                operation = %name,
                credential = %ask.credential,
                key = %self.reading.at.primary.hash(),
                request_id = ask.ids.request(),
                trace_id = ask.ids.trace(),
                "a stored answer would have been shown that is not what the API says now"
            );
        }
    }
}

/// Whether an answer says nothing of the data.
fn is_no_word(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
