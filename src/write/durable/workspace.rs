//! Whether the API accepts a credential, and which workspace it belongs to, as the API itself says
//! (`GET /`).
//!
//! The API is asked when a write is first deferred with a credential, and the write waits for the
//! answer: a token that the API refuses gets no 202. The journal keeps the workspace. Later, when
//! the API no longer accepts that credential, it cannot be asked any more, and a token that
//! replaces it must not carry the writes into another workspace.
//!
//! The question is a request to the API like any other: it takes a slot of its budget. One question
//! about a credential is in flight at a time, and all writes that arrive meanwhile wait for its
//! answer. If there is none in time, the write is accepted without.

use crate::attempt::send::AttemptOutcome;
use crate::audit::AUDIT;
use crate::credential::Credential;
use crate::error::{GatewayError, Waited};
use crate::exchange::body::{self, Read};
use crate::exchange::identity::Identity;
use crate::exchange::ids::Ids;
use crate::exchange::request::RequestContext;
use crate::exchange::source::RequestSource;
use crate::journal::{Change, WorkspaceHash};
use crate::limit::budgets::{Admission, BudgetRequest};
use crate::limit::ticket::Permit;
use crate::tasks;
use crate::write::Writes;
use crate::write::durable::checks::{Look, Verdict};
use crate::write::durable::{NEVER, PAUSE};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The longest answer about a workspace that is read, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;
/// The longest wait of a write for the answer about its credential, counted from when the question
/// was asked.
const LONGEST_CHECK: Duration = Duration::from_secs(5);

/// Returns what a verdict means for a write. Only a refusal by the API itself rejects it.
/// `is_held` says that the token is the gateway's.
fn admitted(verdict: Verdict, is_held: bool) -> Result<(), GatewayError> {
    match verdict {
        Verdict::Refused if is_held => Err(GatewayError::HeldTokenRefused { sent: false }),
        Verdict::Refused => Err(GatewayError::TokenRefused),
        Verdict::Accepted | Verdict::Unanswered => Ok(()),
    }
}

/// Why a workspace is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWorkspace {
    /// The API does not accept the credential.
    Refused,
    /// The API accepts it, but its answer names no workspace that is understood.
    Unnamed,
    /// The API could not be asked, or did not answer.
    NoAnswer,
}

impl From<NoWorkspace> for GatewayError {
    fn from(why: NoWorkspace) -> Self {
        match why {
            NoWorkspace::Refused => Self::BadRequest("The API rejects the new token"),
            NoWorkspace::Unnamed | NoWorkspace::NoAnswer => Self::UpstreamUnreachable {
                message: "The API did not say which workspace the new token belongs to.",
                waited: Waited::InVain,
            },
        }
    }
}

impl Writes {
    /// Asks the API whether it accepts the credential of a write that is to be deferred, unless
    /// that is known. Without an answer the write is accepted: to outlast such a time is what it is
    /// deferred for.
    ///
    /// # Errors
    /// If the API answers with 401, or has done so lately; or if its caller asks too often.
    pub(super) async fn check_credential(
        self: &Arc<Self>,
        context: &RequestContext,
    ) -> Result<(), GatewayError> {
        let durable = &self.durable.shared;
        let now = self.clock.now();
        let (mut answer, since) = {
            let mut checks = durable.checks.lock();
            match checks.look(context.credential, now) {
                Look::Answered(verdict) => return admitted(verdict, context.is_held),
                Look::Join(answer, since) => (answer, since),
                // The configuration says that the API is not asked: any token may defer writes.
                Look::Ask { .. } if !durable.bounds.workspaces => return Ok(()),
                Look::Ask { again } => {
                    // A caller that invents tokens pays for each question.
                    self.quotas.charge(&context.caller)?;
                    let (answering, answer) = watch::channel(None);
                    checks.asking(context.credential, answer.clone(), now);
                    drop(checks);
                    self.ask_about(context, again, answering);
                    (answer, now)
                }
            }
        };
        let until = since + LONGEST_CHECK;
        // An answer after the caller's balancer gave up is of no use to it.
        let until = self
            .attempts
            .given_up_at(context)
            .map_or(until, |by| by.min(until));
        let answer = answer.wait_for(Option::is_some);
        let answer = tokio::time::timeout_at(until.into(), answer).await;
        let verdict = answer.ok().and_then(Result::ok).and_then(|answer| *answer);
        let verdict = verdict.unwrap_or(Verdict::Unanswered);
        if verdict == Verdict::Unanswered {
            tracing::warn!(
                credential = %context.credential,
                request_id = context.ids.request(),
                "cannot check the credential with the API: the write is accepted anyway"
            );
        }
        admitted(verdict, context.is_held)
    }

    /// Asks the API about the credential of a write. That goes on if the caller hangs up.
    ///
    /// `again` says that the API was asked before. Waiting writes get its verdict by `answering`.
    fn ask_about(
        self: &Arc<Self>,
        context: &RequestContext,
        again: bool,
        answering: watch::Sender<Option<Verdict>>,
    ) {
        let (writes, credential) = (self.clone(), context.credential);
        let authorization = context.headers.get(AUTHORIZATION).cloned();
        // Stopping does not wait for this task: nothing depends on it.
        tasks::detached(async move {
            let verdict = match authorization {
                Some(said_as) => writes.ask_and_note(credential, &said_as, again).await,
                None => Verdict::Refused,
            };
            let now = writes.clock.now();
            let checks = &writes.durable.shared.checks;
            // Noted before it is sent: a write that arrives in between finds the answer.
            checks.lock().answered(credential, verdict, now);
            let _ = answering.send(Some(verdict));
            let waits = writes.durable.has_writes(credential);
            match verdict {
                Verdict::Refused if waits => writes.pause_credential(credential).await,
                // The write that asked is accepted only now, and would wait like those before it.
                Verdict::Accepted => writes.taken_again(credential).await,
                Verdict::Refused | Verdict::Unanswered => {}
            }
        });
    }

