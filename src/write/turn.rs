//! Writes that travel together.
//!
//! A write that may be merged waits on the `pool` besides its lanes and its budget. When the first
//! of them has a slot, it takes along those that fit ([`crate::merge::choose`]), and one task
//! carries all of them through (`run`). Whoever is taken along is told that it leaves, and then
//! what became of it; its caller may hang up as after any departure. If the API refuses the batch,
//! each takes its own place again, to be sent with fewer others or alone.
//!
//! Nothing waits in order to be merged: only what waits already is taken along.

use crate::exchange::request::RequestContext;
use crate::lanes::LanePosition;
use crate::limit::ticket::{Permit, PermitError, Ticket};
use crate::merge::{Batching, Parts};
use crate::write::Writes;
use crate::write::accept::AttemptReport;
use crate::write::durable::PendingWrite;
use crate::write::pool::{Candidate, PoolEntry, SendTurn};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Why a write has no turn. It has not left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnError {
    /// It got no permit.
    PermitError(PermitError),
    /// It is being taken back.
    Stopped,
    /// The API does not answer; it stepped aside until then.
    BreakerOpen(Instant),
}

impl Writes {
    /// Waits for the turn of a write: alone, ahead of others, or taken along by another, as
    /// `batching` permits. `pending` is what is known of one that outlasts a crash.
    ///
    /// # Errors
    /// With its place, if there is no permit for it, or it is taken back.
    pub(crate) async fn turn(
        &self,
        context: &RequestContext,
        (pending, batching): (Option<&Arc<PendingWrite>>, Batching),
        ticket: &mut Ticket,
        mut place: LanePosition,
    ) -> Result<SendTurn, (TurnError, LanePosition)> {
        if batching == Batching::Alone {
            let turn = self.turn_alone(pending, ticket, place).await?;
            self.pool.sent_alone(context);
            return Ok(turn);
        }
        match self.enter_pool(context, (pending, batching), &mut place) {
            Some(standing) => {
                self.turn_among_others(standing, place, pending, ticket)
                    .await
            }
            None => self.turn_alone(pending, ticket, place).await,
        }
    }

    /// The same, of a write that travels with no other.
    pub(crate) async fn turn_alone(
        &self,
        pending: Option<&Arc<PendingWrite>>,
        ticket: &mut Ticket,
        mut place: LanePosition,
    ) -> Result<SendTurn, (TurnError, LanePosition)> {
        let permit = tokio::select! {
            biased;
            () = stopped(pending) => return Err((TurnError::Stopped, place)),
            permit = self.attempts.permitted(ticket, &mut place) => permit,
        };
        match self.unless_breaker_open(permit) {
            Ok(permit) => Ok(SendTurn::Alone(permit, place)),
            Err(why) => {
                if matches!(why, TurnError::BreakerOpen(_)) {
                    ticket.step_aside();
                }
                Err((why, place))
            }
        }
    }

    /// The same, of a write that may be taken along.
    async fn turn_among_others(
        &self,
        mut standing: PoolEntry,
        place: LanePosition,
        pending: Option<&Arc<PendingWrite>>,
        ticket: &mut Ticket,
    ) -> Result<SendTurn, (TurnError, LanePosition)> {
        standing.take(place);
        let mut free = standing.free();
        if free.is_none() {
            ticket.ready();
        }
        let came = loop {
            let blocked = free.is_some();
            tokio::select! {
                biased;
                report = standing.departs() => {
                    ticket.step_aside();
                    return Ok(SendTurn::Member(report));
                }
                () = stopped(pending) => break Err(TurnError::Stopped),
                granted = ticket.granted() => break self.unless_breaker_open(granted),
                () = opened(&mut free), if blocked => {
                    free = None;
                    ticket.ready();
                }
            }
        };
        // Without a permit it leaves alone: whoever was taken along and put back could believe the
        // one and miss the other.
        let left = match &came {
            Ok(_) => standing.leave(&self.lanes, |pending| self.may_leave(pending)),
            Err(_) => standing.leave_alone().map(|own| (own, Vec::new())),
        };
        let Some((mut own, others)) = left else {
            // Somebody took it along in this very moment: the slot is given back.
            drop(came);
            ticket.step_aside();
            return Ok(SendTurn::Member(standing.departs().await));
        };
        match (came, own.place.take()) {
            (Ok(permit), Some(place)) if others.is_empty() => Ok(SendTurn::Alone(permit, place)),
            (Ok(permit), place) => {
                own.place = place;
                Ok(SendTurn::Leader(permit, Box::new(own), others))
            }
            (Err(why), place) => {
                if matches!(why, TurnError::BreakerOpen(_)) {
                    ticket.step_aside();
                }
                match place {
                    Some(place) => Err((why, place)),
                    // Whoever is on the platform has a place.
                    None => std::future::pending().await,
                }
            }
        }
    }

    /// A permit, unless the API does not answer: then the slot is given back.
    fn unless_breaker_open(
        &self,
        permit: Result<Permit, PermitError>,
    ) -> Result<Permit, TurnError> {
        let permit = permit.map_err(TurnError::PermitError)?;
        let may = self.attempts.breaker().lock().may(self.clock.now());
        may.map(|()| permit).map_err(TurnError::BreakerOpen)
    }

    /// A place on the platform, if the write can be merged.
    fn enter_pool(
        &self,
        context: &RequestContext,
        (pending, batching): (Option<&Arc<PendingWrite>>, Batching),
        place: &mut LanePosition,
    ) -> Option<PoolEntry> {
        let merges = context.operation.merge.as_ref()?.enabled;
        // A repetition of what may have taken effect is judged by its own answers alone.
        let in_doubt = pending.is_some_and(|pending| pending.tries().doubt.is_some());
        if !merges || context.overridden || in_doubt {
            return None;
        }
        let mut request = context.forwarded();
        if pending.is_some() {
            request
                .headers_mut()
                .remove(crate::write::idempotency::FIELD);
        }
        let parts = Parts::of(&context.operation, &request)?;
        let waiting = (request, parts, batching);
        Some(self.pool.enter(context, pending, waiting, place))
    }

    /// Sends everybody of a union in a task of its own; what becomes of the first of them.
    pub(crate) fn send_batch(
        self: &Arc<Self>,
        own: Candidate,
        others: Vec<Candidate>,
        permit: Permit,
    ) -> oneshot::Receiver<AttemptReport> {
        let mut members = vec![own];
        members.extend(others);
        members.sort_by_key(|candidate| candidate.turn);
        let writes = self.clone();
        let mut report = None;
        for candidate in &mut members {
            let (tell, hears) = oneshot::channel();
            match candidate.depart(tell) {
                // The one that leads listens here.
                None => report = Some(hears),
                Some(departs) => drop(departs.send(hears)),
            }
        }
        self.tasks.spawn(
            "batch",
            async move { writes.run_batch(members, permit).await },
        );
        // There is always one that leads.
        report.unwrap_or_else(|| oneshot::channel().1)
    }
}

/// Waits until nothing may make it leave any more.
async fn stopped(pending: Option<&Arc<PendingWrite>>) {
    match pending {
        Some(pending) => pending.stopped().await,
        None => std::future::pending().await,
    }
}

async fn opened(free: &mut Option<oneshot::Receiver<()>>) {
    if let Some(free) = free {
        let _ = free.await;
    }
}
