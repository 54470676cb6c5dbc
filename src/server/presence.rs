//! Whether a caller that waits for its response is still there.
//!
//! A half-closed connection is no hang-up, but a caller that has gone looks the same until
//! something is sent to it. So if the input ends while a request waits for its response head, an
//! interim response is sent, which every client must skip (RFC 9110, section 15.2). It is `100
//! Continue`, because some clients skip only that one. A caller that has gone resets the
//! connection, which is a hang-up. A caller that is still there gets the response. Once the
//! response has begun, nothing is written here, and the end of the input means nothing.

use super::notes::{ConnectionStage, Notes};
use super::timed_stream::TimedStream;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::{Sleep, sleep};

/// The interim response.
pub(super) const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// The time for a reset to arrive: one round trip.
pub(super) const RESET_WITHIN: Duration = Duration::from_millis(500);

/// The state of the question whether the caller is still there.
#[derive(Debug)]
pub(super) enum Presence {
    /// The input has not ended.
    Open,
    /// So many bytes of the interim response are written.
    Asking(usize, Round),
    /// Waiting for a reset. Only the next write reveals it: a socket whose input has ended keeps
    /// reading nothing.
    Asked(Pin<Box<Sleep>>),
    /// The caller closed its sending half, and is still there or cannot be asked.
    Listening,
}

/// The round of asking: the first write provokes the reset, the second one meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    First,
    Second,
}

impl Presence {
    /// Returns the state after the end of the input. A caller of HTTP/1.0 is not asked, because it
    /// understands no interim response.
    pub(super) fn after_input(stage: ConnectionStage) -> Self {
        match stage {
            ConnectionStage::Waiting => Self::Asking(0, Round::First),
            _ => Self::Listening,
        }
    }

    /// Advances the question as far as possible without waiting. Whatever it then waits for wakes
    /// the task. Fails if the caller has gone.
    pub(super) fn advance<I: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut TimedStream<I>,
        notes: &Notes,
    ) -> io::Result<()> {
        loop {
            match self {
                Self::Asking(..) => {
                    if self.poll_interim(context, stream, notes)?.is_pending() {
                        return Ok(());
                    }
                }
                Self::Asked(timer) => {
                    if timer.as_mut().poll(context).is_pending() {
                        return Ok(());
                    }
                    *self = Self::Asking(0, Round::Second);
                }
                // After the response, the deadline of the next head ends the connection.
                Self::Open | Self::Listening => return Ok(()),
            }
        }
    }

    /// Writes the rest of an interim response that has begun. Ready at once if there is none.
    pub(super) fn poll_interim<I: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut TimedStream<I>,
        notes: &Notes,
    ) -> Poll<io::Result<()>> {
        let Self::Asking(written, round) = self else {
            return Poll::Ready(Ok(()));
        };
        // Checked before the first byte only: a begun interim response must be completed, or it
        // would corrupt the response that follows.
        if *written == 0 && notes.stage() != ConnectionStage::Waiting {
            *self = Self::Listening;
            return Poll::Ready(Ok(()));
        }
        ready!(stream.poll_write_rest(context, INTERIM, written))?;
        *self = match round {
            Round::First => Self::Asked(Box::pin(sleep(RESET_WITHIN))),
            Round::Second => Self::Listening,
        };
        Poll::Ready(Ok(()))
    }
}
