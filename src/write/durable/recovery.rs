//! Going on with what the last process left.
//!
//! Whatever had not ended takes its place in its lanes again, in the order of acceptance, before
//! any new request is taken. What had been sent and has no recorded answer is sent again if that
//! can do no more than the first time and is not long ago; otherwise nobody knows what became of
//! it, and its lanes stay closed for as long as it may still take effect.

use crate::exchange::priority;
use crate::exchange::request::Ask;
use crate::exchange::timing::Timing;
use crate::journal::{JournalError, Record, State, WriteId};
use crate::limit::ledger::Left;
use crate::write::Writes;
use crate::write::decision::REPEAT_FOR;
use crate::write::durable::accept::summary_of;
use crate::write::durable::pending::{Birth, Key, Tries};
use crate::write::durable::record::KeptRequest;
use crate::write::durable::scheduler::Pause;
use crate::write::durable::summary::Summary;
use crate::write::late_arrivals::{Attempts, Unfinished};
use crate::write::retry::is_repeatable;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why what the last process left cannot be gone on with; `Display` says what to do. Nothing was
/// changed.
#[derive(Debug)]
pub enum RecoveryError {
    /// The journal cannot be read.
    Journal(JournalError),
    /// What is kept of this write is not understood.
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

/// What the last process left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Writes that had not left: they go on.
    pub queued: usize,
    /// Writes that had left and are sent again.
    pub repeated: usize,
    /// Writes that had left, of which nobody knows what became.
    pub unknown: usize,
}

impl Writes {
    /// Takes in what the last process left: the writes of the journal, and what the ledger says of
    /// attempts that may still take effect (`None`: nobody knows). To be called once, before any
    /// request.
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
        self.restore(left, &mut attempts);
        let mut recovered = Recovered::default();
        for record in unfinished {
            let kept = KeptRequest::decode(&record.request);
            let kept = kept.ok_or(RecoveryError::NotUnderstood(record.id))?;
            let attempts = attempts.get(&record.id).and_then(|(_, attempts)| *attempts);
            self.go_on(&record, kept, attempts, &mut recovered).await?;
        }
        self.forget_ended().await;
        Ok(recovered)
    }

    /// What the API refused to the last process is not asked of it again write by write.
    async fn still_refused(&self) -> Result<(), JournalError> {
        let refused = self.durable.journal().refused().await?;
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let mut feed = self.durable.shared.feed.lock();
        for (credential, since) in refused {
            let age = wall.duration_since(since).unwrap_or_default();
            let since = now.checked_sub(age).unwrap_or(now);
            feed.pause(Pause::Refused(credential), since);
        }
        Ok(())
    }

    /// When a write may have taken effect for the first time, and until when it may. The ledger's
    /// word counts, which goes by the boot clock. Without it the wall clock is asked how long ago
    /// the write was sent, which may have been set since: if it says less than nothing, that is
    /// unknown, and so long ago that the write is not repeated; and its lanes stay closed for all
    /// of Q.
    fn doubt(&self, record: &Record, attempts: Option<Attempts>) -> (Instant, Option<Instant>) {
        let now = self.clock.now();
        if let Some(Attempts { first, until }) = attempts {
            return (first, until);
        }
        let age = record.dispatched.map_or(Duration::ZERO, |at| {
            let age = self.clock.wall().duration_since(at);
            age.unwrap_or(REPEAT_FOR)
        });
        let first = now.checked_sub(age).unwrap_or(now);
        (first, Some(now + self.router.settings.get().late))
    }

    async fn go_on(
        &self,
        record: &Record,
        kept: KeptRequest,
        attempts: Option<Attempts>,
        recovered: &mut Recovered,
    ) -> Result<(), RecoveryError> {
        let bytes = record.request.len() + record.summary.len();
        let ask = self.asked(kept, record.id)?;
        let had_left = record.state == State::Dispatched;
        let (first, until) = self.doubt(record, attempts);
        let now = self.clock.now();
        let tries = Tries {
            attempts: record.attempts,
            first_doubt: had_left.then_some(first),
            doubt: had_left.then(|| until.unwrap_or(now)),
        };
        let keys = self.order_keys(&ask);
        let summary = summary_of(&ask).shortened();
        let birth = birth(record, &ask, summary, bytes);
        let live = self.durable.adopt(birth, tries);
        let ahead = self.durable.shared.feed.lock().len();
        let budget = &ask.operation.budget;
        let expected = self.budgets.leaves_behind(ask.credential, budget, ahead);
        let mut place = self.queue.enter_named(ask.credential, keys, expected);
        if !had_left {
            recovered.queued += 1;
            self.defer(&live, place);
            return Ok(());
        }
        if let Some(until) = until {
            place.stay_closed_until(until);
        }
        let age = now.saturating_duration_since(first);
        if is_repeatable(&ask) && age < REPEAT_FOR {
            recovered.repeated += 1;
            self.metrics.repeated(&ask.operation.name);
            self.defer(&live, place);
            return Ok(());
        }
        recovered.unknown += 1;
        self.end(&live, State::Unknown, None, &Timing::of(&ask))
            .await;
        drop(place);
        Ok(())
    }

    /// What a kept request asks for, whatever its caller's name is worth now.
    pub(super) fn asked(&self, kept: KeptRequest, id: WriteId) -> Result<Ask, RecoveryError> {
        let accepted = self.clock.now();
        let mut nameless = kept.clone();
        self.ask_of(kept, accepted).or_else(|_| {
            // The name that its caller gave was believed, or was not, by other rules.
            nameless.headers.remove(crate::exchange::callers::CALLER);
            let ask = self.ask_of(nameless, accepted);
            ask.map_err(|_| RecoveryError::NotUnderstood(id))
        })
    }
}

fn birth(record: &Record, ask: &Ask, summary: Summary, bytes: usize) -> Birth {
    Birth {
        id: record.id,
        credential: ask.credential,
        operation: ask.operation.clone(),
        caller: ask.caller.clone(),
        urgency: priority::urgency_of_write(&ask.headers, true),
        key: record.key.map(|hash| Key {
            hash,
            fingerprint: record.fingerprint,
        }),
        summary: Arc::new(summary),
        bytes,
        // Nobody waits for it any more.
        deferred: true,
        since: record.accepted,
        accepted: ask.accepted,
    }
}
