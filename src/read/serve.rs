//! The life of a cacheable read: key → plan → store, shared fetch or the API alone → response.
//!
//! Each step has a file of its own: [`cacheable`](super::cacheable) finds the key,
//! [`plan`](super::plan) decides, [`stored`](super::stored) answers from the store,
//! [`share`](super::share) joins a fetch or leads one, and [`pass`](super::pass) asks the API for
//! one reader alone. What remains here is their order, and the last resort after a failure: a stale
//! response.

use crate::cache::cache_status::{ApiAttempt, CacheStatus};
use crate::cache::entry::Entry;
use crate::cache::leader::is_failure;
use crate::cache::request;
use crate::cache::reuse::Need;
use crate::error::GatewayError;
use crate::exchange::request::RequestContext;
use crate::metrics::Outcome;
use crate::read::cacheable::CacheableRead;
use crate::read::plan::{ReadFacts, ReadPlan, plan};
use crate::read::{ReadResult, Reads};
use std::sync::Arc;

impl Reads {
    /// Serves a read: from the store, from a fetch, or uncached.
    ///
    /// A hit awaits nothing. Everything else is boxed, so that a hit does not carry its state.
    pub(crate) async fn read(self: &Arc<Self>, context: RequestContext) -> ReadResult {
        // Measured for a traced request only: reading the clock twice would cost each hit.
        let began = context.ids.trail().map(|_| self.clock.now());
        let reading = match self.examine(&context) {
            Ok((rules, at, wants)) => CacheableRead {
                context,
                rules,
                at,
                wants,
            },
            Err(why) => {
                return Box::pin(self.uncacheable(context, ReadFacts::Uncacheable(why))).await;
            }
        };
        // Not the arrival of the head: the body may have taken long since.
        let now = self.clock.now();
        let context = &reading.context;
        let must_wait = || {
            self.budgets
                .must_wait(&self.attempts.budget_request(context))
        };
        let plan = self.plan(&reading, now, must_wait);
        if let Some(began) = began {
            context.progress.looked((began, self.clock.now()));
        }
        match plan {
            ReadPlan::Serve(stored) => Ok(self.serve_stored(reading, stored, now)),
            ReadPlan::JoinOrLead {
                stale,
                may_stand_in,
            } => Box::pin(self.fetch_or_stale(reading, stale, may_stand_in)).await,
            ReadPlan::Alone(why) => Box::pin(async move { self.alone(&reading, why).await }).await,
            ReadPlan::PassThrough(why) => {
                let context = reading.context;
                Box::pin(async move { self.pass(&context, CacheStatus::bypass(why)).await }).await
            }
            ReadPlan::NotCached => Err(GatewayError::NotCached),
        }
    }

    /// Serves a read that has no key.
    async fn uncacheable(
        self: &Arc<Self>,
        context: RequestContext,
        facts: ReadFacts,
    ) -> ReadResult {
        let only_if_cached = request::is_only_if_cached(&context.headers);
        match plan(facts, only_if_cached, || false) {
            ReadPlan::PassThrough(why) => self.pass(&context, CacheStatus::bypass(why)).await,
            _ => Err(GatewayError::NotCached),
        }
    }

    /// Serves a read by a fetch, or by the stale response if that fails. `may_stand_in` says
    /// whether the stale response is better than waiting for the budget.
    async fn fetch_or_stale(
        self: &Arc<Self>,
        reading: CacheableRead,
        stale: Option<Arc<Entry>>,
        may_stand_in: bool,
    ) -> ReadResult {
        // Shared with the fetch, which may outlive this reader.
        let (reading, stale) = (Arc::new(reading), stale.as_ref());
        let result = self
            .join_or_lead(reading.clone(), stale, may_stand_in)
            .await;
        self.or_stale(&reading, stale, result)
    }

    /// Replaces a failure or a rejection by a stale response, where that is permitted.
    fn or_stale(
        &self,
        reading: &CacheableRead,
        stale: Option<&Arc<Entry>>,
        result: ReadResult,
    ) -> ReadResult {
        let Some(entry) = stale else {
            return result;
        };
        let (need, tried) = match &result {
            Ok(reply) if reply.outcome == Outcome::Expired => {
                (Need::IfLimited, ApiAttempt::Failed(reply.response.status()))
            }
            Ok(reply) if is_failure(reply.response.status()) => {
                (Need::IfError, ApiAttempt::Failed(reply.response.status()))
            }
            Err(
                GatewayError::UpstreamUnreachable { .. }
                | GatewayError::UpstreamTimeout
                | GatewayError::UpstreamBroken,
            ) => (Need::IfError, ApiAttempt::Unanswered),
            Err(
                GatewayError::QueueWait { .. }
                | GatewayError::QueueExpired { .. }
                | GatewayError::QueueFull { .. },
            ) => {
                // A request that got a 429 was forwarded nonetheless.
                let tried = match reading.context.progress.seen() {
                    Some(_) => ApiAttempt::Unanswered,
                    None => ApiAttempt::None,
                };
                (Need::IfLimited, tried)
            }
            _ => return result,
        };
        if !self.may_stand_in(reading, entry, need, self.clock.now()) {
            return result;
        }
        let mut reply = self.stale(reading, entry, need, tried);
        if let Ok(failed) = result {
            reply.timing = failed.timing;
        }
        Ok(reply)
    }
}
