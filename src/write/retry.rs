//! Retries of a write that may have taken effect.
//!
//! A held write is retried only if it can be sent before its deadline: its caller waits. A durable
//! one waits until the retry budget gives. From the first such attempt on, nobody hears that
//! nothing was sent: without another attempt, the caller hears what the last one came to.
//!
//! Which writes may be retried is decided in [`decision`](super::decision).

use crate::attempt::backoff;
use crate::exchange::timing::millis;
use crate::lanes::LanePosition;
use crate::write::Writes;
use crate::write::active::{ActiveWrite, Step, Uncertainty};
use crate::write::answer::Heard;
use crate::write::decision::{self, RETRY_FOR};
use std::ops::ControlFlow::{Break, Continue};
use std::time::{Duration, Instant};

impl Writes {
    /// Lets a write that may have taken effect wait until it is sent again. Without a retry it ends
    /// with what it heard last.
    pub(super) async fn retry(
        &self,
        write: &mut ActiveWrite,
        left: Instant,
        heard: Heard,
        place: LanePosition,
    ) -> Step<LanePosition> {
        let before = write.history.doubt.take();
        let doubt = Uncertainty {
            since: before.as_ref().map_or(left, |doubt| doubt.since),
            attempts: before.map_or(0, |doubt| doubt.attempts) + 1,
            last: heard,
        };
        let (since, attempts) = (doubt.since, doubt.attempts);
        write.history.doubt = Some(doubt);
        let pause = decision::pause(attempts, backoff::jitter(place.turn(), attempts));
        if write.entry.is_none() && !self.is_in_time(write, since, pause) {
            return Break(write.end_with_last_answer(place));
        }
        let mut place = self.take_retry(write, since, place).await?;
        place.stay_closed_for(self.router.settings.get().late);
        place.expect(self.clock.now());
        if write.entry.is_some() {
            return self.wait(write, pause, place).await;
        }
        tracing::info!(
            operation = &*write.context.operation.name,
            credential = %write.context.credential,
            attempts,
            pause_ms = millis(pause),
            request_id = write.context.ids.request(),
            trace_id = write.context.ids.trace(),
            "retry: the write may have taken effect"
        );
        self.wait_in_line(write, pause, place).await
    }

    /// Returns whether a held write can be retried after this pause. Its deadline leaves time for
    /// the answer, if it is known when a balancer in front of the gateway gives up.
    fn is_in_time(&self, write: &ActiveWrite, since: Instant, pause: Duration) -> bool {
        let leaves = write.ticket.estimate_again().max(self.clock.now() + pause);
        leaves <= write.ticket.deadline() && leaves < since + RETRY_FOR
    }

    /// Takes a retry from the retry budget. If that has none, a held write ends, and a durable one
    /// waits until it has, or until it is too late.
    async fn take_retry(
        &self,
        write: &mut ActiveWrite,
        since: Instant,
        mut place: LanePosition,
    ) -> Step<LanePosition> {
        let operation = write.context.operation.clone();
        let mut is_reported = false;
        while let Err(until) = self.attempts.take_retry(&operation) {
            if !is_reported {
                self.attempts
                    .report_no_retry(&operation, &write.context.ids);
                is_reported = true;
            }
            if write.entry.is_some() {
                place = self.wait_until(write, until, place).await?;
                write.running = Some(self.tasks.begin("durable write"));
            }
            if write.entry.is_none() || self.clock.now() >= since + RETRY_FOR {
                return Break(write.end_with_last_answer(place));
            }
        }
        Continue(place)
    }

    /// Waits before a retry of a held write. It waits in its line, so that it hears if the gateway
    /// stops.
    async fn wait_in_line(
        &self,
        write: &mut ActiveWrite,
        pause: Duration,
        place: LanePosition,
    ) -> Step<LanePosition> {
        if let Some(doubt) = write.history.doubt.take() {
            let last = match doubt.last {
                Ok(answer) => Ok(Box::new(answer.hold().await)),
                Err(why) => Err(why),
            };
            write.history.doubt = Some(Uncertainty { last, ..doubt });
        }
        write.ticket.again_blocked();
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            _refused = write.ticket.granted() => {
                return Break(write.end_with_last_answer(place));
            }
        }
        write.ticket.step_aside();
        Continue(place)
    }
}
