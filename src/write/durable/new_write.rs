//! A durable write from a request: what memory keeps of it, and what the journal keeps.
//!
//! Memory keeps an entry with what lists, the scheduler and a retry under the same key need. It
//! could not hold the requests of a hundred thousand deferred writes: these are in the journal
//! alone, and are read back when a write is scheduled.
//!
//! Entries have two other origins: a record that the last process left (`recovery.rs`), and a write
//! that moves to another credential (`rebind.rs`).
//!
//! Nothing here claims, records or sends.

use crate::credential::Credential;
use crate::exchange::priority;
use crate::exchange::request::RequestContext;
use crate::journal::{KeyHash, Record, State};
use crate::write::Writes;
use crate::write::accept::order_names;
use crate::write::durable::pending::{Key, PendingState, PendingWrite, Tries};
use crate::write::durable::record::KeptRequest;
use crate::write::durable::summary::Summary;
use crate::write::idempotency;
use std::sync::Arc;

/// Why a write is durable.
#[derive(Clone, Debug)]
pub(crate) struct Durability {
    /// The `Idempotency-Key` of the request.
    pub(super) key: Option<Vec<u8>>,
    /// Whether the request says `Prefer: respond-async`.
    pub(super) respond_async: bool,
}

impl Durability {
    /// Returns whether its caller does not wait for the outcome.
    pub(crate) fn is_deferred(&self) -> bool {
        self.respond_async
    }
}

impl Writes {
    /// Returns the entry of a write from a request, under a new id, and its record for the journal.
    ///
    /// The record has the request as it was received, credential included: a restart understands it
    /// again, by the routes of that time.
    pub(super) fn new_write(
        &self,
        context: &RequestContext,
        durability: &Durability,
    ) -> (PendingWrite, Record) {
        let request = KeptRequest {
            method: context.method.clone(),
            target: context.target.clone(),
            peer: context.peer,
            client: context.caller.principal.client().cloned(),
            deferred: durability.respond_async,
            headers: context.headers.clone(),
            body: context.body.clone(),
        };
        let summary = summary_of(context);
        let key = durability.key.as_ref().map(|key| Key {
            hash: self.key_hash(context.credential, context.caller.principal.client(), key),
            fingerprint: idempotency::fingerprint(
                &context.method,
                context.target.as_str(),
                &context.headers,
                &context.body,
            ),
        });
        let now = self.clock.wall();
        let record = Record {
            id: self.durable.new_id(now),
            credential: context.credential,
            client: context.caller.principal.client().cloned(),
            operation: context.operation.name.clone(),
            key: key.map(|key| key.hash),
            fingerprint: key.map_or([0; 32], |key| key.fingerprint),
            summary: summary.encode(),
            request: request.encode(),
            state: State::Queued,
            attempts: 0,
            accepted: now,
            dispatched: None,
            ended: None,
            answer: None,
        };
        let pending = PendingWrite {
            id: record.id,
            credential: context.credential,
            operation: context.operation.clone(),
            caller: context.caller.clone(),
            urgency: priority::urgency_of_write(&context.headers, durability.respond_async),
            key: key.map(Box::new),
            summary: Arc::new(summary.shortened()),
            body_digest: self.body_digest(context),
            bytes: record.request.len() + record.summary.len(),
            deferred: durability.respond_async,
            since: now,
            accepted: context.accepted,
            state: PendingState::new(Tries::default()),
        };
        (pending, record)
    }

    /// Returns the hash of an `Idempotency-Key`. A key belongs to its credential, so two callers
    /// with different tokens may use the same one.
    pub(super) fn key_hash(
        &self,
        credential: Credential,
        client: Option<&Arc<str>>,
        key: &[u8],
    ) -> KeyHash {
        let hasher = &self.router.hasher;
        match client {
            None => hasher.hash(&[b"idempotency", credential.bytes(), key]),
            // Clients that share a credential do not share keys: one must not get the answer of
            // another's write.
            Some(client) => {
                hasher.hash(&[b"idempotency", credential.bytes(), key, client.as_bytes()])
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
