//! Moving the deferred writes of one credential to another, because its token was replaced.
//!
//! Promises:
//! - The new token is of the workspace that the writes were meant for: the API has said so of both,
//!   unless an operator takes that on themselves.
//! - A write is held while it is moved, so it is sent once: with the old token or with the new one.
//!   What was sent with the old one stays with it, unless a restart has queued it for a retry.
//! - The journal has the new owner before anything is sent with its token.
//! - Under its `Idempotency-Key` a write is carried out once, by whichever token it is asked for.
//!
//! Writes keep their order among themselves. Those that the new credential has in the same lanes
//! already stay before them.

use crate::audit::AUDIT;
use crate::credential::{self, Credential};
use crate::error::GatewayError;
use crate::exchange::request::RequestContext;
use crate::journal::{Change, JournalError, Record, State};
use crate::tasks;
use crate::write::Writes;
use crate::write::durable::pending::{Key, PendingState, PendingWrite};
use crate::write::durable::record::KeptRequest;
use crate::write::idempotency;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};
use std::sync::Arc;

/// The number of writes that are moved with one sync of the journal.
const TOGETHER: usize = 64;

/// The new owner of the writes. Nothing shows the token.
struct NewOwner {
    /// The hash of the new token, by which everything else knows it.
    credential: Credential,
    /// The new token as it is sent, in place of the old one.
    authorization: HeaderValue,
}

/// A write that is held, and the changes for the journal.
struct Held {
    pending: Arc<PendingWrite>,
    /// The request with the new token, as the present routes understand it.
    context: RequestContext,
    /// Its `Idempotency-Key`, hashed with the new credential.
    key: Option<Key>,
    /// The size of what the journal keeps, which a token of another length changes.
    bytes: usize,
    /// Kept together or not at all.
    changes: Vec<Change>,
}

impl Writes {
    /// Moves the deferred writes of a credential to that of this `Authorization`, once the API has
    /// said that both are of one workspace, or if `unchecked` says that the operator knows. Returns
    /// how many were moved and how many were not.
    ///
    /// # Errors
    /// If the old credential is unknown. If the new one is missing, the same, refused by the API,
    /// of another workspace, or its workspace is unknown. If the journal fails; what was moved by
    /// then stays moved.
    pub async fn operators_rebind(
        self: &Arc<Self>,
        hash: &str,
        authorization: Option<&HeaderValue>,
        unchecked: bool,
    ) -> Result<Value, GatewayError> {
        let from = self.named(hash)?;
        let mut headers = HeaderMap::new();
        headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
        let Some(authorization) = authorization.filter(|_| credential::is_named(&headers)) else {
            return Err(GatewayError::BadRequest(
                "The new token is missing: it is expected as `Authorization: Bearer ...`",
            ));
        };
        let owner = NewOwner {
            credential: self.router.hasher.credential(&headers),
            authorization: authorization.clone(),
        };
        if owner.credential == from {
            return Err(GatewayError::BadRequest(
                "This is the token that the writes have already",
            ));
        }
        if !unchecked {
            self.check_workspace(from, &owner).await?;
        }
        // It goes on if the operator hangs up: nothing may stay held.
        let writes = self.clone();
        let rebinding = tasks::detached(async move { writes.rebind(from, &owner).await });
        rebinding.await.map_err(|_| GatewayError::Internal)?
    }

    /// Checks that the new token is of the workspace of the old one, and records that.
    ///
    /// The API is asked about the new token only. What it said of the old one is in the journal,
    /// since it may not accept that any more.
    ///
    /// # Errors
    /// As for [`Writes::operators_rebind`].
    async fn check_workspace(
        &self,
        from: Credential,
        owner: &NewOwner,
    ) -> Result<(), GatewayError> {
        let known = self.durable.journal().workspace(from).await;
        let known = known.map_err(|error| self.journal_failed(&error))?;
        let Some(known) = known else {
            return Err(GatewayError::BadRequest(
                "The API has not said which workspace the old token belonged to; rebind unchecked \
                 (`unchecked`) only if you know that it is the new one's",
            ));
        };
        let workspace = self
            .workspace_of(owner.credential, &owner.authorization)
            .await?;
        if workspace != known {
            return Err(GatewayError::BadRequest(
                "The new token belongs to another workspace than the old one; nothing was changed",
            ));
        }
        let belongs = Change::Belongs(owner.credential, workspace);
        let noted = self.commit(vec![belongs]).await;
        noted.map_err(|error| self.journal_failed(&error))?;
        // The API may have refused the new token before. It has just accepted it.
        self.token_accepted(owner.credential).await;
        Ok(())
    }

    /// Moves all deferred writes of a credential, [`TOGETHER`] at a time.
    ///
    /// A write that cannot be moved stays: it was sent, is being cancelled, or has a key that the
    /// new credential has used. If nothing is left, the pause of the old credential ends.
    ///
    /// # Errors
    /// If the journal fails; the groups before stay moved.
    async fn rebind(&self, from: Credential, owner: &NewOwner) -> Result<Value, GatewayError> {
        let pendings = self.durable.deferred_of(from);
        let mut moved = 0;
        for some in pendings.chunks(TOGETHER) {
            moved += self.rebind_some(some, owner).await?;
        }
        let left = self.durable.deferred_of(from).len();
        if left == 0 {
            self.admitted(from).await;
        }
        self.durable.shared.wakeup.notify_one();
        let to = owner.credential;
        let settings = self.router.settings.get();
        let from_name = settings.names.of(&from.to_string()).map(str::to_owned);
        tracing::info!(
            target: AUDIT,
            credential = %to, %from, from_name, moved, left,
            "deferred writes moved to another credential by an operator"
        );
        let mut done = json!({ "moved": moved, "left": left });
        self.show_credential(&mut done, Some(to));
        Ok(done)
    }

