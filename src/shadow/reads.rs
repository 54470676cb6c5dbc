//! The cache in shadow mode: what it would do with a read, and what it does with the response.
//!
//! The plan is the one of [`read`](crate::read::plan). A response found in the store is not shown,
//! and a read that would lead a fetch stores the response to its own request. Two differences
//! remain:
//!
//! - The API is asked with the reader's own headers. So a 304 to the reader's own condition, a
//!   part, or a response in an unknown coding is not stored.
//! - A response is stored when it arrives, not when it would have arrived.
//!
//! Nothing here waits for a budget: the model says at once whether a request would get a slot.

use crate::cache::entry::Entry;
use crate::cache::leader::Leader;
use crate::cache::reuse::Freshness;
use crate::cache::{Join, Located, Purpose, request};
use crate::exchange::body::Body;
use crate::exchange::request::RequestContext;
use crate::read::cacheable::CacheableRead;
use crate::read::plan::{ReadFacts, ReadPlan, StoredServing, plan};
use crate::shadow::comparison::Comparison;
use crate::shadow::copied::Copied;
use crate::shadow::model::ModelRequest;
use crate::shadow::verdict::{Cached, NotTaken, Prediction};
use crate::shadow::{Shadow, budget_of};
use crate::upstream::AnswerBody;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long the head of a response waits for its body if both are needed to compare it with the
/// stored one. Most bodies arrive with their heads, and the header can then say the result.
const SOON: Duration = Duration::from_millis(20);

/// The handling of the response besides streaming it.
pub(super) enum CopyPlan {
    /// Only stream it.
    Nothing,
    /// Compare it, store it, or both.
    Copy(Box<Comparison>),
    /// The response to a fetch that would have been unshared, and the instant of its request.
    Alone(Located, Instant),
}

impl Shadow {
    /// Predicts the course of a read, and says what to do with its response.
    ///
    /// The predictions have the effects that the read would have had on cache and model: a fetch
    /// begins, a slot is taken, a refresh is claimed.
    pub(super) fn predict_read(
        self: &Arc<Self>,
        context: &RequestContext,
    ) -> (Prediction, CopyPlan) {
        let reading = match self.reads.examine(context) {
            Ok((rules, at, wants)) => CacheableRead {
                context: context.clone(),
                rules,
                at,
                wants,
            },
            // Not cacheable, but `only-if-cached` is respected even so.
            Err(why) => {
                let only_if_cached = request::is_only_if_cached(&context.headers);
                return match plan(ReadFacts::Uncacheable(why), only_if_cached, || false) {
                    ReadPlan::NotCached => not_cached(),
                    _ => self.predict_bypass(context),
                };
            }
        };
        let now = self.clock.now();
        let must_wait = || self.model.lock().must_wait(&budget_of(context), now);
        // The same plan as when enforced; only the budget is the model's.
        match self.reads.plan(&reading, now, must_wait) {
            ReadPlan::Serve(stored) => self.predict_stored(reading, stored, now),
            ReadPlan::JoinOrLead { .. } => self.predict_join(reading, now),
            ReadPlan::Alone(_) => self.predict_fetch_alone(&reading, now),
            ReadPlan::PassThrough(_) => self.predict_bypass(context),
            ReadPlan::NotCached => not_cached(),
        }
    }

    /// Predicts a read that bypasses the cache. Its response is only streamed.
    fn predict_bypass(&self, context: &RequestContext) -> (Prediction, CopyPlan) {
        (self.asks(context, Cached::Bypass), CopyPlan::Nothing)
    }

    /// Predicts a response from the store. As when enforced, it is renewed if it is read often, or
    /// was shown while stale.
    fn predict_stored(
        self: &Arc<Self>,
        reading: CacheableRead,
        stored: StoredServing,
        now: Instant,
    ) -> (Prediction, CopyPlan) {
        let StoredServing {
            entry,
            freshness,
            renew,
        } = stored;
        // Counted as if it had been shown, since refreshes depend on that.
        entry.note_shown();
        let context = &reading.context;
        // The model's budget decides, as the real one would.
        let has_spare = || {
            let (key, rate) = (budget_of(context), context.operation.budget.rate);
            self.model.lock().has_spare(&key, rate, now)
        };
        // The response to `HEAD` has no body to store.
        let may_renew = renew && context.method == Method::GET;
        let is_renewed = may_renew
            && match freshness {
                Freshness::Fresh => has_spare() && entry.claim_renewal(),
                Freshness::Stale(_) => entry.claim_attempt(now),
            };
        // The claims above are made once for each entry or pause, as when enforced.
        let leader = is_renewed.then(|| self.predict_renewal(&reading, now));
        let leader = leader.flatten();
        let (cached, shown) = match freshness {
            Freshness::Fresh => (Cached::Hit, Some(entry)),
            // A stale response is permitted to differ from the API's, so it is not compared.
            Freshness::Stale(_) => (Cached::Stale, None),
        };
        let keep = CopyPlan::copy(self, reading, shown, leader);
        (Prediction::answered(cached), keep)
    }

