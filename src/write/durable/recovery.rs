//! Recovery of the writes that the last process left.
//!
//! A write that had not ended takes its places in its lanes again, in the order of acceptance,
//! before any new request is accepted. One that had been sent and has no recorded answer is retried
//! if that can do no more than the first attempt and is not long ago. Otherwise its outcome is
//! unknown, and its lanes stay closed for as long as it may still take effect.
//!
//! A write whose caller waited is deferred from here on, since that connection is gone. A retry
//! under its key still finds it.
//!
//! Nothing is sent here. The scheduler begins to send after recovery has ended.

use crate::credential::Credential;
use crate::exchange::priority;
use crate::exchange::request::RequestContext;
use crate::exchange::timing::Timing;
use crate::journal::{JournalError, Record, State, WriteId};
use crate::limit::ledger::Left;
use crate::write::Writes;
use crate::write::decision::{RETRY_FOR, is_repeatable};
use crate::write::durable::new_write::summary_of;
use crate::write::durable::pending::{Key, PendingState, PendingWrite, Tries};
use crate::write::durable::record::KeptRequest;
use crate::write::durable::scheduler::Pause;
use crate::write::late_arrivals::{EarlierAttempts, Unfinished};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why recovery failed; `Display` says what to do. Nothing was changed.
#[derive(Debug)]
pub enum RecoveryError {
    /// The journal cannot be read.
    Journal(JournalError),
    /// The record of this write is not understood.
    NotUnderstood(WriteId),
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(error) => write!(f, "cannot read the writes of the journal: {error}"),
            Self::NotUnderstood(id) => write!(
                f,
                "the journal has write {id}, which this gateway does not understand; start the \
                 version that accepted it"
            ),
        }
    }
}

impl std::error::Error for RecoveryError {}

/// The number of writes that the last process left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Writes that had not been sent: they go on.
    pub queued: usize,
    /// Writes that had been sent and are sent again.
    pub repeated: usize,
    /// Writes that had been sent and whose outcome is unknown.
    pub unknown: usize,
}

impl Writes {
    /// Recovers the writes of the journal, and closes the lanes of all that the ledger says may
    /// still take effect (`None`: that is unknown). Call it once, before any request.
    ///
    /// # Errors
    /// If the journal cannot be read, or has something that is not understood.
    pub async fn recover(&self, left: Option<&[Left]>) -> Result<Recovered, RecoveryError> {
        self.still_refused().await.map_err(RecoveryError::Journal)?;
        let unfinished = self.durable.journal().unfinished().await;
        let unfinished = unfinished.map_err(RecoveryError::Journal)?;
        let mut attempts: Unfinished = unfinished
            .iter()
            .map(|one| (one.id, (one.credential, None)))
            .collect();
        // What others may still do closes its lanes first. The attempts of the unfinished writes
        // are noted.
        self.restore(left, &mut attempts);
        let mut recovered = Recovered::default();
        // In the order of acceptance, so that each lane has its old order.
        for record in unfinished {
            let kept = KeptRequest::decode(&record.request);
            let kept = kept.ok_or(RecoveryError::NotUnderstood(record.id))?;
            let attempts = attempts.get(&record.id).and_then(|(_, attempts)| *attempts);
            self.go_on(&record, kept, attempts, &mut recovered).await?;
        }
        self.forget_ended().await;
        Ok(recovered)
    }

    /// Restores the pauses of refused credentials, so that the API is not asked again write by
    /// write.
    async fn still_refused(&self) -> Result<(), JournalError> {
        let refused = self.durable.journal().refused().await?;
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let mut scheduler = self.durable.shared.scheduler.lock();
        for (credential, since) in refused {
            // The wall clock may have been set back since; then the day of the pause begins again.
            let age = wall.duration_since(since).unwrap_or_default();
            let since = now.checked_sub(age).unwrap_or(now);
            scheduler.pause(Pause::Refused(credential), since);
        }
        Ok(())
    }

