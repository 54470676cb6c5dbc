//! The cache in shadow mode: what it would do with a read, and what it does with the response.
//!
//! This follows [`read`](crate::read::serve) step by step. A response found in the store is not
//! shown, and a read that would lead a fetch stores the response to its own request. Two
//! differences remain:
//!
//! - The API is asked with the reader's own headers. So a 304 to the reader's own condition, a
//!   part, or a response in an unknown coding is not stored.
//! - A response is stored when it arrives, not when it would have arrived.

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

/// How long the head of a response waits for its body if both are needed to compare it with the
/// stored one. Most bodies arrive with their heads.
const SOON: Duration = Duration::from_millis(20);

/// The handling of the response besides streaming it.
pub(super) enum Keep {
    Nothing,
    /// Compare it, store it, or both.
    Copy(Box<Judge>),
    /// The response to a fetch that would have been unshared, and the instant of its request.
    Alone(Located, Instant),
}

/// The judge of a response: compares and stores it once it is complete.
#[derive(Debug)]
pub(super) struct Judge {
    shadow: Arc<Shadow>,
    reading: Reading,
    /// The stored response that would have been shown.
    shown: Option<Arc<Entry>>,
    /// The fetch that stores the response.
    leader: Option<Leader<GatewayError>>,
    status: StatusCode,
    headers: HeaderMap,
}

impl Shadow {
    /// Predicts the course of a read, and says what to do with its response.
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
        // As when enforced, this renews what is read often, or was shown while stale.
        let is_due = match how {
            // The response to `HEAD` has no body to store.
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
            // A stale response is permitted to differ from the API's, so it is not compared.
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
        let less = request::asks_for_less(&ask.method, &ask.headers);
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
                // A fetch that would be queued can be joined until its response arrives.
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

    /// Predicts a read that needs the API, shared or not.
    fn asks(self: &Arc<Self>, ask: &Ask, cached: Cached) -> Foreseen {
        let wish = Wish::<Parts> {
            patience: ask.patience,
            bytes: ask.weight(),
            parts: None,
        };
        self.foresee(ask, cached, wish)
    }

    /// Starts the refresh of a shown response, if the gateway would have started one. The response
    /// that streams stands for the one that the refresh would bring.
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
        // A refresh is no request of a caller, but takes a slot.
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
    /// Compares the response with `shown`, and stores it through `leader`.
    fn copy(
        shadow: &Arc<Shadow>,
        reading: Reading,
        shown: Option<Arc<Entry>>,
        leader: Option<Leader<GatewayError>>,
    ) -> Self {
        // A part, or a head alone, cannot be compared or stored.
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

    /// Returns the response to stream, and whether it equals the one that the store would have
    /// shown, if that is known by now.
    pub(super) async fn pass_on(
        self,
        shadow: &Arc<Shadow>,
        response: Response<AnswerBody>,
    ) -> (Response<Body>, Option<bool>) {
        let status = response.status();
        match self {
            Self::Nothing => {}
            Self::Alone(at, began) => shadow.cache.answered_alone(&at, status, began),
            Self::Copy(judge) => return judge.pass_on(response).await,
        }
        (response.map(|body| Body::Streamed(Box::new(body))), None)
    }
}

impl Judge {
    /// Returns the response to stream. Its body ends in this judge if the head does not suffice.
    async fn pass_on(
        self: Box<Self>,
        response: Response<AnswerBody>,
    ) -> (Response<Body>, Option<bool>) {
        let (head, body) = response.into_parts();
        let length = body.size_hint().lower();
        let shadow = self.shadow.clone();
        let most = self.shadow.settings.get().largest_stored;
        // The head first: if it decides, no copy of the body is taken.
        let (judge, same) = self.head(head.status, &head.headers, length);
        let Some(judge) = judge else {
            let body = Body::Streamed(Box::new(body));
            return (Response::from_parts(head, body), same);
        };
        let compares = judge.shown.is_some();
        let peer = judge.reading.ask.caller.peer;
        let room = shadow.copies.portion(peer);
        let mut copied = Copied::new(body, most, room, judge);
        if compares {
            // The frames read here follow the head; the rest streams.
            drop(timeout(SOON, copied.read_ahead()).await);
        }
        let same = same.or(copied.same());
        let body = Body::Boxed(UnsyncBoxBody::new(copied));
        (Response::from_parts(head, body), same)
    }

    /// Judges the head of a response whose body has at least `length` bytes. Returns the judge if
    /// the body must be judged, too, and the comparison if the head decides it.
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
            // It answers the reader's own condition, not the request for the whole.
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

    /// Returns whether the response equals the stored one, if its head decides that.
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
            // The messages of errors may name the request, so they are not compared.
            status if status.as_u16() >= 400 => Some(true),
            _ => None,
        }
    }

    /// Judges the complete response. Returns whether it equals the stored one, if there is one to
    /// compare.
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

    /// Ends the judgement of a response that is too large to be stored.
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
                "a would-be cache hit differs from the API's response"
            );
        }
    }
}

/// Returns whether a response says nothing about the data.
fn is_no_word(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
