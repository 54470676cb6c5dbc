//! The end of a write: recorded, and then told.

use super::accept::respond;
use super::carry::PAUSE;
use super::feed;
use super::live::{Ended, Live};
use super::record::KeptAnswer;
use crate::gateway::Gateway;
use crate::gateway::attempt::Answer;
use crate::gateway::body::{self, Read};
use crate::gateway::flow::Timing;
use crate::gateway::repeat::{self, Written};
use crate::journal::{Change, JournalError, State};
use crate::limit::budgets::Standing;
use http::StatusCode;
use std::time::Duration;

/// How long writes wait for a credential that the API refuses.
const REFUSED_FOR: Duration = Duration::from_secs(86_400);
/// An answer's body is kept up to this size.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// What is recorded of an attempt that was answered.
#[derive(Default)]
pub(in crate::gateway) struct Heard {
    pub(super) answer: Option<KeptAnswer>,
    pub(super) standing: Option<Standing>,
    pub(super) took: Duration,
}

impl Heard {
    /// The status of what was heard.
    pub(super) fn status(&self) -> Option<StatusCode> {
        self.answer.as_ref().map(|answer| answer.status)
    }

    /// What is passed on of it.
    pub(in crate::gateway) fn written(self) -> Option<repeat::Heard> {
        let answer = self.answer?;
        let written = respond(&answer).map(|response| Written {
            response,
            standing: self.standing,
            took: self.took,
        });
        Some(written)
    }
}

impl Gateway {
    /// Records how a write ended, and then tells everybody. Its lanes must not open before.
    pub(super) async fn end(
        &self,
        live: &Live,
        state: State,
        heard: Option<Heard>,
        timing: &Timing,
    ) {
        let heard = heard.unwrap_or_default();
        let end = Change::End {
            id: live.id,
            state,
            at: self.clock.wall(),
            answer: heard.answer.as_ref().map(KeptAnswer::encode),
        };
        while let Err(error) = self.commit(vec![end.clone()]).await {
            if error == JournalError::Absent {
                break;
            }
            let _ = self.journal_failed(&error);
            tokio::time::sleep(PAUSE).await;
        }
        self.told(
            live,
            Ended {
                state,
                answer: heard.answer,
                queued: timing.queued,
                upstream: timing.upstream,
                throttled: timing.throttled,
                merged: timing.merged,
                standing: heard.standing,
            },
        );
    }

    /// The journal knows that it was taken back.
    pub(super) fn cancelled(&self, live: &Live) {
        self.told(
            live,
            Ended {
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

    fn told(&self, live: &Live, ended: Ended) {
        self.durable.release(live);
        if let Some(turn) = live.turn() {
            self.durable.shared.feed.lock().leave(turn);
        }
        self.tell_end(live, ended.state, live.tries().attempts);
        drop(live.ended(ended));
    }

    /// Writes of a credential that the API has refused for a day have failed.
    pub async fn give_up_refused(&self) {
        let now = self.clock.now();
        let Some(since) = now.checked_sub(REFUSED_FOR) else {
            return;
        };
        let given_up = self.durable.shared.feed.lock().given_up(since);
        for live in given_up {
            // One that is being taken back at this moment is ended by that.
            if let Some(place) = live.take_place() {
                let timing = Timing::default();
                self.end(&live, State::Failed, None, &timing).await;
                drop(place);
            }
        }
    }

    /// The API no longer takes this credential: what else was deferred with it waits.
    pub(super) fn pause_credential(&self, live: &Live) {
        let pause = feed::Pause::Refused(live.credential);
        if self
            .durable
            .shared
            .feed
            .lock()
            .pause(pause, self.clock.now())
        {
            tracing::error!(
                credential = %live.credential,
                "the API refuses this credential (401): its deferred writes wait until they are \
                 given to another token (`segment-gateway writes rebind`), resumed or cancelled, or \
                 fail after a day"
            );
        }
    }
}

/// All of an answer that is kept.
pub(super) async fn hear(answer: Answer) -> Heard {
    let (mut head, body) = answer.response.into_parts();
    let body = match body::read(body, LONGEST_ANSWER).await {
        Read::Whole(bytes) => Some(bytes),
        Read::Longer(..) | Read::Broken(_) => None,
    };
    // It is that of a body that is held from now on.
    head.headers.remove(http::header::CONTENT_LENGTH);
    Heard {
        answer: Some(KeptAnswer {
            status: head.status,
            headers: head.headers,
            body,
        }),
        standing: answer.standing,
        took: answer.took,
    }
}
