//! The cache in shadow mode: what it would do with a read, and what it does with the response.
//!
//! This follows [`read`](crate::read::serve) step by step. A response found in the store is not
//! shown, and a read that would lead a fetch stores the response to its own request. Two
//! differences remain:
//!
//! - The API is asked with the reader's own headers. So a 304 to the reader's own condition, a
//!   part, or a response in an unknown coding is not stored.
//! - A response is stored when it arrives, not when it would have arrived.

use crate::cache::entry::Entry;
use crate::cache::headers::ReceivedResponse;
use crate::cache::leader::Leader;
use crate::cache::reuse::{Freshness, Need};
use crate::cache::{Found, Join, Located, Purpose, conditional, request};
use crate::exchange::body::Body;
use crate::exchange::request::RequestContext;
use crate::read::serve::{CacheableRead, join_request, must_not_decode, tags};
use crate::shadow::copied::Copied;
use crate::shadow::model::ModelRequest;
use crate::shadow::verdict::{Cached, NotTaken, Prediction, compared, is_same_body};
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
pub(super) enum CopyPlan {
    Nothing,
    /// Compare it, store it, or both.
    Copy(Box<Comparison>),
    /// The response to a fetch that would have been unshared, and the instant of its request.
    Alone(Located, Instant),
}

/// The judge of a response: compares and stores it once it is complete.
#[derive(Debug)]
pub(super) struct Comparison {
    shadow: Arc<Shadow>,
    reading: CacheableRead,
    /// The stored response that would have been shown.
    shown: Option<Arc<Entry>>,
    /// The fetch that stores the response.
    leader: Option<Leader>,
    status: StatusCode,
    headers: HeaderMap,
}

impl Shadow {
    /// Predicts the course of a read, and says what to do with its response.
    pub(super) fn predict_read(
        self: &Arc<Self>,
        context: &RequestContext,
    ) -> (Prediction, CopyPlan) {
        let reading = match self.reads.reading(context) {
            Ok((rules, at, wants)) => CacheableRead {
                context: context.clone(),
                rules,
                at,
                wants,
            },
            Err(_) if request::is_only_if_cached(&context.headers) => return not_cached(),
            Err(_) => return (self.asks(context, Cached::Bypass), CopyPlan::Nothing),
        };
        let now = self.clock.now();
        match self.cache.find(&reading.at, &reading.wants, now) {
            Found::Shown(entry, how) => self.predict_hit(reading, entry, how, now),
            Found::Not(_, stale) => self.predict_miss(reading, stale, now),
        }
    }

    fn predict_hit(
        self: &Arc<Self>,
        reading: CacheableRead,
        entry: Arc<Entry>,
        how: Freshness,
        now: Instant,
    ) -> (Prediction, CopyPlan) {
        if must_not_decode(&reading, &entry) {
            if reading.wants.only_if_cached {
                return not_cached();
            }
            return self.predict_fetch_alone(&reading, now);
        }
        entry.note_shown();
        let context = &reading.context;
        // As when enforced, this renews what is read often, or was shown while stale.
        let is_due = match how {
            // The response to `HEAD` has no body to store.
            _ if context.method != Method::GET => false,
            Freshness::Fresh => {
                let rate = context.operation.budget.rate;
                let spare = || {
                    let mut model = self.model.lock();
                    model.has_spare(&budget_of(context), rate, now)
                };
                entry.is_due(now) && spare() && entry.claim_renewal()
            }
            Freshness::Stale(need) => need == Need::WhileRevalidate && entry.claim_attempt(now),
        };
        let leader = is_due.then(|| self.predict_renewal(&reading, now));
        let leader = leader.flatten();
        match how {
            Freshness::Fresh => {
                let keep = CopyPlan::copy(self, reading, Some(entry), leader);
                (Prediction::answered(Cached::Hit), keep)
            }
            // A stale response is permitted to differ from the API's, so it is not compared.
            Freshness::Stale(_) => {
                let keep = CopyPlan::copy(self, reading, None, leader);
                (Prediction::answered(Cached::Stale), keep)
            }
        }
    }

