//! Whether the API takes a credential, and which workspace it belongs to, as the API itself says
//! (`GET /`).
//!
//! It is asked when a write is first deferred with a credential, which waits for the answer: a
//! token that the API has never accepted gets no 202. The workspace is kept in the journal: later,
//! when the API no longer takes that credential, there is nobody left to ask, and a token that is
//! to take its place must not carry the writes into another workspace.

use crate::attempt::send::AttemptOutcome;
use crate::credential::Credential;
use crate::error::{GatewayError, Waited};
use crate::exchange::body::{self, Read};
use crate::exchange::request::RequestContext;
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

/// An answer about a workspace is read up to this size, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;
/// Writes that are to be deferred wait for an answer about their credential until so long after the
/// question.
const LONGEST_CHECK: Duration = Duration::from_secs(5);

/// What a write is told about its credential.
fn told(verdict: Verdict) -> Result<(), GatewayError> {
    match verdict {
        Verdict::Refused => Err(GatewayError::TokenRefused),
        Verdict::Accepted | Verdict::Unanswered => Ok(()),
    }
}

/// Why it is not known.
pub(super) enum Unsaid {
    /// The API does not take the credential.
    Refused,
    /// It takes it, but does not tell its workspace, or not in a way that is understood.
    NotTold,
    /// It could not be asked, or did not answer.
    NoAnswer,
}

impl From<Unsaid> for GatewayError {
    fn from(why: Unsaid) -> Self {
        match why {
            Unsaid::Refused => Self::BadRequest("The API does not take the new token"),
            Unsaid::NotTold | Unsaid::NoAnswer => Self::UpstreamUnreachable {
                message: "The API did not say which workspace the new token belongs to.",
                waited: Waited::InVain,
            },
        }
    }
}

impl Writes {
    /// Asks the API whether it takes the credential of a write that is to be deferred, unless that
    /// is known. A write whose credential the API could not be asked about is accepted: that it
    /// outlasts such a time is what it is deferred for.
    ///
    /// # Errors
    /// If the API answers it with 401, or has done so lately; or if its caller asks too much.
    pub(super) async fn check_credential(
        self: &Arc<Self>,
        context: &RequestContext,
    ) -> Result<(), GatewayError> {
        let durable = &self.durable.shared;
        let now = self.clock.now();
        let (mut answer, since) = {
            let mut checks = durable.checks.lock();
            match checks.look(context.credential, now) {
                Look::Answered(verdict) => return told(verdict),
                Look::Join(answer, since) => (answer, since),
                Look::Ask { .. } if !durable.bounds.workspaces => return Ok(()),
                Look::Ask { again } => {
                    self.quotas.charge(&context.caller)?;
                    let (tell, answer) = watch::channel(None);
                    checks.asking(context.credential, answer.clone(), now);
                    drop(checks);
                    self.ask_about(context, again, tell);
                    (answer, now)
                }
            }
        };
        let until = since + LONGEST_CHECK;
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
        told(verdict)
    }

    /// Asks the API about the credential of a write, whoever hangs up meanwhile.
    fn ask_about(
        self: &Arc<Self>,
        context: &RequestContext,
        again: bool,
        tell: watch::Sender<Option<Verdict>>,
    ) {
        let (writes, credential) = (self.clone(), context.credential);
        let authorization = context.headers.get(AUTHORIZATION).cloned();
        // Not a task that stopping waits for: nothing depends on it.
        tasks::detached(async move {
            let verdict = match authorization {
                Some(said_as) => writes.ask_and_note(credential, &said_as, again).await,
                None => Verdict::Refused,
            };
            let now = writes.clock.now();
            let checks = &writes.durable.shared.checks;
            checks.lock().told(credential, verdict, now);
            let _ = tell.send(Some(verdict));
            let waits = writes.durable.has_writes(credential);
            match verdict {
                Verdict::Refused if waits => writes.pause_credential(credential).await,
                // Whoever asked is accepted only now, and would wait as those before it did.
                Verdict::Accepted => writes.taken_again(credential).await,
                Verdict::Refused | Verdict::Unanswered => {}
            }
        });
    }

    /// The API takes a credential: what waited because it did not leaves, and what comes does not
    /// wait.
    pub(super) async fn taken_again(&self, credential: Credential) {
        let waited = self.durable.shared.scheduler.lock().is_refused(credential);
        if waited && self.admitted(credential).await {
            tracing::warn!(
                %credential,
                "the API accepts this credential again: its deferred writes continue"
            );
        }
    }

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
        match self.workspace_of(said_as).await {
            Ok(workspace) => {
                let belongs = Change::Belongs(credential, workspace);
                if let Err(error) = self.commit(vec![belongs]).await {
                    let _ = self.journal_failed(&error);
                }
                Verdict::Accepted
            }
            Err(Unsaid::Refused) => Verdict::Refused,
            Err(Unsaid::NotTold) => Verdict::Accepted,
            Err(Unsaid::NoAnswer) => Verdict::Unanswered,
        }
    }

    /// Asks the API which workspace a credential belongs to.
    ///
    /// # Errors
    /// If the API does not say it, or the gateway stops.
    pub(super) async fn workspace_of(
        &self,
        authorization: &HeaderValue,
    ) -> Result<WorkspaceHash, Unsaid> {
        let context = self.ask_for_workspace(authorization)?;
        let permit = self.next_permit(&context).await.ok_or(Unsaid::NoAnswer)?;
        let request: Request<Bytes> = context.forwarded();
        let came = self
            .attempts
            .attempt(&context.operation, context.credential, permit, request);
        let AttemptOutcome::Answer(answer) = came.await else {
            return Err(Unsaid::NoAnswer);
        };
        let (head, body) = answer.response.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(Unsaid::Refused),
            status if status.is_server_error() => return Err(Unsaid::NoAnswer),
            _ => return Err(Unsaid::NotTold),
        }
        let Read::Whole(bytes) = body::read(body, LONGEST_ANSWER).await else {
            return Err(Unsaid::NotTold);
        };
        let document: Value = serde_json::from_slice(&bytes).map_err(|_| Unsaid::NotTold)?;
        let id = document["data"]["workspace"]["id"].as_str();
        let id = id.ok_or(Unsaid::NotTold)?;
        Ok(self.router.hasher.hash(&[b"workspace", id.as_bytes()]))
    }

    /// A permit, however long that takes; `None` if the gateway stops.
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

    fn ask_for_workspace(&self, authorization: &HeaderValue) -> Result<RequestContext, Unsaid> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.clone());
        let mut request = Request::new(());
        *request.headers_mut() = headers;
        let (head, ()) = request.into_parts();
        self.router
            .understand(head, self.clock.now())
            .map_err(|_| Unsaid::NoAnswer)
    }
}
