//! Which workspace a credential belongs to, as the API itself says (`GET /`).
//!
//! It is asked when a write is first deferred with a credential and kept in the journal: later, when
//! the API no longer takes that credential, there is nobody left to ask, and a token that is to take
//! its place must not carry the writes into another workspace.

use crate::credential::Credential;
use crate::error::{GatewayError, Waited};
use crate::gateway::Gateway;
use crate::gateway::attempt::Came;
use crate::gateway::body::{self, Read};
use crate::gateway::flow::Ask;
use crate::journal::{Change, WorkspaceHash};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// An answer about a workspace is read up to this size, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;
/// Where the API did not say it, another write asks again after this.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// So many credentials are remembered as asked for; then it begins anew, which costs a read each.
const MOST_ASKED: usize = 10_000;

/// Why it is not known.
pub(super) enum Unsaid {
    /// The API does not take the credential.
    Refused,
    /// It did not answer, or not in a way that is understood.
    NoAnswer,
}

impl From<Unsaid> for GatewayError {
    fn from(why: Unsaid) -> Self {
        match why {
            Unsaid::Refused => Self::BadRequest("The API does not take the new token"),
            Unsaid::NoAnswer => Self::UpstreamUnreachable {
                message: "The API did not say which workspace the new token belongs to.",
                waited: Waited::InVain,
            },
        }
    }
}

impl Gateway {
    /// Has the workspace of a write's credential asked for, unless that has been done.
    pub(super) fn note_workspace(&self, ask: &Ask) {
        let durable = &self.durable.shared;
        let Some(authorization) = ask.headers.get(AUTHORIZATION).cloned() else {
            return;
        };
        let credential = ask.credential;
        let mut asked = durable.asked.lock();
        if !durable.bounds.workspaces || !asked.insert(credential) {
            return;
        }
        if asked.len() > MOST_ASKED {
            asked.clear();
        }
        drop(asked);
        let gateway = self.clone();
        // Not a task that stopping waits for: nothing depends on it.
        drop(tokio::spawn(async move {
            if gateway
                .ask_and_note(credential, &authorization)
                .await
                .is_none()
            {
                tokio::time::sleep(ASK_AGAIN).await;
                gateway.durable.shared.asked.lock().remove(&credential);
            }
        }));
    }

    async fn ask_and_note(&self, credential: Credential, said_as: &HeaderValue) -> Option<()> {
        let known = self.durable.journal().workspace(credential).await.ok()?;
        if known.is_none() {
            let workspace = self.workspace_of(said_as).await.ok()?;
            let belongs = Change::Belongs(credential, workspace);
            self.commit(vec![belongs]).await.ok()?;
        }
        Some(())
    }

    /// Asks the API which workspace a credential belongs to.
    ///
    /// # Errors
    /// If the API does not say it, or the gateway stops.
    pub(super) async fn workspace_of(
        &self,
        authorization: &HeaderValue,
    ) -> Result<WorkspaceHash, Unsaid> {
        let ask = self.ask_for_workspace(authorization)?;
        let permit = self.another_permit(&ask).await.ok_or(Unsaid::NoAnswer)?;
        let request: Request<Bytes> = self.forwarded(&ask);
        let came = self.attempt(&ask.operation, ask.credential, permit, request);
        let Came::Answer(answer) = came.await else {
            return Err(Unsaid::NoAnswer);
        };
        let (head, body) = answer.response.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Unsaid::Refused),
            _ => return Err(Unsaid::NoAnswer),
        }
        let Read::Whole(bytes) = body::read(body, LONGEST_ANSWER).await else {
            return Err(Unsaid::NoAnswer);
        };
        let document: Value = serde_json::from_slice(&bytes).map_err(|_| Unsaid::NoAnswer)?;
        let id = document["data"]["workspace"]["id"].as_str();
        let id = id.ok_or(Unsaid::NoAnswer)?;
        Ok(self.hasher.hash(&[b"workspace", id.as_bytes()]))
    }

    fn ask_for_workspace(&self, authorization: &HeaderValue) -> Result<Ask, Unsaid> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.clone());
        let mut request = Request::new(());
        *request.headers_mut() = headers;
        let (head, ()) = request.into_parts();
        self.understand(head, self.clock.now())
            .map_err(|_| Unsaid::NoAnswer)
    }
}
