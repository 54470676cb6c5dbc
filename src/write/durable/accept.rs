//! Accepting a durable write: its key is claimed and looked up, it gets its places, and the journal
//! records it.
//!
//! Promises that one key is one write: a request with a known key joins the write, or gets its
//! recorded answer. Nothing is acknowledged before the journal has it.
//!
//! The steps, whose order must not change:
//! 1. The registry claims the key and the room for the write, in memory.
//! 2. The journal is asked for the key.
//! 3. The quota is charged unless the write is deferred, and the write takes its places.
//! 4. The journal commits the record.
//! 5. The write waits for its turn, and its caller for the outcome.
//!
//! The claim comes before the journal's word. A write leaves the registry only after the journal
//! has its end, so a key that can be claimed and that the journal does not know has no write. In
//! the other order a write could end between the two look-ups, and be carried out twice.
//!
//! The places come before the commit, so that a write which the line of its budget rejects leaves
//! nothing behind. Lanes keep the order of acceptance, whichever commit ends first.
//!
//! Until the commit the write is in the stage `Accepting`, and requests with its key wait with it.
//! It is sent by its own task (`run.rs`), and its caller is answered by `reply.rs`.

use crate::credential::{self, Credential};
use crate::error::GatewayError;
use crate::exchange::prefer;
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::journal::{Change, Record};
use crate::lanes::LanePosition;
use crate::limit::ticket::Ticket;
use crate::write::Writes;
use crate::write::active::ActiveWrite;
use crate::write::durable::Durable;
use crate::write::durable::new_write::Durability;
use crate::write::durable::pending::{Key, PendingWrite};
use crate::write::durable::registry::Claim;
use crate::write::durable::reply::{replay, replayed};
use crate::write::durable::stage::Stage;
use crate::write::idempotency;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A claim on a key and on room. Dropping it gives the claim back, unless it was kept. Requests
/// that joined the write then look again.
struct ClaimGuard {
    durable: Durable,
    pending: Arc<PendingWrite>,
    is_kept: bool,
}

impl ClaimGuard {
    /// Leaves the claim to the write, which gives it back at its end.
    fn keep(mut self) {
        self.is_kept = true;
    }

    /// Ends the claim with an error. Requests that joined the write hear the same: they ask for the
    /// same write, and would be rejected as well.
    fn refuse(mut self, error: &GatewayError) {
        self.is_kept = true;
        self.durable.refuse(&self.pending, error.clone());
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        if !self.is_kept {
            self.durable.release(&self.pending);
            self.pending.set(Stage::Released(None));
        }
    }
}

/// The places of an accepted write, with which it waits. Dropping them gives them up.
enum Places {
    /// In its lanes and in the line of its budget, like a held write: its caller waits.
    InLine(Box<RequestContext>, Box<Ticket>, LanePosition),
    /// In its lanes. The scheduler brings it before its budget later.
    Deferred(LanePosition),
}

impl Writes {
    /// Returns why a write is to be durable, or `None`.
    ///
    /// A write without a credential is not: nobody could ask for it later. Without a journal on a
    /// disk, `respond-async` is not followed: nothing could be promised to a caller that leaves.
    ///
    /// # Errors
    /// If its key is malformed.
    pub(crate) fn wants_durable(
        &self,
        context: &RequestContext,
    ) -> Result<Option<Durability>, GatewayError> {
        let key = idempotency::key(&context.headers)?;
        let respond_async = self.durable.shared.outlasts && prefer::respond_async(&context.headers);
        let durability = credential::is_named(&context.headers) && (key.is_some() || respond_async);
        Ok(durability.then_some(Durability { key, respond_async }))
    }

    /// Accepts a durable write, and returns the reply to its caller: the API's answer, a 202 with
    /// where to ask, or the error that the write is pending.
    ///
    /// A caller that hangs up stops nothing that was handed to the journal.
    ///
    /// # Errors
    /// If the write is not accepted, or there is no outcome before the caller's patience ends. The
    /// error says which of both.
    pub(crate) async fn write_durably(
        self: &Arc<Self>,
        context: RequestContext,
        durability: Durability,
    ) -> Result<Reply, GatewayError> {
        if self.is_draining() {
            return Err(GatewayError::Draining);
        }
        if durability.respond_async {
            // Later its caller would not hear of a 401.
            self.check_credential(&context).await?;
        }
        let until = self.waits_until(&context, &durability);
        // The connection of a caller that waits is one of those that writes may hold.
        let _held = (until > context.accepted)
            .then(|| self.hold(&context.caller.principal))
            .transpose()?;
        loop {
            let (entry, record) = self.new_write(&context, &durability);
            let key = entry.key.as_deref().copied();
            match self.durable.claim(entry) {
                Claim::New(pending) => {
                    return self
                        .take_in(context, &durability, pending, record, until)
                        .await;
                }
                Claim::Full => {
                    // A recorded answer needs no room.
                    if let Some(reply) = self.recorded(context.credential, key.as_ref()).await? {
                        return Ok(reply);
                    }
                    let retry_after = self.budgets.until_departure(None);
                    return Err(GatewayError::QueueFull { retry_after });
                }
                // Equal hashes, other fingerprints: the key was used for another request.
                Claim::Pending(pending) if pending.key.as_deref() != key.as_ref() => {
                    return Err(GatewayError::KeyReused);
                }
                Claim::Pending(pending) => {
                    let reply = self.await_end(&pending, &context, &durability, until);
                    if let Some(reply) = reply.await? {
                        return Ok(replayed(reply));
                    }
                    // That claim was given back: the journal knew its key after all, and says in
                    // the next round how the write ended.
                }
            }
        }
    }

