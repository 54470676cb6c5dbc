//! The wait of a write for its turn: its lanes, then a slot of its budget.
//!
//! A write that may be batched waits in the [pool](super::pool) as well. The first of those that
//! gets a slot leads an attempt and takes others along, as many as fit ([`crate::merge::choose`]).
//! They give up their own wait for a slot. Nothing waits in order to be batched: only what waits
//! already is taken along.
//!
//! Invariant: a write has one place in its lanes. Who takes it out of the pool has that place,
//! so that a write cannot be sent by another and give up at the same time.

use crate::error::{GatewayError, Waited};
use crate::exchange::request::RequestContext;
use crate::lanes::LanePosition;
use crate::limit::ticket::{Permit, PermitError};
use crate::merge::{Batching, Parts};
use crate::write::Writes;
use crate::write::active::{ActiveWrite, stopped};
use crate::write::decision::RETRY_FOR;
use crate::write::durable::PendingWrite;
use crate::write::idempotency;
use crate::write::member::{AttemptReport, Batchable, Member};
use std::time::Instant;
use tokio::sync::oneshot;

/// The turn of a write. Either way it hears of the attempt by a channel of its own.
pub(super) enum SendTurn {
    /// It leads an attempt, which is to be dispatched now, and hears of its own part in it here.
    Leads(Dispatch, oneshot::Receiver<AttemptReport>),
    /// It is part of an attempt that another write leads.
    Joins(oneshot::Receiver<AttemptReport>),
}

/// An attempt that is about to leave: the slot, and the writes that share it, in order.
pub(super) struct Dispatch {
    pub(super) permit: Permit,
    pub(super) members: Vec<Member>,
    /// What each member brings to the batch, in the order of `members`. Empty for a write that is
    /// not batched.
    pub(super) batch: Vec<Batchable>,
}

/// Why a write has no turn, and its place. It was not sent.
pub(super) struct NoTurn {
    pub(super) why: TurnError,
    pub(super) place: LanePosition,
}

/// Why a write has no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnError {
    /// Its budget gave it no permit.
    NoPermit(PermitError),
    /// It is cancelled or given to another credential, or its credential is refused.
    Stopped,
    /// It may have taken effect too long ago to be retried.
    TooLate,
    /// The key or certificate of its client is no longer accepted.
    Revoked,
    /// The API does not answer. It is out of the line until then.
    BreakerOpen(Instant),
}

impl Writes {
    /// Waits for the turn of a write.
    ///
    /// Dropping the future takes the write out of the pool, unless another write took it along
    /// before: then the attempt goes on.
    ///
    /// # Errors
    /// If its budget gives it no permit, it is stopped, or it is not to be sent now.
    pub(super) async fn turn(
        &self,
        write: &mut ActiveWrite,
        place: LanePosition,
    ) -> Result<SendTurn, NoTurn> {
        // A retry is judged by its own answers alone.
        if write.first_doubt().is_some() {
            return self.turn_alone(write, place).await;
        }
        if write.batching == Batching::Alone {
            let turn = self.turn_alone(write, place).await?;
            // It makes up for a part of what its refused batch cost.
            self.pool.sent_alone(&write.context);
            return Ok(turn);
        }
        match batchable(write) {
            Some(batchable) => self.turn_in_pool(write, batchable, place).await,
            None => self.turn_alone(write, place).await,
        }
    }

    /// Waits for the turn of a write that is not batched.
    async fn turn_alone(
        &self,
        write: &mut ActiveWrite,
        mut place: LanePosition,
    ) -> Result<SendTurn, NoTurn> {
        let ActiveWrite { entry, ticket, .. } = write;
        // Stopping comes first: a write that is cancelled uses no slot.
        let granted = tokio::select! {
            biased;
            () = stopped(entry.as_ref()) => Err(TurnError::Stopped),
            granted = self.attempts.permitted(ticket, &mut place) => {
                granted.map_err(TurnError::NoPermit)
            }
        };
        match granted.and_then(|permit| self.unless_held_back(write, permit)) {
            Ok(permit) => {
                let (member, report) = write.member(place);
                let dispatch = Dispatch {
                    permit,
                    members: vec![member],
                    batch: Vec::new(),
                };
                Ok(SendTurn::Leads(dispatch, report))
            }
            Err(why) => Err(no_turn(write, why, place)),
        }
    }

