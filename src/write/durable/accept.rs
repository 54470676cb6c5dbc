//! Accepting a durable write, and answering its caller: with the API's answer, or with where to ask
//! for it.
//!
//! Promises that nothing is acknowledged before the journal has it, and that one key is one write:
//! a request with a known key joins the write or gets its recorded answer.
//!
//! The write is sent by its own task (`run`). This file waits for callers only, and a caller that
//! hangs up changes nothing.

use crate::credential::{self, Credential};
use crate::error::{GatewayError, Waited};
use crate::exchange::body::Body;
use crate::exchange::edge::REPLAYED;
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::{prefer, priority};
use crate::journal::{Change, JournalError, KeyHash, Record, State};
use crate::lanes::Keys;
use crate::lanes::LanePosition;
use crate::limit::ticket::Ticket;
use crate::metrics::Outcome;
use crate::write::Writes;
use crate::write::accept::order_names;
use crate::write::active::ActiveWrite;
use crate::write::durable::Durable;
use crate::write::durable::pending::{Completion, Key, NewWrite, PendingWrite, Stage};
use crate::write::durable::record::{KeptAnswer, KeptRequest};
use crate::write::durable::registry::Claim;
use crate::write::durable::summary::Summary;
use crate::write::idempotency;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The preference that was followed (RFC 7240, section 3).
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The least time that a caller waits for a write that was sent: with `wait=0` it would otherwise
/// never hear the answer to a write that is sent at once.
const MOMENT: Duration = Duration::from_secs(1);

/// Why a write is durable.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The `Idempotency-Key` of the request.
    key: Option<Vec<u8>>,
    /// Whether the request says `Prefer: respond-async`.
    respond_async: bool,
}

impl Wanted {
    /// Returns whether its caller does not wait for the outcome.
    pub(crate) fn is_deferred(&self) -> bool {
        self.respond_async
    }
}

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