    /// Predicts a read that joins a fetch or leads one. A leader is kept with the response, which
    /// it then stores; a follower's response is only streamed, since the leader's is stored.
    fn predict_join(
        self: &Arc<Self>,
        reading: CacheableRead,
        now: Instant,
    ) -> (Prediction, CopyPlan) {
        // The table of fetches is the real one: what is predicted here is fetched and stored.
        // Nothing is ever stored for a read whose dependencies cannot be named.
        let Ok(tags) = reading.tags() else {
            return self.predict_bypass(&reading.context);
        };
        let joined = self
            .reads
            .join(&reading, tags.as_deref(), Purpose::Show, now);
        let mut leader = match joined {
            Join::Hit(entry, freshness) => {
                return match plan(reading.stored(entry, freshness, now), false, || false) {
                    ReadPlan::Serve(stored) => self.predict_stored(reading, stored, now),
                    _ => self.predict_fetch_alone(&reading, now),
                };
            }
            // The leader's response will be stored; this one only streams.
            Join::Follow(_) => return (Prediction::answered(Cached::Joined), CopyPlan::Nothing),
            Join::Alone(_) => return self.predict_fetch_alone(&reading, now),
            Join::Lead(leader) => leader,
        };
        // Rejected by its budget, the gateway would not have fetched, and its followers would have
        // got the error. Dropping the leader frees the key.
        let prediction = self.asks(&reading.context, Cached::Miss);
        let started = prediction.started;
        if !started.is_some_and(|started| started.is_granted()) {
            return (prediction, CopyPlan::Nothing);
        }
        // A fetch that would be queued can be joined until its response arrives.
        if !leader.flight.is_next() {
            leader.start(now);
        }
        let keep = CopyPlan::copy(self, reading, None, Some(leader));
        (prediction, keep)
    }

    /// Predicts a fetch that is not shared. Its response may end an older stored one.
    fn predict_fetch_alone(&self, reading: &CacheableRead, now: Instant) -> (Prediction, CopyPlan) {
        let prediction = self.asks(&reading.context, Cached::Miss);
        (prediction, CopyPlan::Alone(reading.at.clone(), now))
    }

    /// Predicts a read that needs the API, shared or not. It is never batched.
    fn asks(&self, context: &RequestContext, cached: Cached) -> Prediction {
        let request = ModelRequest {
            patience: context.patience,
            bytes: context.weight(),
            parts: None,
        };
        self.predict(context, cached, request)
    }

    /// Starts the refresh of a shown response, if the gateway would have started one. The response
    /// that streams stands for the one that the refresh would bring.
    fn predict_renewal(&self, reading: &CacheableRead, now: Instant) -> Option<Leader> {
        // A fetch of the key may be in flight already, or nothing may be stored at this moment.
        // What is stored had tags, unless the routes have changed since.
        let tags = reading.tags().ok()?;
        let joined = self
            .reads
            .join(reading, tags.as_deref(), Purpose::Renew, now);
        let Join::Lead(mut leader) = joined else {
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

/// Returns the prediction for a read that accepts only a stored response, and there is none.
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
        // The response to a HEAD has no body to compare or store.
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

    /// Carries out the plan. Returns the response to stream, and whether it equals the one that the
    /// store would have shown, if that is known by now.
    pub(super) async fn pass_on(
        self,
        shadow: &Arc<Shadow>,
        response: Response<AnswerBody>,
    ) -> (Response<Body>, Option<bool>) {
        let status = response.status();
        match self {
            Self::Nothing => {}
            Self::Alone(at, began) => {
                let headers = response.headers();
                shadow.cache.answered_alone(&at, status, headers, began);
            }
            Self::Copy(judge) => return judged(judge, response).await,
        }
        (response.map(|body| Body::Streamed(Box::new(body))), None)
    }
}

/// Returns the response to stream, and whether it equals the stored one, if that is known by now.
/// The body ends in the judge if the head does not suffice.
async fn judged(
    judge: Box<Comparison>,
    response: Response<AnswerBody>,
) -> (Response<Body>, Option<bool>) {
    let (head, body) = response.into_parts();
    // A lower bound, which suffices to reject what is too large to be stored.
    let length = body.size_hint().lower();
    let shadow = judge.shadow.clone();
    let most = judge.shadow.settings.get().largest_stored;
    // The head first: if it decides, no copy of the body is taken.
    let (judge, same) = judge.head(head.status, &head.headers, length);
    let Some(judge) = judge else {
        let body = Body::Streamed(Box::new(body));
        return (Response::from_parts(head, body), same);
    };
    let compares = judge.shown.is_some();
    let principal = &judge.reading.context.caller.principal;
    // Copies share one memory. Without room this one ends, and the response streams on.
    let room = shadow.copies.portion(principal);
    let mut copied = Copied::new(body, most, room, judge);
    if compares {
        // The frames read here follow the head; the rest streams. If the body takes longer, the
        // comparison appears in metrics and log only.
        drop(timeout(SOON, copied.read_ahead()).await);
    }
    let same = same.or(copied.same());
    let body = Body::Boxed(UnsyncBoxBody::new(copied));
    (Response::from_parts(head, body), same)
}
