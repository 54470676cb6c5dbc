//! Accepting a write: its place in the line of its budget, and in its lanes.
//!
//! A held write is accepted here and handed to the engine (`engine.rs`), which its caller's
//! connection polls. A durable one goes through the journal first
//! ([`durable`](super::durable)), and uses the same places.
//!
//! Promises that a write which cannot be sent before its deadline is rejected now, as far as that
//! can be estimated. Nothing waits here.

use crate::attempt::estimate::MOST_WAITING_IN_LANES;
use crate::attempt::wait::refused;
use crate::error::GatewayError;
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::lanes::{Keys, LanePosition};
use crate::limit::budgets::Readiness;
use crate::limit::ticket::Ticket;
use crate::route::names;
use crate::write::Writes;
use crate::write::active::ActiveWrite;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// The memory that each name in a lane takes, in bytes, roughly: a lane has two ordered sets.
const NAME_BYTES: usize = 512;

impl Writes {
    /// Accepts a write and carries it to its end.
    ///
    /// # Errors
    /// If it is rejected, expires, or its outcome is unknown.
    pub(crate) async fn write(
        self: &Arc<Self>,
        context: RequestContext,
    ) -> Result<Reply, GatewayError> {
        if let Some(durability) = self.wants_durable(&context)? {
            return Box::pin(self.write_durably(context, durability)).await;
        }
        if self.audit.is_failing() {
            return Err(GatewayError::AuditUnavailable);
        }
        // Its connection is held until it has ended.
        let _held = self.hold(&context.caller.principal)?;
        self.quotas.charge(&context.caller)?;
        let keys = self.order_keys(&context);
        let (ticket, place) = self.accept(&context, keys, false)?;
        let audit = self.audit_of(&context);
        let mut write = ActiveWrite::new(context, ticket, None);
        write.audit = audit;
        let end = self.run(&mut write, place).await;
        write.reply(end)
    }

    /// Takes a place in the line of its budget and in its lanes.
    ///
    /// # Errors
    /// If the line is full, or the write could not be sent before its deadline.
    pub(crate) fn accept(
        &self,
        context: &RequestContext,
        keys: Keys,
        is_durable: bool,
    ) -> Result<(Ticket, LanePosition), GatewayError> {
        let answer = self
            .budgets
            .answer_time(context.credential, &context.operation.budget);
        let mut budget_request = self.attempts.budget_request(context);
        budget_request.bytes += keys.keys().len() * NAME_BYTES;
        budget_request.not_before = self.lanes.expected_free(context.credential, &keys, answer);
        // A write without keys waits for no lane. A durable one is not sent before the journal has
        // it, and one with keys not before it has a place in its lanes.
        if is_durable || !keys.is_empty() {
            budget_request.readiness = Readiness::Blocked;
        }
        if let Some(leaves) = self.leaves_with_others(context, &keys, is_durable) {
            budget_request.forecast = Some(leaves);
        } else if budget_request.not_before.is_some() {
            let leaves = self.attempts.look(|| {
                let forecast = self
                    .attempts
                    .forecast(&budget_request, MOST_WAITING_IN_LANES)?;
                forecast.leaves(&self.attempts.newcomer(&budget_request, &keys))
            });
            budget_request.forecast = leaves.flatten();
        }
        let ticket = match self.budgets.join(&budget_request) {
            Err(refusal) => self.attempts.look_closer(budget_request, &keys, refusal),
            joined => joined,
        };
        let ticket = ticket.map_err(refused)?;
        let settled = ticket.estimate() + ticket.answer_time();
        let place = self
            .lanes
            .enter(context.credential, keys, settled, ticket.place());
        Ok((ticket, place))
    }

    /// Returns the order keys of a write.
    pub(crate) fn order_keys(&self, context: &RequestContext) -> Keys {
        let (keys, barriers) = order_names(context);
        Keys::new(
            &self.router.hasher,
            keys.iter().map(String::as_str),
            barriers,
        )
    }

    /// Returns when a write can be sent in a batch with those that wait already, if all of them fit
    /// together.
    fn leaves_with_others(
        &self,
        context: &RequestContext,
        keys: &Keys,
        is_durable: bool,
    ) -> Option<Instant> {
        let merges = context.operation.merge.as_ref()?.enabled;
        if !merges || context.overridden {
            return None;
        }
        let (waiting, dispatches) = self.pool.waiting(context, is_durable);
        let follows = self.lanes.would_follow(context.credential, keys, &waiting);
        if waiting.is_empty() || !follows {
            return None;
        }
        let budget = &context.operation.budget;
        self.budgets
            .leaves_merged(context.credential, budget, waiting.len(), dispatches)
    }
}

/// Returns what a write acts on. If its names cannot be read it may act on anything of their class.
pub(crate) fn order_names(context: &RequestContext) -> (Vec<String>, BTreeSet<&str>) {
    let operation = &context.operation;
    let mut barriers: BTreeSet<&str> = operation.barrier.iter().map(|class| &**class).collect();
    let mut keys = Vec::new();
    let document = context.document();
    for template in &operation.order {
        let one = std::slice::from_ref(template);
        match names::expand(one, &context.params, context.query(), &document) {
            Ok(names) => keys.extend(names),
            Err(_) => {
                // It conflicts with everything of the class, and with others like itself.
                let class = template.class();
                barriers.insert(class);
                keys.push(format!("{class}:"));
            }
        }
    }
    (keys, barriers)
}
