//! Writes that travel together.
//!
//! A write that may be merged waits on the `pool` besides its lanes and its budget. When the first
//! of them has a slot, it takes along those that fit ([`crate::merge::choose`]), and one task
//! carries all of them through (`run`). Whoever is taken along is told that it leaves, and then
//! what became of it; its caller may hang up as after any departure. If the API refuses the batch,
//! each takes its own place again, to be sent with fewer others or alone.
//!
//! Nothing waits in order to be merged: only what waits already is taken along.

mod pool;
mod run;

pub use pool::Platform;
pub(crate) use pool::{Passenger, Turn};

use pool::OnPlatform;
pub(crate) use run::Merged;

use crate::exchange::request::Ask;
use crate::limit::ticket::{NoPermit, Permit, Ticket};
use crate::merge::{Batching, Parts};
use crate::queue::Place;
use crate::write::Writes;
use crate::write::durable::Live;
use crate::write::held::Told;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Why a write has no turn. It has not left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTurn {
    /// It got no permit.
    NoPermit(NoPermit),
    /// It is being taken back.
    Stopped,
    /// The API does not answer; it stepped aside until then.
    Broken(Instant),
}

impl Writes {
    /// Waits for the turn of a write: alone, ahead of others, or taken along by another, as
    /// `batching` permits. `live` is what is known of one that outlasts a crash.
    ///
    /// # Errors
    /// With its place, if there is no permit for it, or it is taken back.
    pub(crate) async fn turn(
        &self,
        ask: &Ask,
        (live, batching): (Option<&Arc<Live>>, Batching),
        ticket: &mut Ticket,
        mut place: Place,
    ) -> Result<Turn, (NoTurn, Place)> {
        if batching == Batching::Alone {
            let turn = self.turn_alone(live, ticket, place).await?;
            self.platform.left_alone(ask);
            return Ok(turn);
        }
        match self.steps_up(ask, (live, batching), &mut place) {
            Some(standing) => self.turn_among_others(standing, place, live, ticket).await,
            None => self.turn_alone(live, ticket, place).await,
        }
    }

    /// The same, of a write that travels with no other.
    pub(crate) async fn turn_alone(
        &self,
        live: Option<&Arc<Live>>,
        ticket: &mut Ticket,
        mut place: Place,
    ) -> Result<Turn, (NoTurn, Place)> {
        let permit = tokio::select! {
            biased;
            () = stopped(live) => return Err((NoTurn::Stopped, place)),
            permit = self.attempts.permitted(ticket, &mut place) => permit,
        };
        match self.unbroken(permit) {
            Ok(permit) => Ok(Turn::Alone(permit, place)),
            Err(why) => {
                if matches!(why, NoTurn::Broken(_)) {
                    ticket.step_aside();
                }
                Err((why, place))
            }
        }
    }

    /// The same, of a write that may be taken along.
    async fn turn_among_others(
        &self,
        mut standing: OnPlatform,
        place: Place,
        live: Option<&Arc<Live>>,
        ticket: &mut Ticket,
    ) -> Result<Turn, (NoTurn, Place)> {
        standing.take(place);
        let mut free = standing.free();
        if free.is_none() {
            ticket.ready();
        }
        let came = loop {
            let blocked = free.is_some();
            tokio::select! {
                biased;
                told = standing.departs() => {
                    ticket.step_aside();
                    return Ok(Turn::Rides(told));
                }
                () = stopped(live) => break Err(NoTurn::Stopped),
                granted = ticket.granted() => break self.unbroken(granted),
                () = opened(&mut free), if blocked => {
                    free = None;
                    ticket.ready();
                }
            }
        };
        // Without a permit it leaves alone: whoever was taken along and put back could believe the
        // one and miss the other.
        let left = match &came {
            Ok(_) => standing.leave(&self.queue, |live| self.may_leave(live)),
            Err(_) => standing.leave_alone().map(|own| (own, Vec::new())),
        };
        let Some((mut own, others)) = left else {
            // Somebody took it along in this very moment: the slot is given back.
            drop(came);
            ticket.step_aside();
            return Ok(Turn::Rides(standing.departs().await));
        };
        match (came, own.place.take()) {
            (Ok(permit), Some(place)) if others.is_empty() => Ok(Turn::Alone(permit, place)),
            (Ok(permit), place) => {
                own.place = place;
                Ok(Turn::Leads(permit, Box::new(own), others))
            }
            (Err(why), place) => {
                if matches!(why, NoTurn::Broken(_)) {
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
    fn unbroken(&self, permit: Result<Permit, NoPermit>) -> Result<Permit, NoTurn> {
        let permit = permit.map_err(NoTurn::NoPermit)?;
        let may = self.attempts.breaker().lock().may(self.clock.now());
        may.map(|()| permit).map_err(NoTurn::Broken)
    }

    /// A place on the platform, if the write can be merged.
    fn steps_up(
        &self,
        ask: &Ask,
        (live, batching): (Option<&Arc<Live>>, Batching),
        place: &mut Place,
    ) -> Option<OnPlatform> {
        let merges = ask.operation.merge.as_ref()?.enabled;
        // A repetition of what may have taken effect is judged by its own answers alone.
        let in_doubt = live.is_some_and(|live| live.tries().doubt.is_some());
        if !merges || ask.overridden || in_doubt {
            return None;
        }
        let mut request = ask.forwarded();
        if live.is_some() {
            request.headers_mut().remove(super::idempotency::FIELD);
        }
        let parts = Parts::of(&ask.operation, &request)?;
        let waiting = (request, parts, batching);
        Some(self.platform.enter(ask, live, waiting, place))
    }

    /// Sends everybody of a union in a task of its own; what becomes of the first of them.
    pub(crate) fn set_out(
        self: &Arc<Self>,
        own: Passenger,
        others: Vec<Passenger>,
        permit: Permit,
    ) -> oneshot::Receiver<Told> {
        let mut crew = vec![own];
        crew.extend(others);
        crew.sort_by_key(|passenger| passenger.turn);
        let writes = self.clone();
        let mut told = None;
        for passenger in &mut crew {
            let (tell, hears) = oneshot::channel();
            match passenger.depart(tell) {
                // The one that leads listens here.
                None => told = Some(hears),
                Some(departs) => drop(departs.send(hears)),
            }
        }
        self.tasks
            .spawn("union", async move { writes.run_batch(crew, permit).await });
        // There is always one that leads.
        told.unwrap_or_else(|| oneshot::channel().1)
    }
}

/// Waits until nothing may make it leave any more.
async fn stopped(live: Option<&Arc<Live>>) {
    match live {
        Some(live) => live.stopped().await,
        None => std::future::pending().await,
    }
}

async fn opened(free: &mut Option<oneshot::Receiver<()>>) {
    if let Some(free) = free {
        let _ = free.await;
    }
}