/// What the journal keeps of a write, and what orders it.
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
    ) -> Result<Option<Wanted>, GatewayError> {
        let key = idempotency::key(&context.headers)?;
        let respond_async = self.durable.shared.outlasts && prefer::respond_async(&context.headers);
        let wanted = credential::is_named(&context.headers) && (key.is_some() || respond_async);
        Ok(wanted.then_some(Wanted { key, respond_async }))
    }

    pub(crate) async fn write_durably(
        self: &Arc<Self>,
        context: RequestContext,
        wanted: Wanted,
    ) -> Result<Reply, GatewayError> {
        if self.is_draining() {
            return Err(GatewayError::Draining);
        }
        if wanted.respond_async {
            self.check_credential(&context).await?;
        }
        let until = self.waits_until(&context, &wanted);
        // The connection of a caller that waits is one of those that writes may hold.
        let _held = (until > context.accepted)
            .then(|| self.hold(context.caller.peer))
            .transpose()?;
        loop {
            let (new_write, kept) = self.new_write(&context, &wanted);
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
                    if pending.key.as_deref() != key.as_ref() {
                        return Err(GatewayError::KeyReused);
                    }
                    match self.await_end(&pending, &context, &wanted, until).await? {
                        Some(reply) => return Ok(replayed(reply)),
                        // The journal knew its key after all, and says how it ended.
                        None => continue,
                    }
                }
            };
            return self.take_in(context, &wanted, pending, kept, until).await;
        }
    }

    /// Returns until when its caller waits for the outcome.
    fn waits_until(&self, context: &RequestContext, wanted: &Wanted) -> Instant {
        let patience = if wanted.respond_async {
            prefer::wait(&context.headers).map_or(Duration::ZERO, |_| context.patience)
        } else {
            context.patience
        };
        context.accepted + patience
    }

    /// Returns a write before it is claimed, and what the journal keeps of it.
    fn new_write(&self, context: &RequestContext, wanted: &Wanted) -> (NewWrite, Kept) {
        let request = KeptRequest {
            method: context.method.clone(),
            target: context.target.clone(),
            peer: context.caller.peer,
            deferred: wanted.respond_async,
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
        let key = wanted.key.as_ref().map(|key| Key {
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
            urgency: priority::urgency_of_write(&context.headers, wanted.respond_async),
            key,
            summary: Arc::new(summary.shortened()),
            bytes: kept.request.len() + kept.summary.len(),
            deferred: wanted.respond_async,
            since: now,
            accepted: context.accepted,
        };
        (new_write, kept)
    }

    /// Returns the hash of an `Idempotency-Key` of a credential.
    pub(super) fn key_hash(&self, credential: Credential, key: &[u8]) -> KeyHash {
        self.router
            .hasher
            .hash(&[b"idempotency", credential.bytes(), key])
    }

    /// Checks whether its key is known, gives the write its places, and hands it over to the
    /// journal.
    async fn take_in(
        self: &Arc<Self>,
        context: RequestContext,
        wanted: &Wanted,
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
        if wanted.respond_async && until <= context.accepted {
            return self.acknowledge(&pending).await;
        }
        match self.await_end(&pending, &context, wanted, until).await? {
            Some(reply) => Ok(reply),
            None => Err(GatewayError::Internal),
        }
    }

    /// Returns the reply to a write that the journal has under this key.
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

    /// Replies with where to ask as soon as the journal has the write.
    async fn acknowledge(&self, pending: &Arc<PendingWrite>) -> Result<Reply, GatewayError> {
        let mut stages = pending.watch();
        let is_kept = |stage: &Stage| !matches!(stage, Stage::Accepting);
        let stage = stages.wait_for(is_kept).await;
        let stage = stage.map_err(|_| GatewayError::Internal)?.clone();
        if let Stage::Released(why) = stage {
            return Err(why.unwrap_or(GatewayError::Internal));
        }
        Ok(self.accepted_reply(pending, self.until_end(pending)))
    }

    /// Waits for the outcome of a write until this instant, whatever its stage. `None` if it was
    /// not accepted because the journal knows its key.
    async fn await_end(
        &self,
        pending: &Arc<PendingWrite>,
        context: &RequestContext,
        wanted: &Wanted,
        until: Instant,
    ) -> Result<Option<Reply>, GatewayError> {
        let mut pending = pending.clone();
        let mut stages = pending.watch();
        // Counts from the first attempt that is seen here, through all that follow.
        let mut until_left = None;
        loop {
            let stage = stages.borrow_and_update().clone();
            let until = match &stage {
                Stage::HandedOver => {
                    // The write of the other credential goes on under the same id.
                    pending = self
                        .durable
                        .pending(pending.id)
                        .ok_or_else(|| unknown(Waited::Unrecorded))?;
                    stages = pending.watch();
                    continue;
                }
                Stage::Ended(ended) => {
                    return reply(ended).map(|reply| Some(reply.of_write(pending.id)));
                }
                Stage::Released(None) => return Ok(None),
                Stage::Released(Some(error)) => return Err(error.clone()),
                // Without a key nothing true can be said before the journal has it.
                Stage::Accepting if wanted.key.is_none() => None,
                Stage::Accepting => Some(until.max(context.accepted + MOMENT)),
                Stage::Left if !wanted.respond_async => {
                    let moment = || until.max(self.clock.now() + MOMENT);
                    let until = *until_left.get_or_insert_with(moment);
                    Some(
                        self.attempts
                            .given_up_at(context)
                            .map_or(until, |given_up| given_up.min(until)),
                    )
                }
                Stage::Parked => Some(context.accepted),
                Stage::Queued | Stage::Cancelling | Stage::Left => {
                    Some(until_left.unwrap_or(until))
                }
            };
            let changed = stages.changed();
            let changed = match until {
                None => changed.await.is_ok(),
                Some(until) if until <= self.clock.now() => false,
                Some(until) => matches!(
                    tokio::time::timeout_at(until.into(), changed).await,
                    Ok(Ok(()))
                ),
            };
            if changed {
                continue;
            }
            let estimate = self.until_end(&pending);
            if wanted.respond_async && !matches!(stage, Stage::Accepting) {
                return Ok(Some(self.accepted_reply(&pending, estimate)));
            }
            // A write that waits for a retry has been sent as well.
            let sent = matches!(stage, Stage::Left) || pending.tries().doubt.is_some();
            return Err(GatewayError::WritePending {
                retry_after: estimate,
                sent,
                id: pending.id.to_string(),
            });
        }
    }

    /// Returns a 202 with where to ask.
    fn accepted_reply(&self, pending: &Arc<PendingWrite>, estimate: Duration) -> Reply {
        let document = self.document_of(pending).to_string();
        let mut response = Response::new(Body::held(document));
        *response.status_mut() = StatusCode::ACCEPTED;
        let headers = response.headers_mut();
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Ok(location) = HeaderValue::try_from(format!("/_gateway/writes/{}", pending.id)) {
            headers.insert(LOCATION, location);
        }
        headers.insert(
            PREFERENCE_APPLIED,
            HeaderValue::from_static("respond-async"),
        );
        headers.insert(
            RETRY_AFTER,
            HeaderValue::from(crate::exchange::error_response::seconds(estimate)),
        );
        Reply::deferred(response).of_write(pending.id)
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

/// Returns the reply to the caller of a write that has ended.
fn reply(ended: &Completion) -> Result<Reply, GatewayError> {
    if ended.state == State::Cancelled {
        return Err(GatewayError::WriteCancelled);
    }
    let answer = recorded_answer(ended.state, ended.answer.as_ref())?;
    Ok(ended.reply(respond(answer)?))
}

/// Returns the reply to a request whose write had ended before.
fn replay(record: &Record, key: &Key) -> Result<Reply, GatewayError> {
    if record.fingerprint != key.fingerprint {
        return Err(GatewayError::KeyReused);
    }
    let answer = || record.answer.as_ref().and_then(KeptAnswer::decode);
    match record.state {
        State::Cancelled => Err(GatewayError::WriteCancelled),
        State::Queued | State::Dispatched => Err(GatewayError::WritePending {
            retry_after: Duration::from_secs(1),
            sent: record.attempts > 0,
            id: record.id.to_string(),
        }),
        State::Succeeded | State::Failed | State::Unknown => {
            let answer = answer();
            let answer = recorded_answer(record.state, answer.as_ref())?;
            let reply = replayed(Reply::from_journal(respond(answer)?));
            Ok(reply.of_write(record.id))
        }
    }
}

/// Returns the recorded answer for the caller of a write that has ended. What the API refused after
/// an attempt that may have taken effect is no refusal of the write.
fn recorded_answer(state: State, answer: Option<&KeptAnswer>) -> Result<&KeptAnswer, GatewayError> {
    match answer {
        None if state == State::Failed => Err(GatewayError::GivenUp),
        None => Err(unknown(Waited::Unrecorded)),
        Some(answer) if state == State::Unknown && answer.status.is_client_error() => {
            Err(unknown(Waited::RetryRefused))
        }
        Some(answer) => Ok(answer),
    }
}

fn unknown(waited: Waited) -> GatewayError {
    GatewayError::OutcomeUnknown {
        waited,
        // Under this key the caller would hear the same again.
        may_retry: false,
    }
}

/// Returns the API's answer once more.
pub(super) fn respond(answer: &KeptAnswer) -> Result<Response<Body>, GatewayError> {
    let Some(body) = answer.body.clone() else {
        return Err(GatewayError::AnswerLost(answer.status.as_u16()));
    };
    let mut response = Response::new(Body::held(body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers.clone();
    Ok(response)
}

/// Marks a reply as the answer that an earlier request drew.
fn replayed(mut reply: Reply) -> Reply {
    if reply.error.is_none() && reply.response.status() != StatusCode::ACCEPTED {
        let headers = reply.response.headers_mut();
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        // A request that joined a write that was on its way asked nothing of the API either.
        if reply.outcome == Outcome::Written {
            reply.outcome = Outcome::Replayed;
        }
    }
    reply
}
