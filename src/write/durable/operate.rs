//! What operators may do with the durable writes of anybody: look at them, take them back, and
//! pause and resume those that are deferred.

use crate::audit::AUDIT;
use crate::credential::Credential;
use crate::error::GatewayError;
use crate::journal::{Filter, OwnerFilter, State, WriteId};
use crate::route::Effect;
use crate::tasks;
use crate::write::Writes;
use crate::write::durable::requests::{document, rfc3339};
use crate::write::durable::scheduler::Pause;
use serde_json::{Value, json};
use std::sync::Arc;

/// A selection of writes: of a credential, of an operation, or of one operation of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The hash of the credential, as logs and lists show it.
    pub credential: Option<String>,
    /// The operation's name.
    pub operation: Option<Arc<str>>,
}

/// The page of a list that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Only those of this credential.
    pub credential: Option<String>,
    /// Only those of this operation.
    pub operation: Option<Arc<str>>,
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those accepted after this one.
    pub after: Option<WriteId>,
    /// The most writes of the page.
    pub limit: usize,
}

impl Writes {
    /// Returns a page of writes, oldest first, and what is paused.
    ///
    /// # Errors
    /// If the credential or the operation is not known, or the journal cannot be read.
    pub async fn operators_list(&self, listing: &Listing) -> Result<Value, GatewayError> {
        let credential = listing.credential.as_deref();
        let filter = Filter {
            owners: match credential {
                Some(hash) => OwnerFilter::Sharing(self.named(hash)?),
                None => OwnerFilter::All,
            },
            operation: listing.operation.clone(),
            state: listing.state,
            after: listing.after,
        };
        let listed = self.durable.journal().list(filter, listing.limit + 1).await;
        let mut records = listed.map_err(|error| self.journal_failed(&error))?;
        // Writes of an operation that only an earlier route table had are still listed.
        if let Some(operation) = listing.operation.as_ref().filter(|_| records.is_empty()) {
            self.must_know(operation)?;
        }
        // One more than the page was asked for, only to know whether it is there.
        let has_more = records.len() > listing.limit;
        records.truncate(listing.limit);
        let next = records.last().filter(|_| has_more);
        let next = next.map(|record| record.id.to_string());
        let writes = records.iter().map(|record| {
            let mut write = document(record);
            self.show_credential(&mut write, Some(record.credential));
            write
        });
        let writes: Vec<Value> = writes.collect();
        let levels = self.durable.levels(self.clock.wall());
        Ok(json!({
            "writes": writes,
            "next": next,
            "queued": levels.queued,
            "dispatched": levels.dispatched,
            "ended": self.durable.ended(),
            "paused": self.paused(),
        }))
    }

    /// Returns one write, with the API's answer.
    ///
    /// # Errors
    /// If there is none, or the journal cannot be read.
    pub async fn operators_show(&self, id: WriteId) -> Result<Value, GatewayError> {
        let found = self.durable.journal().get(id).await;
        let found = found.map_err(|error| self.journal_failed(&error))?;
        let record = found.ok_or(GatewayError::NotFound)?;
        // A pending write knows its position and estimate; the journal has the rest.
        let mut write = match self.durable.pending(id) {
            Some(pending) => self.document_of(&pending)["data"]["write"].take(),
            None => document(&record),
        };
        self.show_credential(&mut write, Some(record.credential));
        Ok(write)
    }

    /// Takes a write back that was not sent.
    ///
    /// # Errors
    /// If it was sent or has ended, does not exist, or the journal fails.
    pub async fn operators_cancel(self: &Arc<Self>, id: WriteId) -> Result<Value, GatewayError> {
        if let Some(pending) = self.durable.pending(id) {
            let request_id = pending.summary.request_id.clone();
            let writes = self.clone();
            let cancelling = tasks::detached(async move { writes.cancel(&pending).await });
            cancelling.await.map_err(|_| GatewayError::Internal)??;
            tracing::info!(target: AUDIT, %id, request_id, "write cancelled by an operator");
            return self.operators_show(id).await;
        }
        // Cancelling what is cancelled succeeds again, so that a script may repeat it.
        let write = self.operators_show(id).await?;
        match write["state"] == State::Cancelled.as_str() {
            true => Ok(write),
            false => Err(GatewayError::WriteSent),
        }
    }

    /// Takes back the writes of a client that were not sent. Returns how many.
    ///
    /// # Errors
    /// If the journal fails for one of them. The others are taken back all the same.
    pub async fn operators_cancel_of(
        self: &Arc<Self>,
        client: &str,
    ) -> Result<usize, GatewayError> {
        let (writes, pendings) = (self.clone(), self.durable.of_client(client));
        // It goes on if the operator hangs up.
        let cancelling = tasks::detached(async move {
            let mut cancelled = Ok(0);
            // All of them, whatever becomes of one.
            for pending in pendings {
                match writes.cancel(&pending).await {
                    Ok(()) => cancelled = cancelled.map(|count| count + 1),
                    Err(GatewayError::WriteSent) => {}
                    Err(error) => cancelled = Err(error),
                }
            }
            cancelled
        });
        cancelling.await.map_err(|_| GatewayError::Internal)?
    }

