//! Reads that ask the API: they wait for their budget, are sent, and are streamed.
//!
//! Reads that are not cached do so on their own (`Reads::pass`). Shared fetches do so in a task
//! of theirs (`Reads::request_upstream`).
//!
//! Promises that each attempt has a permit, that a read is retried only within its deadline, and
//! that an attempt that was sent runs to its end even if its caller hangs up: it has cost a slot,
//! and its response says what is left of the budget.
//!
//! Nothing is stored here.

use crate::attempt::send::{AttemptOutcome, FinalAnswer};
use crate::attempt::wait::refused;
use crate::cache::cache_status::CacheStatus;
use crate::cache::conditional::{has_condition, without_own};
use crate::cache::flight::Hurry;
use crate::cache::reason::Miss;
use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::exchange::request::RequestContext;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::lanes::Keys;
use crate::limit::budgets::{BudgetRequest, Readiness};
use crate::limit::ticket::{Permit, Ticket};
use crate::metrics::Outcome;
use crate::read::cacheable::CacheableRead;
use crate::read::pace::{DepartureFacts, leaves_at};
use crate::read::{ReadResult, Reads};
use crate::upstream::{NewConnection, UNREADABLE, Unknown};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout_at};

/// The outcome of asking the API, for those that decide what a reader gets.
#[derive(Debug)]
pub(crate) enum PassOutcome {
    /// A final response.
    Answer(FinalAnswer),
    /// A 429 that could not be waited out before the deadline.
    Throttled(Response<Bytes>),
    /// A lost kept connection, with no time left to retry.
    Lost,
}

/// A step of the asking, for those who wait for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AttemptEvent {
    /// An attempt is about to be sent.
    Started(Instant),
    /// An attempt failed, and another one is queued for the budget.
    Requeued,
}

/// The circumstances of the asking. A read for its reader alone has none of them.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    /// Whether a task of its own asks, as for a shared fetch. Attempts need no further one then.
    pub(crate) runs_in_task: bool,
    /// The longest time for new connections after the first one failed. `None` for as long as the
    /// read may wait.
    pub(crate) connect_for: Option<Duration>,
    /// The instant from which the response can be stored, and whether a reader cannot wait for it.
    pub(crate) settling: Option<(Instant, Hurry)>,
}

/// Returns the error for a read that was sent without a response.
pub(crate) fn unanswered(why: Unknown) -> GatewayError {
    match why {
        Unknown::HeadTimeout | Unknown::TotalTimeout => GatewayError::UpstreamTimeout,
        Unknown::Broken | Unknown::StaleConnection => GatewayError::UpstreamBroken,
        Unknown::Malformed => GatewayError::UpstreamUnreadable(UNREADABLE),
    }
}

impl Reads {
    /// Sends a read that bypasses the cache and streams the response. `cache` says why.
    pub(crate) async fn pass(
        self: &Arc<Self>,
        context: &RequestContext,
        cache: CacheStatus,
    ) -> ReadResult {
        self.quotas.charge(&context.caller)?;
        // The reader's own conditions go to the API, but not a tag that only the gateway knows.
        let request = || {
            let mut request = context.forwarded();
            without_own(request.headers_mut());
            request
        };
        let mut timing = Timing::of(context);
        // Whether an attempt is in flight, for the error after the deadline.
        let mut is_in_flight = false;
        let outcome =
            self.request_upstream(context, request, &mut timing, Outlook::default(), |to| {
                is_in_flight = matches!(to, AttemptEvent::Started(_));
                Ok(())
            });
        let outcome = match self.attempts.given_up_at(context) {
            None => Ok(outcome.await),
            Some(gone) => timeout_at(gone.into(), outcome).await,
        };
        // A caller that gave up by then no longer waits for the response. What was sent goes on in
        // its task.
        let outcome = outcome.unwrap_or_else(|_| {
            Err(if is_in_flight {
                GatewayError::UpstreamTimeout
            } else {
                self.attempts.expired(context)
            })
        });
        match outcome? {
            PassOutcome::Answer(answer)
                if answer.response.status() == StatusCode::NOT_MODIFIED
                    && !has_condition(request().headers()) =>
            {
                // A caller without a stored response cannot use a 304.
                tracing::warn!(
                    request_id = context.ids.request(),
                    trace_id = context.ids.trace(),
                    "unexpected 304: the request had no condition"
                );
                Err(GatewayError::UpstreamBroken)
            }
            PassOutcome::Answer(answer) => {
                timing.upstream = answer.took;
                let standing = answer.standing;
                let response = answer.response.map(|body| Body::Streamed(Box::new(body)));
                Ok(Reply::read(
                    response,
                    Outcome::Passed,
                    cache,
                    timing,
                    standing,
                ))
            }
            PassOutcome::Lost => Err(GatewayError::UpstreamBroken),
            PassOutcome::Throttled(response) => Ok(Reply {
                cache: Some(cache),
                ..Reply::throttled(response, timing)
            }),
        }
    }