    fn predict_miss(
        self: &Arc<Self>,
        reading: CacheableRead,
        stale: Option<Arc<Entry>>,
        now: Instant,
    ) -> (Prediction, CopyPlan) {
        let context = &reading.context;
        if reading.wants.only_if_cached {
            return not_cached();
        }
        let less = request::asks_for_less(&context.method, &context.headers);
        if less.is_some() && reading.rules.ttl.is_none() && stale.is_none() {
            return (self.asks(context, Cached::Bypass), CopyPlan::Nothing);
        }
        if let Some(entry) = &stale
            && self.reads.may_stand_in(&reading, entry, Need::IfLimited)
            && self.model.lock().must_wait(&budget_of(context), now)
        {
            let leader = entry.claim_attempt(now);
            let leader = leader.then(|| self.predict_renewal(&reading, now));
            let keep = CopyPlan::copy(self, reading, None, leader.flatten());
            return (Prediction::answered(Cached::Stale), keep);
        }
        let Some(tags) = tags(context) else {
            return (self.asks(context, Cached::Bypass), CopyPlan::Nothing);
        };
        let join = {
            let join_request = join_request(&reading, tags.as_deref(), Purpose::Show);
            self.cache.join(&join_request, now)
        };
        match join {
            Join::Hit(entry, how) => self.predict_hit(reading, entry, how, now),
            Join::Follow(_) => (Prediction::answered(Cached::Joined), CopyPlan::Nothing),
            Join::Alone(_) => self.predict_fetch_alone(&reading, now),
            Join::Lead(mut leader) => {
                let prediction = self.asks(context, Cached::Miss);
                if !prediction
                    .started
                    .is_some_and(|started| started.is_granted())
                {
                    return (prediction, CopyPlan::Nothing);
                }
                // A fetch that would be queued can be joined until its response arrives.
                if !leader.flight.is_next() {
                    leader.start(now);
                }
                (
                    prediction,
                    CopyPlan::copy(self, reading, None, Some(leader)),
                )
            }
        }
    }

    fn predict_fetch_alone(
        self: &Arc<Self>,
        reading: &CacheableRead,
        now: Instant,
    ) -> (Prediction, CopyPlan) {
        let prediction = self.asks(&reading.context, Cached::Miss);
        (prediction, CopyPlan::Alone(reading.at.clone(), now))
    }

    /// Predicts a read that needs the API, shared or not.
    fn asks(self: &Arc<Self>, context: &RequestContext, cached: Cached) -> Prediction {
        let request = ModelRequest {
            patience: context.patience,
            bytes: context.weight(),
            parts: None,
        };
        self.predict(context, cached, request)
    }

    /// Starts the refresh of a shown response, if the gateway would have started one. The response
    /// that streams stands for the one that the refresh would bring.
    fn predict_renewal(self: &Arc<Self>, reading: &CacheableRead, now: Instant) -> Option<Leader> {
        let tags = tags(&reading.context)?;
        let join_request = join_request(reading, tags.as_deref(), Purpose::Renew);
        let Join::Lead(mut leader) = self.cache.join(&join_request, now) else {
            return None;
        };
        // A refresh is no request of a caller, but takes a slot.
        let prediction = self.asks(&reading.context, Cached::Miss);
        if !prediction.started?.is_granted() {
            return None;
        }
        leader.start(now);
        Some(leader)
    }
}

fn not_cached() -> (Prediction, CopyPlan) {
    let prediction = Prediction::not_taken(Cached::Miss, NotTaken::NotCached);
    (prediction, CopyPlan::Nothing)
}

impl CopyPlan {
    /// Compares the response with `shown`, and stores it through `leader`.
    fn copy(
        shadow: &Arc<Shadow>,
        reading: CacheableRead,
        shown: Option<Arc<Entry>>,
        leader: Option<Leader>,
    ) -> Self {
        // A part, or a head alone, cannot be compared or stored.
        let is_whole = reading.context.method == Method::GET;
        let (shown, leader) = (shown.filter(|_| is_whole), leader.filter(|_| is_whole));
        if shown.is_none() && leader.is_none() {
            return Self::Nothing;
        }
        Self::Copy(Box::new(Comparison {
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

impl Comparison {
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
        let peer = judge.reading.context.caller.peer;
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
        let receipt = self.shadow.reads.receipt(&self.reading);
        let refusal = self
            .leader
            .as_ref()
            .and_then(|leader| leader.refusal(status, headers, length, &receipt));
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
                let (asked, stored) = (&self.reading.context.headers, shown.shared_headers());
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
            let answer = ReceivedResponse {
                status: self.status,
                headers: &self.headers,
                body,
            };
            leader.finish(&answer, &self.shadow.reads.receipt(&self.reading));
        }
        same
    }

    /// Ends the judgement of a response that is too large to be stored.
    pub(super) fn too_long(mut self: Box<Self>) {
        if let Some(leader) = self.leader.take() {
            let why = crate::cache::reason::StoreRefusal::TooLarge;
            leader.refuse(why, self.status, self.shadow.clock.now());
        }
    }

    fn tell(&self, same: bool) {
        let context = &self.reading.context;
        let name = &context.operation.name;
        self.shadow.metrics.compared(name, compared(same));
        if !same {
            tracing::info!(
                operation = %name,
                credential = %context.credential,
                key = %self.reading.at.primary.hash(),
                request_id = context.ids.request(),
                trace_id = context.ids.trace(),
                "a would-be cache hit differs from the API's response"
            );
        }
    }
}

/// Returns whether a response says nothing about the data.
fn is_no_word(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