    /// Pauses the deferred writes of the selection. Returns `false` if they were paused already.
    ///
    /// # Errors
    /// If the selection is empty, or names a credential or an operation that is not known, or one
    /// that reads.
    pub fn operators_pause(&self, selection: &Selection) -> Result<bool, GatewayError> {
        let pause = self.selected(selection)?;
        report(&pause, "deferred writes paused by an operator");
        // Only what is not sent yet stops; an attempt in flight goes on. A pause ends with the
        // process: the operator of the next one may not know of it.
        let changed = self
            .durable
            .shared
            .scheduler
            .lock()
            .pause(pause, self.clock.now());
        Ok(changed)
    }

    /// Resumes the deferred writes of the selection. Returns `false` if they were not paused.
    ///
    /// # Errors
    /// See [`Writes::operators_pause`].
    pub async fn operators_resume(&self, selection: &Selection) -> Result<bool, GatewayError> {
        let pause = self.selected(selection)?;
        // A resumption also lifts the pause that a 401 began: the operator knows better.
        let refused = match &pause {
            Pause::Credential(credential) => self.admitted(*credential).await,
            _ => false,
        };
        let changed = self.durable.shared.scheduler.lock().resume(&pause) || refused;
        self.durable.shared.wakeup.notify_one();
        report(&pause, "deferred writes resumed by an operator");
        Ok(changed)
    }

    fn paused(&self) -> Vec<Value> {
        let scheduler = self.durable.shared.scheduler.lock();
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let paused = scheduler.paused().map(|(pause, since)| {
            // `refused` says that the API is the reason, and not an operator.
            let (mut paused, credential) = match pause {
                Pause::Credential(credential) => (json!({}), Some(*credential)),
                Pause::Refused(credential) => (json!({ "refused": true }), Some(*credential)),
                Pause::Operation(credential, operation) => {
                    (json!({ "operation": &**operation }), *credential)
                }
            };
            self.show_credential(&mut paused, credential);
            paused["since"] = json!(rfc3339(wall - now.saturating_duration_since(since)));
            paused
        });
        paused.collect()
    }

    /// Returns what an operation does.
    ///
    /// # Errors
    /// If the table has none of this name.
    fn must_know(&self, operation: &Arc<str>) -> Result<Effect, GatewayError> {
        let table = self.router.table.get();
        let mut operations = table.operations().iter();
        let known = operations.find(|known| known.name == *operation);
        let effect = known.map(|known| known.effect);
        effect.ok_or(GatewayError::BadRequest(
            "There is no such operation; `segment-gateway routes` lists them",
        ))
    }

    fn selected(&self, selection: &Selection) -> Result<Pause, GatewayError> {
        let credential = selection.credential.as_deref();
        let credential = credential.map(|hash| self.named(hash)).transpose()?;
        if let Some(operation) = &selection.operation {
            if self.must_know(operation)? == Effect::Read {
                return Err(GatewayError::BadRequest(
                    "This operation reads; only writes can be paused and resumed",
                ));
            }
            return Ok(Pause::Operation(credential, operation.clone()));
        }
        credential
            .map(Pause::Credential)
            .ok_or(GatewayError::BadRequest("Give `credential` or `operation`"))
    }

    /// Adds a credential to a document for operators: its hash, and its name if it has one.
    pub(super) fn show_credential(&self, document: &mut Value, credential: Option<Credential>) {
        let hash = credential.map(|credential| credential.to_string());
        // The names of this moment: a reload shows with the next document.
        let settings = self.router.settings.get();
        let name = hash.as_deref().and_then(|hash| settings.names.of(hash));
        document["credentialName"] = json!(name);
        document["credential"] = json!(hash);
    }

    /// Returns the credential with this name or hash, of those that have writes or budgets at
    /// present.
    pub(super) fn named(&self, given: &str) -> Result<Credential, GatewayError> {
        let settings = self.router.settings.get();
        let hash = settings.names.resolve(given);
        let is_named = |credential: &Credential| credential.to_string() == hash;
        // A list shows a part of the hash, so it is looked for among those that are known. Anything
        // else would select nobody, which an operator must hear.
        let with_writes = self.durable.credentials();
        let mut known = with_writes.into_iter().chain(self.budgets.credentials());
        known.find(is_named).ok_or(GatewayError::BadRequest(
            "No credential of this hash or name has writes or budgets at present",
        ))
    }
}

/// Writes the log line about a pause that an operator began or ended, whatever the level.
fn report(pause: &Pause, message: &'static str) {
    let (credential, operation) = match pause {
        Pause::Credential(credential) | Pause::Refused(credential) => (Some(credential), None),
        Pause::Operation(credential, operation) => (credential.as_ref(), Some(&**operation)),
    };
    let credential = credential.map(tracing::field::display);
    tracing::info!(target: AUDIT, credential, operation, "{message}");
}