    /// Notes that the API accepts the token that now stands behind a credential.
    pub async fn token_accepted(&self, credential: Credential) {
        let now = self.clock.now();
        let checks = &self.durable.shared.checks;
        // Before the pause ends, so that a write that arrives in between does not ask again.
        checks.lock().answered(credential, Verdict::Accepted, now);
        self.taken_again(credential).await;
    }

    /// Ends the pause of a credential that the API accepts again.
    pub(super) async fn taken_again(&self, credential: Credential) {
        let waited = self.durable.shared.scheduler.lock().is_refused(credential);
        if waited && self.admitted(credential).await {
            // A record: each token has to be told of, however many there are.
            tracing::warn!(
                target: AUDIT,
                %credential,
                "the API accepts this credential again: its deferred writes continue"
            );
        }
    }

    /// Returns whether the API accepts a credential, and records its workspace in the journal.
    ///
    /// A workspace in the journal counts as an earlier acceptance, but only for the first question
    /// of this process, and not while the credential is known to be refused. If the journal fails,
    /// the verdict holds, and the workspace stays unknown.
    async fn ask_and_note(
        &self,
        credential: Credential,
        said_as: &HeaderValue,
        again: bool,
    ) -> Verdict {
        let is_refused = self.durable.shared.scheduler.lock().is_refused(credential);
        if !again && !is_refused {
            // The last process may have asked.
            let known = self.durable.journal().workspace(credential).await;
            if matches!(known, Ok(Some(_))) {
                return Verdict::Accepted;
            }
        }
        match self.workspace_of(credential, said_as).await {
            Ok(workspace) => {
                let belongs = Change::Belongs(credential, workspace);
                if let Err(error) = self.commit(vec![belongs]).await {
                    let _ = self.journal_failed(&error);
                }
                Verdict::Accepted
            }
            Err(NoWorkspace::Refused) => Verdict::Refused,
            Err(NoWorkspace::Unnamed) => Verdict::Accepted,
            Err(NoWorkspace::NoAnswer) => Verdict::Unanswered,
        }
    }

    /// Asks the API which workspace a credential belongs to.
    ///
    /// # Errors
    /// If the API does not say it, or the gateway stops.
    pub async fn workspace_of(
        &self,
        credential: Credential,
        authorization: &HeaderValue,
    ) -> Result<WorkspaceHash, NoWorkspace> {
        let context = self.ask_for_workspace(credential, authorization)?;
        let permit = self
            .next_permit(&context)
            .await
            .ok_or(NoWorkspace::NoAnswer)?;
        let request: Request<Bytes> = context.forwarded();
        let came = self
            .attempts
            .attempt(&context.operation, context.credential, permit, request);
        let AttemptOutcome::Answer(answer) = came.await.without_page() else {
            return Err(NoWorkspace::NoAnswer);
        };
        let (head, body) = answer.response.into_parts();
        match head.status {
            // 401 is the only refusal. A 5xx says nothing about the token, and any other answer
            // only that the API knows it.
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(NoWorkspace::Refused),
            status if status.is_server_error() => return Err(NoWorkspace::NoAnswer),
            _ => return Err(NoWorkspace::Unnamed),
        }
        let Read::Whole(bytes) = body::read(body, LONGEST_ANSWER).await else {
            return Err(NoWorkspace::Unnamed);
        };
        let document: Value = serde_json::from_slice(&bytes).map_err(|_| NoWorkspace::Unnamed)?;
        let id = document["data"]["workspace"]["id"].as_str();
        let id = id.ok_or(NoWorkspace::Unnamed)?;
        Ok(self.router.hasher.hash(&[b"workspace", id.as_bytes()]))
    }

    /// Waits for a permit, however long that takes. `None` if the gateway stops.
    ///
    /// Full lines and expired waits are tried again after [`PAUSE`]. Waiting writes do not depend
    /// on this: they stop waiting after [`LONGEST_CHECK`].
    async fn next_permit(&self, context: &RequestContext) -> Option<Permit> {
        let budget_request = BudgetRequest {
            deadline: self.clock.now() + NEVER,
            answer_by: None,
            admission: Admission::Taken,
            ..self.attempts.budget_request(context)
        };
        loop {
            match self.budgets.join(&budget_request) {
                Ok(mut ticket) => match ticket.granted().await {
                    Ok(permit) => return Some(permit),
                    Err(_) if self.is_draining() => return None,
                    Err(_) => {}
                },
                Err(_) if self.is_draining() => return None,
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Returns the request `GET /` with this token, which asks for the workspace.
    ///
    /// # Errors
    /// If the routes do not know that operation.
    fn ask_for_workspace(
        &self,
        credential: Credential,
        authorization: &HeaderValue,
    ) -> Result<RequestContext, NoWorkspace> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.clone());
        // A new request has the method `GET` and the path `/`.
        let mut request = Request::new(());
        *request.headers_mut() = headers;
        let source = RequestSource::within(&request, Ids::default());
        let (head, ()) = request.into_parts();
        self.router
            .understand(head, &source, &Identity::of(credential), self.clock.now())
            .map_err(|_| NoWorkspace::NoAnswer)
    }
}