    /// Waits for the turn of a write that leads a batch, or is taken along by another write.
    async fn turn_in_pool(
        &self,
        write: &mut ActiveWrite,
        batchable: Batchable,
        mut place: LanePosition,
    ) -> Result<SendTurn, NoTurn> {
        // The place goes into the pool, so that who takes the write along has it. What waits for
        // its lanes stays here.
        let mut opening = place.opening();
        let (member, report) = write.member(place);
        let mut standing = self.pool.enter(write.batching, member, batchable);
        if opening.is_none() {
            write.ticket.ready();
        }
        let ActiveWrite { entry, ticket, .. } = write;
        let granted = loop {
            let is_blocked = opening.is_some();
            tokio::select! {
                biased;
                () = standing.taken() => {
                    // It shares the slot of another write, and frees its own place in the line.
                    ticket.step_aside();
                    return Ok(SendTurn::Joins(report));
                }
                () = stopped(entry.as_ref()) => break Err(TurnError::Stopped),
                granted = ticket.granted() => break granted.map_err(TurnError::NoPermit),
                () = opened(&mut opening), if is_blocked => {
                    opening = None;
                    ticket.ready();
                }
            }
        };
        match granted.and_then(|permit| self.unless_held_back(write, permit)) {
            Ok(permit) => {
                let may_leave = |member: &Member| match &member.entry {
                    Some(entry) => self.try_dispatch(entry),
                    None => !self.is_revoked(&member.recipient.context),
                };
                if let Some(taken) = standing.leave_with_others(&self.lanes, may_leave) {
                    let (members, batch) = taken.into_iter().unzip();
                    let dispatch = Dispatch {
                        permit,
                        members,
                        batch,
                    };
                    return Ok(SendTurn::Leads(dispatch, report));
                }
                self.attempts.release_probe();
            }
            // Without a permit it takes nobody along.
            Err(why) => {
                if let Some(own) = standing.leave() {
                    return Err(no_turn(write, why, own.place));
                }
            }
        }
        // Another write took it along in this very moment: the slot was given back.
        write.ticket.step_aside();
        Ok(SendTurn::Joins(report))
    }

    /// Returns the permit of a write that may be sent now, and gives it back otherwise. A durable
    /// write counts as sent from here on.
    fn unless_held_back(&self, write: &ActiveWrite, permit: Permit) -> Result<Permit, TurnError> {
        let now = self.clock.now();
        let entry = write.entry.as_deref();
        // It was held up for so long that a retry could undo what others have done since.
        let is_late = write
            .first_doubt()
            .is_some_and(|since| now >= since + RETRY_FOR);
        if is_late && entry.is_none_or(PendingWrite::may_leave) {
            return Err(TurnError::TooLate);
        }
        if entry.is_none() && write.first_doubt().is_none() && self.is_revoked(&write.context) {
            return Err(TurnError::Revoked);
        }
        // With an open breaker one write is sent as a probe, and the others wait for its outcome.
        let admitted = self.attempts.breaker().lock().admit(now);
        admitted.map_err(TurnError::BreakerOpen)?;
        if entry.is_none_or(|entry| self.try_dispatch(entry)) {
            return Ok(permit);
        }
        self.attempts.release_probe();
        Err(TurnError::Stopped)
    }

    /// Returns whether a write of this client's may no longer be sent, because its key or
    /// certificate has been revoked since it was accepted.
    pub(super) fn is_revoked(&self, context: &RequestContext) -> bool {
        let client = context.caller.principal.client();
        client.is_some_and(|client| !self.router.clients.get().knows(client, context.key))
    }

    /// Returns the error for a write that has no turn.
    pub(super) fn no_turn_error(&self, why: TurnError, write: &ActiveWrite) -> GatewayError {
        match why {
            TurnError::NoPermit(why) => {
                self.attempts
                    .not_permitted(why, &write.context, &write.ticket)
            }
            TurnError::BreakerOpen(_) => GatewayError::UpstreamUnreachable {
                message: "The API could not be reached or did not answer several times in a row, \
                    so the gateway sends it no writes until a probe succeeds.",
                waited: Waited::InVain,
            },
            TurnError::Revoked => GatewayError::KeyUnknown,
            // A held write is not stopped, and a late one hears what it heard last.
            TurnError::TooLate | TurnError::Stopped => GatewayError::Internal,
        }
    }
}

/// Returns what a write brings to a batch, if it can be batched.
fn batchable(write: &ActiveWrite) -> Option<Batchable> {
    let context = &write.context;
    if !context.operation.merge.as_ref()?.enabled || context.overridden {
        return None;
    }
    let mut request = context.forwarded();
    // The key is honoured here, so it does not keep writes apart.
    if write.entry.is_some() {
        request.headers_mut().remove(idempotency::FIELD);
    }
    // A request that cannot be taken apart is sent as it is, and alone. So is one whose elements
    // the route table does not know.
    let parts = Parts::of(&context.operation, &request)?;
    Some(Batchable { request, parts })
}

/// Returns a write without a turn to the engine. Before a pause it leaves the line, so that its
/// place there is not granted a slot meanwhile.
fn no_turn(write: &mut ActiveWrite, why: TurnError, place: LanePosition) -> NoTurn {
    if matches!(why, TurnError::BreakerOpen(_)) {
        write.ticket.step_aside();
    }
    NoTurn { why, place }
}

/// Waits until the lanes open; at once if they are open.
async fn opened(opening: &mut Option<oneshot::Receiver<()>>) {
    if let Some(opening) = opening {
        let _ = opening.await;
    }
}
