//! The times that a caller may take, and the deadline of the next head. `timed_stream.rs` applies
//! the times of a response.
//!
//! hyper would set and clear a timer for every head. Here a timer runs on while heads arrive in
//! time, and is compared with the real deadline only when it fires.
//!
//! The connection counts heads. A deadline is kept with the count at which it was set and is valid
//! only while that is unchanged, so nothing has to be reset for each request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// The times that a caller may take.
#[derive(Clone, Copy, Debug)]
pub struct StreamDeadlines {
    /// For the first byte of a request, from the start of the connection or the end of the last
    /// response.
    pub idle: Duration,
    /// For a whole head, from its first byte.
    pub head: Duration,
    /// Between two writes of a response that it accepts.
    pub piece: Duration,
    /// For the rest of a response, from the first write that it did not accept.
    pub answer: Duration,
}

/// What has arrived of a head that is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadPart {
    /// Some of its bytes.
    Some,
    /// Nothing.
    Nothing,
}

/// The deadline of the next head.
#[derive(Debug, Default)]
pub(super) struct HeadDeadline {
    /// The head count, the deadline, and whether part of the head had arrived when it was set.
    by: Option<(u32, Instant, bool)>,
    /// The head count at which the last bytes of a head arrived.
    began: Option<u32>,
    /// A timer that fires at the deadline of a head, or at that of an earlier one.
    timer: Option<Pin<Box<Sleep>>>,
}

impl HeadDeadline {
    /// Notes that bytes of the next head arrived.
    pub(super) fn note_bytes(&mut self, heads: u32) {
        self.began = Some(heads);
    }

    /// Resolves when the head is overdue. Called while one is expected and has not arrived.
    pub(super) fn poll_overdue(
        &mut self,
        context: &mut Context<'_>,
        heads: u32,
        deadlines: &StreamDeadlines,
    ) -> Poll<HeadPart> {
        let began = self.began == Some(heads);
        // A new deadline for each head, and once more when its first byte has arrived.
        let by = match self.by {
            Some((same, by, had)) if same == heads && had == began => by,
            _ if began => sleep(deadlines.head).deadline(),
            _ => sleep(deadlines.idle).deadline(),
        };
        self.by = Some((heads, by, began));
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(by)));
        // The timer is moved only to an earlier deadline; a later one is set when it fires.
        if timer.deadline() > by {
            timer.as_mut().reset(by);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= by {
                return Poll::Ready(match began {
                    true => HeadPart::Some,
                    false => HeadPart::Nothing,
                });
            }
            timer.as_mut().reset(by);
        }
    }
}
