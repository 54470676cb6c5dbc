//! Writes that outlast a crash: deferred ones, and those with an `Idempotency-Key`.
//!
//! A durable write is carried by the engine (`write/engine.rs`), with an entry in the journal:
//! - `accept` takes it in, `reply` answers its caller.
//! - `new_write` makes an entry and a record of a request. `pending` is the entry, `stage` what it
//!   goes through, `registry` has all entries.
//! - `defer` lets it wait if its caller does not, `scheduler` chooses which deferred writes stand
//!   before their budgets, `enqueue` loads them.
//! - `run` is the task of a write, `completion` records its end.
//! - `recovery` goes on with what the last process left.
//! - `requests` shows writes to the callers that made them, `operate` to operators.
//! - `rebind` moves them to another credential of the same workspace, which `workspace` asks the
//!   API about. `checks` is what is known of credentials.
//! - `summary` is what is shown of a write, `record` what the journal keeps, `retention` for how
//!   long.
//!
//! Promises:
//! - Nothing is acknowledged, and nothing is sent, before the journal has it on the disk.
//! - What has been recorded as sent is sent again only if that can do no more than the first
//!   attempt.
//! - The lanes of a write open after its end is on the disk. Otherwise a retry after a crash would
//!   undo what a later write of its lanes has done since.

mod accept;
mod audited;
mod checks;
mod completion;
mod defer;
mod enqueue;
mod expected_end;
mod fields;
mod new_write;
mod operate;
mod pending;
mod rebind;
mod record;
mod recovery;
mod registry;
mod reply;
mod requests;
mod retention;
mod run;
pub mod scheduler;
mod stage;
mod summary;
pub mod workspace;

pub(crate) use defer::ScheduledGuard;
pub use operate::{Listing, Selection};
pub(crate) use pending::PendingWrite;
pub use recovery::{Recovered, RecoveryError};
pub use registry::{Durable, DurableBounds};

use crate::audit::AUDIT;
use crate::error::GatewayError;
use crate::exchange::request::short;
use crate::journal::{Change, JournalError, Remembered, State};
use crate::write::Writes;
use retention::{AT_LEAST, Ended as EndedBefore};
use std::time::Duration;

/// The pause before the journal is tried again, and before a budget for which there was no room.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// A time longer than any write waits.
pub(crate) const NEVER: Duration = Duration::from_secs(86_400 * 365);

impl Writes {
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
                tracing::error!(
                    "the journal's disk is full: deferred and keyed writes are rejected until \
                     there is room; other writes and reads continue"
                );
                GatewayError::JournalFull
            }
            other => {
                tracing::error!(
                    error = %other,
                    "the journal fails: deferred and keyed writes are rejected while it does"
                );
                GatewayError::JournalBroken
            }
        }
    }

    /// Deletes the writes that ended long ago, and those beyond the bounds.
    pub async fn forget_ended(&self) {
        if let Err(error) = self.forget().await {
            tracing::warn!(%error, "cannot delete ended writes");
        }
    }

    async fn forget(&self) -> Result<(), JournalError> {
        let (journal, keep) = (self.durable.journal(), self.durable.shared.bounds.keep);
        let now = self.clock.wall();
        let old = journal.forget(now - keep).await?;
        let ended = EndedBefore::counted(journal.remembered().await?);
        let retention = self.durable.retention();
        let before = now - keep.min(AT_LEAST);
        let mut forgotten = Remembered::default();
        for (credential, surplus) in retention.beyond_shares(&ended) {
            let of = journal.forget_oldest(Some(credential), surplus, before);
            let of = of.await?;
            forgotten.writes += of.writes;
            forgotten.bytes += of.bytes;
        }
        if let Some(surplus) = retention.beyond(&ended, forgotten) {
            let of = journal.forget_oldest(None, surplus, before).await?;
            forgotten.writes += of.writes;
        }
        let ended = match forgotten.writes {
            0 => ended,
            _ => EndedBefore::counted(journal.remembered().await?),
        };
        self.durable.shared.registry.lock().ended = ended;
        if old > 0 {
            tracing::debug!(writes = old, "ended writes deleted");
        }
        if forgotten.writes > 0 {
            tracing::warn!(
                writes = forgotten.writes,
                "ended writes deleted early: journal.ended_writes or journal.ended_bytes is \
                 reached"
            );
        }
        Ok(())
    }

    /// Reports the end of a write under its state.
    fn report_end(&self, pending: &PendingWrite, state: State, attempts: u32) {
        self.durable.count_end(state);
        self.metrics
            .durable_ended(&pending.operation.name, state.as_str());
        let (operation, credential) = (&*pending.operation.name, pending.credential);
        let (id, request_id, summary) = (pending.id, pending.request_id(), &pending.summary);
        if state == State::Unknown {
            // A record: somebody has to look after this write.
            tracing::warn!(
                target: AUDIT,
                %id, request_id, operation, %credential, attempts,
                method = short(&summary.method),
                path = summary.path,
                elements = summary.named(),
                caller = summary.caller,
                "durable write ended: outcome unknown; check the current state before you send \
                 it again"
            );
        } else {
            tracing::info!(
                %id, request_id, operation, %credential, attempts, state = state.as_str(),
                "durable write ended"
            );
        }
    }
}
