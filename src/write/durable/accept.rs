//! Accepting a durable write: its key is claimed and looked up, it gets its places, and the journal
//! records it.
//!
//! Promises that one key is one write: a request with a known key joins the write, or gets its
//! recorded answer. Nothing is acknowledged before the journal has it.
//!
//! The steps: the registry claims the key in memory → the journal is asked for the key → quota and
//! places → the journal commits the record → the write waits. The claim comes first. A write leaves
//! the registry only after the journal has its end, so a key that can be claimed and that the
//! journal does not know has no write. In the other order a write could end between the two
//! look-ups, and be carried out twice.
//!
//! Until the commit, the write is in the stage `Accepting`, and requests with its key wait with it.
//!
//! The write is sent by its own task (`run`), and its caller is answered by `reply`.

use crate::credential::{self, Credential};
use crate::error::GatewayError;
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::{prefer, priority};
use crate::journal::{Change, JournalError, KeyHash, Record, State};
use crate::lanes::{Keys, LanePosition};
use crate::limit::ticket::Ticket;
use crate::write::Writes;
use crate::write::accept::order_names;
use crate::write::active::ActiveWrite;
use crate::write::durable::Durable;
use crate::write::durable::pending::{Key, NewWrite, PendingWrite, Stage};
use crate::write::durable::record::KeptRequest;
use crate::write::durable::registry::Claim;
use crate::write::durable::reply::{Durability, replay, replayed};
use crate::write::durable::summary::Summary;
use crate::write::idempotency;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A claim, which is given back when this is dropped, unless the journal gets the write.
struct Claimed {
    durable: Durable,
    pending: Option<Arc<PendingWrite>>,
}

impl Claimed {
    fn keep(mut self) -> Option<Arc<PendingWrite>> {
        self.pending.take()
    }