    /// Returns when a write may have taken effect for the first time, and until when it may.
    ///
    /// The ledger's word counts, which goes by the boot clock. Without it the wall clock says how
    /// long ago the write was sent. It may have been set since: if it says less than nothing, the
    /// write was sent so long ago that it is not retried, and its lanes stay closed for all of Q.
    fn doubt(
        &self,
        record: &Record,
        attempts: Option<EarlierAttempts>,
    ) -> (Instant, Option<Instant>) {
        let now = self.clock.now();
        if let Some(EarlierAttempts { first, until }) = attempts {
            return (first, until);
        }
        let age = record.dispatched.map_or(Duration::ZERO, |at| {
            let age = self.clock.wall().duration_since(at);
            age.unwrap_or(RETRY_FOR)
        });
        let first = now.checked_sub(age).unwrap_or(now);
        (first, Some(now + self.router.settings.get().late))
    }

    /// Lets one write of the last process go on: it waits for its turn, is retried, or ends with an
    /// unknown outcome.
    ///
    /// # Errors
    /// If its request is not understood.
    async fn go_on(
        &self,
        record: &Record,
        kept: KeptRequest,
        attempts: Option<EarlierAttempts>,
        recovered: &mut Recovered,
    ) -> Result<(), RecoveryError> {
        let context = self.asked(kept, record.credential, record.id)?;
        let had_left = record.state == State::Dispatched;
        let (first, until) = self.doubt(record, attempts);
        let now = self.clock.now();
        let tries = Tries {
            attempts: record.attempts,
            first_doubt: had_left.then_some(first),
            doubt: had_left.then(|| until.unwrap_or(now)),
            batch: None,
        };
        let pending = self.durable.adopt(PendingWrite {
            body_digest: self.body_digest(&context),
            ..entry(record, &context, tries)
        });
        // Its lanes are named again, by the present routes.
        let mut place = self.enter_lanes(&pending, &context);
        if !had_left {
            recovered.queued += 1;
            self.defer(&pending, place);
            return Ok(());
        }
        if let Some(until) = until {
            place.stay_closed_until(until);
        }
        let age = now.saturating_duration_since(first);
        if is_repeatable(&context) && age < RETRY_FOR {
            recovered.repeated += 1;
            self.metrics.retried(&context.operation.name);
            self.defer(&pending, place);
            return Ok(());
        }
        // A retry could do more than the first attempt, or undo what others have done since.
        recovered.unknown += 1;
        self.end(&pending, State::Unknown, None, &Timing::of(&context))
            .await;
        drop(place);
        Ok(())
    }

    /// Interprets a kept request, whatever its caller's name is worth now.
    pub(super) fn asked(
        &self,
        kept: KeptRequest,
        credential: Credential,
        id: WriteId,
    ) -> Result<RequestContext, RecoveryError> {
        let accepted = self.clock.now();
        let mut nameless = kept.clone();
        self.ask_of(kept, credential, accepted).or_else(|_| {
            // Other rules may have applied to the name that its caller gave. The write counts, not
            // the name.
            nameless.headers.remove(crate::exchange::callers::CALLER);
            let context = self.ask_of(nameless, credential, accepted);
            context.map_err(|_| RecoveryError::NotUnderstood(id))
        })
    }
}

/// Returns the entry of a recovered write, under its old id and key.
fn entry(record: &Record, context: &RequestContext, tries: Tries) -> PendingWrite {
    let key = record.key.map(|hash| Key {
        hash,
        fingerprint: record.fingerprint,
    });
    PendingWrite {
        id: record.id,
        credential: context.credential,
        operation: context.operation.clone(),
        caller: context.caller.clone(),
        urgency: priority::urgency_of_write(&context.headers, true),
        key: key.map(Box::new),
        summary: Arc::new(summary_of(context).shortened()),
        body_digest: None,
        bytes: record.request.len() + record.summary.len(),
        // No caller waits for it.
        deferred: true,
        since: record.accepted,
        accepted: context.accepted,
        state: PendingState::new(tries),
    }
}