    /// Fetches for this reader alone, outside the cache, because of `why`.
    pub(crate) async fn alone(self: &Arc<Self>, reading: &CacheableRead, why: Miss) -> ReadResult {
        let status = CacheStatus::alone(why, Some(reading.key()));
        let began = self.clock.now();
        let reply = self.pass(&reading.context, status).await?;
        let (status, headers) = (reply.response.status(), reply.response.headers());
        self.cache
            .answered_alone(&reading.at, status, headers, began);
        Ok(reply)
    }

    /// Waits for the budget and asks the API. `request` makes the request for each attempt.
    ///
    /// Retries, within the deadline, after a 429 or a connection that could not be opened. A kept
    /// connection that was lost is retried once, on a new connection. `on_event` is called before
    /// each attempt and after each failed one; its error ends the asking.
    ///
    /// # Errors
    /// If the request is rejected or expires in the queue, cannot be sent, or gets no response.
    pub(crate) async fn request_upstream(
        self: &Arc<Self>,
        context: &RequestContext,
        request: impl Fn() -> Request<Bytes>,
        timing: &mut Timing,
        outlook: Outlook,
        mut on_event: impl FnMut(AttemptEvent) -> Result<(), GatewayError>,
    ) -> Result<PassOutcome, GatewayError> {
        let mut ticket = self.take_place(context, outlook.settling).await?;
        // A read has no lanes: only its budget keeps it waiting.
        context.progress.ready(Some(self.clock.now()));
        // The number of failed connections, and the end of the time for them.
        let mut connects = 0;
        let mut connect_by = None;
        let mut is_repeated = false;
        loop {
            let permit = match ticket.granted().await {
                Ok(permit) => permit,
                // An earlier attempt was sent, so the request did not expire unsent.
                Err(_) if is_repeated => return Ok(PassOutcome::Lost),
                Err(why) => return Err(self.attempts.not_permitted(why, context, &ticket)),
            };
            // The order matters: followers learn of the departure before the request can leave. A
            // reader that arrives later must not join it during a settle time.
            on_event(AttemptEvent::Started(self.clock.now()))?;
            self.attempts.report_departure(context, timing);
            // Made anew each time: most requests are sent once, and a copy kept for a retry would
            // cost each of them.
            let mut request = request();
            if is_repeated {
                // The lost connection may not have been the only stale one.
                request.extensions_mut().insert(NewConnection);
            }
            // A caller that hangs up drops this future, but not a task. A fetch is in one already.
            let outcome = if outlook.runs_in_task {
                let (operation, credential) = (&context.operation, context.credential);
                let attempts = &self.attempts;
                attempts
                    .attempt(operation, credential, permit, request)
                    .await
            } else {
                self.dispatch_read(context, permit, request).await?
            };
            match outcome {
                // Any final response ends it, errors of the API included.
                AttemptOutcome::Answer(answer) => return Ok(PassOutcome::Answer(answer)),
                AttemptOutcome::Unknown(Unknown::StaleConnection) if !is_repeated => {
                    // Without a slot before the deadline the retry would only expire in the queue.
                    if ticket.estimate_again() > ticket.deadline() {
                        return Ok(PassOutcome::Lost);
                    }
                    on_event(AttemptEvent::Requeued)?;
                    is_repeated = true;
                }
                // Sent and without a response. The caller decides whether to send it again.
                AttemptOutcome::Unknown(why) => return Err(unanswered(why)),
                AttemptOutcome::Throttled(response) => {
                    // The budget has learned from the 429 already. The next permit comes when the
                    // API's window has passed.
                    timing.throttled += 1;
                    if ticket.estimate_again() > ticket.deadline() {
                        return Ok(PassOutcome::Throttled(response));
                    }
                    on_event(AttemptEvent::Requeued)?;
                }
                AttemptOutcome::NotSent(why) => {
                    on_event(AttemptEvent::Requeued)?;
                    connects += 1;
                    // The time for connections begins at the first failure, not at the request.
                    let by = *connect_by.get_or_insert_with(|| {
                        let long = outlook.connect_for;
                        long.map_or(ticket.deadline(), |long| self.clock.now() + long)
                    });
                    self.attempts
                        .pause_or_fail(why, connects, ticket.place(), by)
                        .await?;
                }
            }
            // At the old position in the line.
            ticket.again();
        }
    }

