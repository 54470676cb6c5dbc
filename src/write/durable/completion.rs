//! The end of a durable write: recorded in the journal, and then reported to all who follow it.
//!
//! Invariant: nobody hears of an end, and no lane opens, before the journal has it.
//!
//! What a refused credential does to other writes stands here as well: a 401 pauses what is
//! deferred with it.

use crate::audit::AUDIT;
use crate::credential::Credential;
use crate::exchange::timing::Timing;
use crate::journal::{Change, JournalError, State};
use crate::write::Writes;
use crate::write::answer::WriteAnswer;
use crate::write::durable::PAUSE;
use crate::write::durable::checks::Verdict;
use crate::write::durable::pending::PendingWrite;
use crate::write::durable::record::KeptAnswer;
use crate::write::durable::scheduler;
use crate::write::durable::stage::Completion;
use bytes::Bytes;
use http::StatusCode;
use std::collections::BTreeSet;
use std::time::Duration;

/// The time for which writes wait for a credential that the API refuses.
const REFUSED_FOR: Duration = Duration::from_secs(86_400);

impl Writes {
    /// Records how a write ended, and then reports it. Its lanes must not open before.
    pub(super) async fn end(
        &self,
        pending: &PendingWrite,
        state: State,
        heard: Option<WriteAnswer>,
        timing: &Timing,
    ) {
        let standing = heard.as_ref().and_then(|heard| heard.standing.clone());
        let upstream = heard.as_ref().map_or(Duration::ZERO, |heard| heard.took);
        let mut answer = heard.map(KeptAnswer::from);
        let status = answer.as_ref().map(|answer| answer.status);
        let end = if status == Some(StatusCode::UNAUTHORIZED) {
            // A 401 says nothing about the write, so it is not what the next one under its key
            // hears.
            self.refused_lately(pending.credential);
            match state {
                State::Failed => Change::Withdraw(pending.id),
                _ => {
                    answer = None;
                    self.end_of(pending, state, None)
                }
            }
        } else {
            self.end_of(pending, state, answer.as_ref())
        };
        while let Err(error) = self.commit(vec![end.clone()]).await {
            if error == JournalError::Absent {
                break;
            }
            let _ = self.journal_failed(&error);
            tokio::time::sleep(PAUSE).await;
        }
        self.finish(
            pending,
            Completion {
                state,
                answer,
                queued: timing.queued,
                upstream,
                throttled: timing.throttled,
                merged: timing.merged,
                standing,
            },
        );
    }

    /// Returns the end of a write for the journal. The body of its answer is left out if the
    /// journal keeps as many as it may.
    fn end_of(&self, pending: &PendingWrite, state: State, answer: Option<&KeptAnswer>) -> Change {
        let encoded = answer.map(KeptAnswer::encode);
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len) as u64;
        let mut registry = self.durable.shared.registry.lock();
        let retention = self.durable.retention();
        let is_kept = retention.keeps(&registry.ended, pending.credential, length(&encoded));
        let answer = match answer {
            Some(answer) if !is_kept => Some(answer.without_body().encode()),
            _ => encoded,
        };
        registry.ended.add(pending.credential, length(&answer));
        Change::End {
            id: pending.id,
            state,
            at: self.clock.wall(),
            answer,
        }
    }

    /// Ends a write that was cancelled, which the journal knows.
    pub(super) fn cancelled(&self, pending: &PendingWrite) {
        self.finish(
            pending,
            Completion {
                state: State::Cancelled,
                answer: None,
                queued: Duration::ZERO,
                upstream: Duration::ZERO,
                throttled: 0,
                merged: 0,
                standing: None,
            },
        );
    }

    /// Removes a write whose end the journal has, and reports the end.
    ///
    /// The registry forgets it first: a request with its key finds it in the journal from then on.
    fn finish(&self, pending: &PendingWrite, ended: Completion) {
        self.durable.release(pending);
        if let Some(turn) = pending.turn() {
            self.durable.shared.scheduler.lock().leave(turn);
        }
        self.report_end(pending, ended.state, pending.tries().attempts);
        self.record_end(pending, &ended);
        drop(pending.ended(ended));
    }

    /// Fails the writes of credentials that the API has refused for a day.
    pub async fn give_up_refused(&self) {
        let now = self.clock.now();
        let Some(since) = now.checked_sub(REFUSED_FOR) else {
            return;
        };
        let given_up = self.durable.shared.scheduler.lock().given_up(since);
        let credentials: BTreeSet<Credential> =
            given_up.iter().map(|pending| pending.credential).collect();
        for pending in given_up {
            // A write that is being cancelled at this moment is ended by that.
            if let Some(place) = pending.take_place() {
                let timing = Timing::default();
                self.end(&pending, State::Failed, None, &timing).await;
                drop(place);
            }
        }
        for credential in credentials {
            self.admitted(credential).await;
        }
    }

    /// Pauses what is deferred with a credential that the API no longer accepts, also in the next
    /// process.
    pub(super) async fn pause_credential(&self, credential: Credential) {
        self.refused_lately(credential);
        let pause = scheduler::Pause::Refused(credential);
        let now = self.clock.now();
        if !self.durable.shared.scheduler.lock().pause(pause, now) {
            return;
        }
        // A record: each token needs somebody to look after it.
        tracing::error!(
            target: AUDIT,
            %credential,
            "the API rejects this credential (401): its deferred writes are paused until they \
             are moved to another token (`segment-gateway writes rebind`), the API accepts it \
             again, they are resumed or cancelled, or a day has passed"
        );
        let refused = Change::Refused(credential, self.clock.wall());
        if let Err(error) = self.commit(vec![refused]).await {
            let _ = self.journal_failed(&error);
        }
    }

    /// Ends the pause of what is deferred with a credential that the API refused. Returns whether
    /// there was one.
    pub(super) async fn admitted(&self, credential: Credential) -> bool {
        let pause = scheduler::Pause::Refused(credential);
        let waited = self.durable.shared.scheduler.lock().resume(&pause);
        if let Err(error) = self.commit(vec![Change::Admitted(credential)]).await {
            let _ = self.journal_failed(&error);
        }
        self.durable.shared.wakeup.notify_one();
        waited
    }

    /// Notes that the API has just answered this credential with 401.
    fn refused_lately(&self, credential: Credential) {
        let (mut checks, now) = (self.durable.shared.checks.lock(), self.clock.now());
        checks.answered(credential, Verdict::Refused, now);
    }
}