    /// Returns until when its caller waits for the outcome.
    ///
    /// With `respond-async` alone the caller gets the 202 as soon as the write is accepted. With
    /// `wait` as well (RFC 7240, section 4.3) it waits for the outcome first, but not for longer.
    fn waits_until(&self, context: &RequestContext, durability: &Durability) -> Instant {
        let patience = if durability.respond_async {
            prefer::wait(&context.headers).map_or(Duration::ZERO, |_| context.patience)
        } else {
            context.patience
        };
        context.accepted + patience
    }

    /// Takes in a write whose key is claimed: steps 2 to 5, see above.
    ///
    /// Every way out before `keep` gives the claim back. From there on the write belongs to the
    /// task that records it, and its caller only follows its stage.
    async fn take_in(
        self: &Arc<Self>,
        context: RequestContext,
        durability: &Durability,
        pending: Arc<PendingWrite>,
        record: Record,
        until: Instant,
    ) -> Result<Reply, GatewayError> {
        let claim = ClaimGuard {
            durable: self.durable.clone(),
            pending: pending.clone(),
            is_kept: false,
        };
        let recorded = self.recorded(context.credential, pending.key.as_deref());
        if let Some(reply) = recorded.await? {
            return Ok(reply);
        }
        let places = match self.give_places(&context, &pending) {
            Ok(places) => places,
            Err(error) => {
                claim.refuse(&error);
                return Err(error);
            }
        };
        claim.keep();
        let (writes, own) = (self.clone(), pending.clone());
        // The journal gets it whether or not its caller stays.
        self.tasks.spawn("accept", async move {
            writes.hand_over(own, record, places).await;
        });
        if durability.respond_async && until <= context.accepted {
            return self.acknowledge(&pending).await;
        }
        let reply = self.await_end(&pending, &context, durability, until);
        // From here on the write is released with an error only.
        reply.await?.ok_or(GatewayError::Internal)
    }

    /// Returns the reply to a write that the journal has under this key. `None` without a key, or
    /// if the journal does not know it.
    ///
    /// # Errors
    /// As [`replay`], and if the journal cannot be read: then it is unknown whether the key was
    /// used, so nothing may be sent under it.
    async fn recorded(
        &self,
        credential: Credential,
        key: Option<&Key>,
    ) -> Result<Option<Reply>, GatewayError> {
        let Some(key) = key else {
            return Ok(None);
        };
        let found = self.durable.journal().find(credential, key.hash).await;
        let found = found.map_err(|error| self.journal_failed(&error))?;
        found.map(|record| replay(&record, key)).transpose()
    }

    /// Gives the write its places. One whose caller waits is charged to the quota of the caller.
    ///
    /// A deferred write is not charged: handing it over costs one append to the journal, and its
    /// place there comes out of the share of its peer and of its credential. It takes no place
    /// before a budget now, so a caller with many takes nobody's turn.
    ///
    /// # Errors
    /// If its client was revoked meanwhile, or its end could not be remembered. For a write whose
    /// caller waits also if the quota is used up, or the line of its budget rejects it, like a held
    /// one.
    fn give_places(
        &self,
        context: &RequestContext,
        pending: &PendingWrite,
    ) -> Result<Places, GatewayError> {
        // It is in the registry by now: a revocation sees it there, or is seen here.
        if self.is_revoked(context) {
            return Err(GatewayError::KeyUnknown);
        }
        if !self.durable.has_room_for_end(context.credential) {
            return Err(GatewayError::TooManyEnded);
        }
        if pending.deferred {
            return Ok(Places::Deferred(self.enter_lanes(pending, context)));
        }
        self.quotas.charge(&context.caller)?;
        let (ticket, place) = self.accept(context, self.order_keys(context), true)?;
        Ok(Places::InLine(
            Box::new(context.clone()),
            Box::new(ticket),
            place,
        ))
    }

    /// Records a write, and then lets it wait for its turn. If the journal fails, the write is
    /// refused, and its places are dropped: nothing was sent.
    async fn hand_over(
        self: &Arc<Self>,
        pending: Arc<PendingWrite>,
        record: Record,
        places: Places,
    ) {
        let accepted = self.commit(vec![Change::Accept(Box::new(record))]).await;
        if let Err(error) = accepted {
            self.durable.refuse(&pending, self.journal_failed(&error));
            return;
        }
        match places {
            Places::InLine(context, ticket, place) => {
                pending.queued(None);
                let write = ActiveWrite::new(*context, *ticket, Some(pending.clone()));
                self.drive(pending, write, place);
            }
            Places::Deferred(place) => self.defer(&pending, place),
        }
    }
}