    /// Moves these writes. Returns how many were moved; the others go on with the old token.
    ///
    /// # Errors
    /// If the journal failed for one of them. All are still either moved or let go: none stays
    /// held.
    async fn rebind_some(
        &self,
        some: &[Arc<PendingWrite>],
        owner: &NewOwner,
    ) -> Result<usize, GatewayError> {
        let mut commits = Vec::with_capacity(some.len());
        for pending in some {
            if let Some(held) = self.hold_for(pending, owner).await {
                // The commit begins here, and the next ones join it.
                let committed = self.durable.journal().commit(held.changes.clone());
                commits.push((held, committed));
            }
        }
        let mut moved = 0;
        let mut result = Ok(());
        for (held, committed) in commits {
            match committed.await {
                Ok(()) => {
                    self.change_hands(held, owner);
                    moved += 1;
                    continue;
                }
                // The new credential has a write under its key, or it has ended: it stays.
                Err(JournalError::Taken | JournalError::Absent) => {}
                Err(error) => result = Err(self.journal_failed(&error)),
            }
            self.defer_again(&held.pending);
        }
        result.map(|()| moved)
    }

    /// Keeps a write from being sent, if it was not sent yet, and returns what changes.
    async fn hold_for(&self, pending: &Arc<PendingWrite>, owner: &NewOwner) -> Option<Held> {
        if !pending.hold() {
            return None;
        }
        let held = self.rewritten(pending, owner).await;
        if held.is_none() {
            self.defer_again(pending);
        }
        held
    }

    /// Returns a held write with the new token, and the changes for the journal. `None` if its
    /// record is missing or not understood: then it stays with the old token.
    async fn rewritten(&self, pending: &Arc<PendingWrite>, owner: &NewOwner) -> Option<Held> {
        let record = self.durable.journal().get(pending.id).await.ok()??;
        let mut kept = KeptRequest::decode(&record.request)?;
        kept.headers
            .insert(AUTHORIZATION, owner.authorization.clone());
        let key = match &pending.key {
            None => None,
            Some(before) => {
                let key = idempotency::key(&kept.headers).ok()??;
                Some(Key {
                    hash: self.key_hash(owner.credential, pending.caller.principal.client(), &key),
                    // The fingerprint does not contain the token.
                    fingerprint: before.fingerprint,
                })
            }
        };
        let request: Bytes = kept.encode();
        let bytes = request.len() + record.summary.len();
        let mut changes = vec![Change::Rebind {
            id: pending.id,
            credential: owner.credential,
            key: key.as_ref().map(|key| key.hash),
            request,
        }];
        changes.extend(key.map(|_| self.left_under_key(record)));
        Some(Held {
            pending: pending.clone(),
            context: self.asked(kept, owner.credential, pending.id).ok()?,
            bytes,
            changes,
            key,
        })
    }

    /// Returns what stays under the key of the old credential: a record whose outcome is unknown. A
    /// request under that key must not have the write carried out once more, and does not hear its
    /// outcome.
    fn left_under_key(&self, before: Record) -> Change {
        let now = self.clock.wall();
        Change::Accept(Box::new(Record {
            id: self.durable.new_id(now),
            request: Bytes::new(),
            state: State::Unknown,
            ended: Some(now),
            ..before
        }))
    }

    /// Moves a write to the lanes of its new owner, which the journal has.
    ///
    /// The new entry replaces the old one first, because callers that follow the old one look for
    /// it as soon as that is handed over. The old place is dropped next, which opens the old lanes.
    fn change_hands(&self, held: Held, owner: &NewOwner) {
        let Held {
            pending, context, ..
        } = held;
        let tries = pending.tries();
        let next = PendingWrite {
            id: pending.id,
            credential: owner.credential,
            operation: context.operation.clone(),
            caller: pending.caller.clone(),
            urgency: pending.urgency,
            key: held.key.map(Box::new),
            summary: pending.summary.clone(),
            body_digest: pending.body_digest.clone(),
            bytes: held.bytes,
            deferred: true,
            since: pending.since,
            accepted: pending.accepted,
            state: PendingState::new(tries),
        };
        let next = self.durable.replace(&pending, next);
        if let Some(turn) = pending.turn() {
            self.durable.shared.scheduler.lock().leave(turn);
        }
        // Gives up its place in the old lanes, unless a task has that still.
        drop(pending.handed_over());
        let mut place = self.enter_lanes(&next, &context);
        // An attempt with the old token may still take effect. Later writes wait for that as
        // before.
        if let Some(until) = tries.doubt {
            place.stay_closed_for(until.saturating_duration_since(self.clock.now()));
        }
        self.defer(&next, place);
    }
}
