//! The byte stream of a caller, which fails if the caller does not accept its response in time.
//!
//! hyper polls a response body, and with it the body's deadlines, only after the socket has
//! accepted what came before. So a caller that reads nothing is detected here, below hyper. One
//! that accepts everything at once costs no timer.
//!
//! Reads are passed on unchanged. The deadline of a head is in `deadlines.rs`.

use super::deadlines::StreamDeadlines;
use super::notes::Notes;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// A stream with a time limit on writes, for each piece and for each response as a whole.
#[derive(Debug)]
pub(super) struct TimedStream<I> {
    inner: I,
    notes: Notes,
    deadlines: StreamDeadlines,
    /// A timer that runs while the caller accepts no bytes.
    stalled: Option<Pin<Box<Sleep>>>,
    /// The deadline of the response, and the head count at which it was set. Any other count means
    /// another response, so nothing has to be reset for each one.
    answer_by: Option<(u32, Instant)>,
}

impl<I> TimedStream<I> {
    /// Limits the time of writes to `inner`. The notes say to which response a write belongs.
    pub(super) fn new(inner: I, notes: Notes, deadlines: StreamDeadlines) -> Self {
        Self {
            inner,
            notes,
            deadlines,
            stalled: None,
            answer_by: None,
        }
    }

    /// Returns the result of a write, and fails one that the caller blocks for too long.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let (answer_by, deadlines) = (&mut self.answer_by, &self.deadlines);
        let heads = self.notes.heads();
        let stalled = self.stalled.get_or_insert_with(|| {
            let from_now = |time| sleep(time).deadline();
            // Until now the caller accepted everything, so its time begins here. Callers that never
            // block cost no reading of the clock.
            let by = match *answer_by {
                Some((same, by)) if same == heads => by,
                _ => from_now(deadlines.answer),
            };
            *answer_by = Some((heads, by));
            Box::pin(sleep_until(by.min(from_now(deadlines.piece))))
        });
        ready!(stalled.as_mut().poll(context));
        let why = "the caller does not take its answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<I: AsyncWrite + Unpin> TimedStream<I> {
    /// Writes the bytes after the first `written`, and counts there what was accepted. Called again
    /// with the same bytes until it is ready.
    pub(super) fn poll_write_rest(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = bytes.get(*written..) {
            match ready!(Pin::new(&mut *self).poll_write(context, rest))? {
                // A socket that accepts nothing without blocking is broken; another try would loop
                // for ever.
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => *written += more,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for TimedStream<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for TimedStream<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.in_time(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.in_time(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.in_time(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.in_time(context, polled)
    }
}
