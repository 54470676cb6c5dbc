//! Writes that outlast a crash: deferred ones, and those with an `Idempotency-Key`.
//!
//! `accept` takes them in and answers their callers, `enqueue` reads them back when it is their
//! turn, `run` sends them, `completion` records what came of it, `recovery` goes on with what the
//! last process left, `requests` shows them to those whose they are and `operate` to operators;
//! `rebind` gives them to another credential of the same workspace, which `workspace` asks for.
//! `pending` is one of them, `scheduler` those that wait to be brought before their budgets.
//! `checks` knows which credentials the API takes, `summary` is what is told of a write after its
//! request was erased, and `retention` says how much is remembered of those that have ended.
//!
//! Promises:
//! - Nothing is acknowledged, and nothing leaves, before the journal has it on the disk.
//! - What has been recorded as sent is sent again only if that can do no more than the first time.
//! - The lanes of a write open after its end is on the disk: were it repeated after a crash, it
//!   would otherwise undo what a later write of its lanes has done since.

mod accept;
mod checks;
mod completion;
mod enqueue;
mod operate;
mod pending;
mod rebind;
mod record;
mod recovery;
mod registry;
mod requests;
mod retention;
mod run;
mod scheduler;
mod summary;
mod workspace;

pub use operate::{Listing, Selection};
pub(crate) use pending::PendingWrite;
pub use recovery::{Recovered, RecoveryError};
pub(crate) use registry::ScheduledGuard;
pub use registry::{Durable, DurableBounds};

use crate::exchange::request::short;
use crate::journal::{JournalError, Remembered, State};
use crate::write::Writes;
use retention::{AT_LEAST, Ended as EndedBefore};
use std::sync::Arc;
use std::time::Duration;

/// The pause before the journal is tried again, and before a budget for which there was no room.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// A time longer than any write waits.
pub(crate) const NEVER: Duration = Duration::from_secs(86_400 * 365);

impl Writes {
    /// Brings deferred writes before their budgets, for as long as the future is polled. Another
    /// one may take over from one that panicked.
    pub async fn drive_deferred(self: Arc<Self>) {
        loop {
            let follows = |credential, turn, these: &_| self.lanes.follows(credential, turn, these);
            let scheduled = self.durable.shared.scheduler.lock().schedule(follows);
            for (pending, turn, line) in scheduled {
                let scheduled = ScheduledGuard {
                    durable: self.durable.clone(),
                    turn,
                    line,
                };
                self.schedule(pending, scheduled);
            }
            tokio::select! {
                () = self.durable.shared.wakeup.notified() => {}
                freed = self.lanes.freed() => {
                    let mut scheduler = self.durable.shared.scheduler.lock();
                    for turn in freed {
                        scheduler.ready(turn);
                    }
                }
            }
        }
    }

    /// Forgets what has ended long ago, and what there is too much of.
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

    /// What became of a write is told under its state.
    fn report_end(&self, pending: &PendingWrite, state: State, attempts: u32) {
        self.durable.count_end(state);
        self.metrics
            .durable_ended(&pending.operation.name, state.as_str());
        let (operation, credential) = (&pending.operation.name, pending.credential);
        let (id, request_id, summary) = (pending.id, pending.request_id(), &pending.summary);
        if state == State::Unknown {
            tracing::warn!(
                %id, request_id, %operation, %credential, attempts,
                method = short(&summary.method),
                path = summary.path,
                elements = summary.named(),
                caller = summary.caller,
                "durable write ended: outcome unknown; check the current state before you send \
                 it again"
            );
        } else {
            tracing::info!(
                %id, request_id, %operation, %credential, attempts, state = state.as_str(),
                "durable write ended"
            );
        }
    }
}