    /// Takes a place in the budget's line. If the read is to wait for the end of the settle time,
    /// it waits there.
    ///
    /// # Errors
    /// If the line rejects the read, or the gateway stops meanwhile.
    async fn take_place(
        &self,
        context: &RequestContext,
        settling: Option<(Instant, Hurry)>,
    ) -> Result<Ticket, GatewayError> {
        let mut budget_request = self.attempts.budget_request(context);
        let wait = settling.and_then(|(settled, hurry)| {
            let leaves = self.leaves_settled(&budget_request, settled)?;
            Some((leaves, hurry))
        });
        if let Some((leaves, _)) = &wait {
            // The place is taken now and becomes ready later, so that waiting costs no turn.
            budget_request.not_before = Some(*leaves);
            budget_request.readiness = Readiness::Blocked;
        }
        // A refusal rests on a rough estimate, so a closer one is made before the read is rejected.
        let ticket = match self.budgets.join(&budget_request) {
            Err(refusal) => self
                .attempts
                .look_closer(budget_request, &Keys::default(), refusal),
            joined => joined,
        };
        let mut ticket = ticket.map_err(refused)?;
        if let Some((leaves, hurry)) = wait {
            let refused = tokio::select! {
                biased;
                () = sleep_until(leaves.into()) => None,
                () = hurry.is_wanted() => None,
                // A ticket that is not ready is granted nothing, so the gateway is stopping.
                granted = ticket.granted() => Some(granted.err()),
            };
            if let Some(why) = refused {
                let why = why.map(|why| self.attempts.not_permitted(why, context, &ticket));
                return Err(why.unwrap_or(GatewayError::Internal));
            }
            ticket.ready();
        }
        Ok(ticket)
    }

    /// Returns when a read departs whose response can be stored from `settled` on, if it waits for
    /// that.
    fn leaves_settled(
        &self,
        budget_request: &BudgetRequest<'_>,
        settled: Instant,
    ) -> Option<Instant> {
        let now = self.clock.now();
        if settled <= now {
            return None;
        }
        let (free, limit) = self
            .budgets
            .unclaimed(budget_request.credential, budget_request.budget);
        let keys = Keys::default();
        leaves_at(&DepartureFacts {
            free,
            limit,
            settled,
            longest: self.settings.get().settling,
            now,
            leave_by: now + self.attempts.newcomer(budget_request, &keys).patience,
        })
    }

    /// Sends one attempt with its permit, and waits for its outcome.
    ///
    /// # Errors
    /// If the task panics.
    async fn dispatch_read(
        self: &Arc<Self>,
        context: &RequestContext,
        permit: Permit,
        request: Request<Bytes>,
    ) -> Result<AttemptOutcome, GatewayError> {
        // A task of its own: a caller that hangs up must not cut off the request, which costs a
        // slot.
        let (sender, outcome) = oneshot::channel();
        let (reads, operation) = (self.clone(), context.operation.clone());
        let credential = context.credential;
        self.tasks.spawn("read", async move {
            let attempts = &reads.attempts;
            let outcome = attempts.attempt(&operation, credential, permit, request);
            // The caller may have hung up.
            drop(sender.send(outcome.await));
        });
        outcome.await.map_err(|_| GatewayError::Internal)
    }
}