    /// Ends the claim with an error. Others that joined the write hear the same.
    fn refused(mut self, error: &GatewayError) {
        if let Some(pending) = self.pending.take() {
            self.durable.refuse(&pending, error.clone());
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some(pending) = &self.pending {
            self.durable.release(pending);
            pending.set(Stage::Released(None));
        }
    }
}

/// The part of a write that the journal keeps, and the keys that order it.
struct Kept {
    request: Bytes,
    summary: Bytes,
    keys: Keys,
}

/// The way in which an accepted write waits.
enum Waits {
    /// In the line of its budget, like a held write.
    InLine(Box<RequestContext>, Ticket, LanePosition),
    /// For the scheduler, which brings it there.
    Deferred(LanePosition),
}

impl Durable {
    /// Ends a write that is not accepted, or not in the journal any more, with this error.
    pub(crate) fn refuse(&self, pending: &PendingWrite, error: GatewayError) {
        self.release(pending);
        pending.set(Stage::Released(Some(error)));
    }
}

impl Writes {
    /// Returns why a write is to be durable, or `None`. Without a credential nobody could be told
    /// whose it is. Without a journal on a disk nothing could be promised to a caller that does not
    /// wait.
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
    pub(crate) async fn write_durably(
        self: &Arc<Self>,
        context: RequestContext,
        durability: Durability,
    ) -> Result<Reply, GatewayError> {
        if self.is_draining() {
            return Err(GatewayError::Draining);
        }
        if durability.respond_async {
            self.check_credential(&context).await?;
        }
        let until = self.waits_until(&context, &durability);
        // The connection of a caller that waits is one of those that writes may hold.
        let _held = (until > context.accepted)
            .then(|| self.hold(context.caller.peer))
            .transpose()?;
        loop {
            let (new_write, kept) = self.new_write(&context, &durability);
            let key = new_write.key;
            let pending = match self.durable.claim(new_write) {
                Claim::New(pending) => pending,
                Claim::Full => {
                    // A recorded answer needs no room.
                    if let Some(reply) = self.recorded(context.credential, key.as_ref()).await? {
                        return Ok(reply);
                    }
                    let retry_after = self.budgets.until_departure(None);
                    return Err(GatewayError::QueueFull { retry_after });
                }
                Claim::UnderWay(pending) => {
                    // Equal hashes, other fingerprints: the key was used for another request.
                    if pending.key.as_deref() != key.as_ref() {
                        return Err(GatewayError::KeyReused);
                    }
                    match self
                        .await_end(&pending, &context, &durability, until)
                        .await?
                    {
                        Some(reply) => return Ok(replayed(reply)),
                        // The journal knew its key after all, and says how it ended.
                        None => continue,
                    }
                }
            };
            return self
                .take_in(context, &durability, pending, kept, until)
                .await;
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

    /// Returns a write before it is claimed, and what the journal keeps of it.
    fn new_write(&self, context: &RequestContext, durability: &Durability) -> (NewWrite, Kept) {
        let request = KeptRequest {
            method: context.method.clone(),
            target: context.target.clone(),
            peer: context.caller.peer,
            deferred: durability.respond_async,
            headers: context.headers.clone(),
            body: context.body.clone(),
        };
        let keys = self.order_keys(context);
        let summary = summary_of(context);
        let kept = Kept {
            request: request.encode(),
            summary: summary.encode(),
            keys,
        };
        let key = durability.key.as_ref().map(|key| Key {
            hash: self.key_hash(context.credential, key),
            fingerprint: idempotency::fingerprint(
                &context.method,
                context.target.as_str(),
                &context.headers,
                &context.body,
            ),
        });
        let now = self.clock.wall();
        let new_write = NewWrite {
            id: self.durable.shared.ids.next(now),
            credential: context.credential,
            operation: context.operation.clone(),
            caller: context.caller.clone(),
            urgency: priority::urgency_of_write(&context.headers, durability.respond_async),
            key,
            summary: Arc::new(summary.shortened()),
            bytes: kept.request.len() + kept.summary.len(),
            deferred: durability.respond_async,
            since: now,
            accepted: context.accepted,
        };
        (new_write, kept)
    }

    /// Returns the hash of an `Idempotency-Key` of a credential.
    ///
    pub(super) fn key_hash(&self, credential: Credential, key: &[u8]) -> KeyHash {
        self.router
            .hasher
            .hash(&[b"idempotency", credential.bytes(), key])
    }

    /// Checks whether its key is known, gives the write its places, and hands it over to the
    /// journal.
    ///
    /// Every way out before `keep` gives the claim back. From there on the write belongs to the
    /// task that records it, and its caller only follows its stage.
    async fn take_in(
        self: &Arc<Self>,
        context: RequestContext,
        durability: &Durability,
        pending: Arc<PendingWrite>,
        kept: Kept,
        until: Instant,
    ) -> Result<Reply, GatewayError> {
        let claimed = Claimed {
            durable: self.durable.clone(),
            pending: Some(pending.clone()),
        };
        let recorded = self
            .recorded(context.credential, pending.key.as_deref())
            .await;
        if let Some(reply) = recorded? {
            return Ok(reply);
        }
        let place = match self.durable.has_room_for_end(context.credential) {
            true => self.give_place(&context, &pending, kept.keys),
            false => Err(GatewayError::TooManyEnded),
        };
        let waits = match place {
            Ok(waits) => waits,
            Err(error) => {
                // A request that joined it meanwhile asks for the same.
                claimed.refused(&error);
                return Err(error);
            }
        };
        let Some(own) = claimed.keep() else {
            return Err(GatewayError::Internal);
        };
        let record = record(&own, kept.summary, kept.request);
        let writes = self.clone();
        // The journal gets it whether or not its caller stays.
        self.tasks.spawn("accept", async move {
            writes.hand_over(own, record, waits).await;
        });
        if durability.respond_async && until <= context.accepted {
            return self.acknowledge(&pending).await;
        }
        match self
            .await_end(&pending, &context, durability, until)
            .await?
        {
            Some(reply) => Ok(reply),
            None => Err(GatewayError::Internal),
        }
    }

    /// Returns the reply to a write that the journal has under this key.
    ///
    /// `None` without a key, or if the journal does not know it.
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

    /// Charges the quota of the caller, and gives the write its places.
    ///
    /// A write whose caller waits takes its place in the line of its budget at once, which may
    /// reject it. A deferred one takes a place in its lanes only. The scheduler brings it to its
    /// budget later.
    fn give_place(
        &self,
        context: &RequestContext,
        pending: &PendingWrite,
        keys: Keys,
    ) -> Result<Waits, GatewayError> {
        self.quotas.charge(&context.caller)?;
        if !pending.deferred {
            let (ticket, place) = self.accept(context, keys, true)?;
            return Ok(Waits::InLine(Box::new(context.clone()), ticket, place));
        }
        let ahead = self.durable.shared.scheduler.lock().len();
        let budget = &pending.operation.budget;
        let expected = self
            .budgets
            .leaves_behind(pending.credential, budget, ahead);
        let place = self.lanes.enter_named(pending.credential, keys, expected);
        Ok(Waits::Deferred(place))
    }

    /// Records a write, and then lets it wait for its turn. If the journal fails, the write is
    /// refused, and its places are dropped: nothing was sent.
    async fn hand_over(self: &Arc<Self>, pending: Arc<PendingWrite>, record: Record, waits: Waits) {
        let accepted = self.commit(vec![Change::Accept(Box::new(record))]).await;
        if let Err(error) = accepted {
            self.durable.refuse(&pending, self.journal_failed(&error));
            return;
        }
        match waits {
            Waits::InLine(context, ticket, place) => {
                pending.queued(None);
                let write = ActiveWrite::new(*context, ticket, Some(pending.clone()));
                self.drive(pending, write, place);
            }
            Waits::Deferred(place) => self.defer(&pending, place),
        }
    }

    /// Lets a write wait for the scheduler.
    ///
    /// The stage and the place come first: a write that the scheduler knows may be taken from there
    /// at any moment.
    pub(super) fn defer(&self, pending: &Arc<PendingWrite>, mut place: LanePosition) {
        place.wait_named();
        let turn = place.turn();
        pending.queued(Some(place));
        let (lanes, credential) = (self.lanes.clone(), pending.credential);
        self.durable
            .scheduler(pending, turn, move || lanes.is_ready(credential, turn));
    }

    /// Commits changes to the journal, and reports how long that took.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        let began = self.clock.now();
        let result = self.durable.journal().commit(changes).await;
        let took = self.clock.now().saturating_duration_since(began);
        self.metrics.journal_committed(result.is_ok(), took);
        result
    }

    /// Logs a failure of the journal, and returns the error for the caller.
    pub(crate) fn journal_failed(&self, error: &JournalError) -> GatewayError {
        match error {
            JournalError::Full => {
                tracing::error!("the journal's disk is full");
                GatewayError::JournalFull
            }
            other => {
                tracing::error!(error = %other, "journal failure");
                GatewayError::JournalBroken
            }
        }
    }
}

/// Returns what is shown of a write as long as it is remembered.
pub(super) fn summary_of(context: &RequestContext) -> Summary {
    let named = (&context.method, context.target.path());
    let (names, _) = order_names(context);
    Summary::of(named, names, &context.caller, context.ids.request())
}

/// Returns a write as the journal takes it in.
fn record(pending: &PendingWrite, summary: Bytes, request: Bytes) -> Record {
    let key = pending.key.as_ref();
    Record {
        id: pending.id,
        credential: pending.credential,
        operation: pending.operation.name.clone(),
        key: key.map(|key| key.hash),
        fingerprint: key.map_or([0; 32], |key| key.fingerprint),
        summary,
        request,
        state: State::Queued,
        attempts: 0,
        accepted: pending.since,
        dispatched: None,
        ended: None,
        answer: None,
    }
}
