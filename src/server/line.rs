//! A connection's bytes, watched for what the HTTP library does not tell: a head that could be
//! read in two ways, a caller that has gone while it waits, and one that does not take its answer.
//!
//! A closed sending half is not a hang-up, but a caller that has gone looks just the same until
//! something is sent to it. So while a request waits for the head of its answer, the end of the
//! input is answered with an interim response, which every client must skip (RFC 9110, section
//! 15.2). It is `100 Continue`, because some clients skip that one alone. Whoever has gone resets
//! the connection, which is a hang-up; whoever is still there gets the answer. Once the answer has
//! begun, nothing is written here and the end of the input means nothing.
//!
//! The HTTP library polls the body of an answer, and with it the body's deadlines, only after the
//! socket has taken what came before. So a caller that reads nothing is noticed here.
//!
//! The deadlines of idle connections and of heads are kept here as well, because the library sets
//! and clears a timer for every single head. Here a timer runs on while heads come and go in time,
//! and only when it ends is it looked what it should have been: callers that are quick cost no timer
//! at all.
//!
//! What is no request the library answers itself, with a bare status. The line knows such an answer
//! by its coming when no request is served and all that was written before has left, and writes one
//! of the gateway's own instead ([`Refusals`]). Where a caller sends its next request behind one
//! whose answer is still being written, the bare status passes.
//!
//! A connection that is closed while bytes are still coming is reset, and the reset may overtake the
//! answer. So [`Line::close`] reads and drops some of them first (RFC 9112, section 9.6).

use super::framing::Framing;
use super::notes::{Notes, Stage};
use super::refusals::Refusals;
use crate::metrics::Malformed;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// A reset takes one round trip to come back.
const RESET_WITHIN: Duration = Duration::from_millis(500);
/// What is read ahead at most while a request waits.
const AHEAD: usize = 1024;
/// The first line with which a client speaks HTTP/2 without asking (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";
/// What is read and dropped at most of the rest of a request that is answered already, and for how
/// long at most.
const LINGER_BYTES: u64 = 64 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(10);
/// The same once the gateway stops: time for the caller to read its answer.
const LINGER_STOPPED: Duration = Duration::from_secs(1);

/// Bounds of what a caller may take its time for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the first byte of a request, from the beginning of the connection or the end of the last
    /// answer.
    pub idle: Duration,
    /// For a whole head, from its first byte.
    pub head: Duration,
    /// Between two pieces of what is sent to it.
    pub piece: Duration,
    /// For the rest of an answer, from when it was first waited for.
    pub answer: Duration,
}

/// How far the question whether the caller is still there has come.
#[derive(Debug)]
enum Presence {
    /// The input has not ended.
    Open,
    /// This much of the interim response is written.
    Asking(usize, Round),
    /// Waiting for a reset, which only the next write will show: a socket whose input has ended
    /// goes on reading nothing.
    Asked(Pin<Box<Sleep>>),
    /// It closed its sending half, and is still there or cannot be asked.
    Listening,
}

/// The first write makes whoever has gone send a reset, the second one meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    First,
    Second,
}

/// A connection whose reads and writes are watched.
#[derive(Debug)]
pub struct Line<I> {
    inner: I,
    notes: Notes,
    patience: Patience,
    refusals: Refusals,
    framing: Framing,
    /// How much of the preface of HTTP/2 the connection has begun with; nothing once it has begun
    /// otherwise.
    opening: Option<usize>,
    /// The answer to what is no request, and how much of it is written.
    refusal: Option<(Vec<u8>, usize)>,
    /// After which head all that the library wrote had left, and no request was served.
    all_left: Option<u32>,
    /// What was read while a request waited, for the HTTP library to read later.
    ahead: Vec<u8>,
    presence: Presence,
    /// Running while the caller does not take what is sent.
    stalled: Option<Pin<Box<Sleep>>>,
    /// After which head the caller first did not take it, and when it must have taken it all.
    answer_by: Option<(u32, Instant)>,
    /// After which head the next one was first waited for, when it must be there, and whether some
    /// of it is.
    head_by: Option<(u32, Instant, bool)>,
    /// After which head the last bytes of the next one came.
    head_began: Option<u32>,
    /// Ends at the deadline of a head, or at that of an earlier one.
    head_timer: Option<Pin<Box<Sleep>>>,
}

impl<I> Line<I> {
    /// Watches `inner`.
    pub fn new(inner: I, notes: Notes, patience: Patience, refusals: Refusals) -> Self {
        Self {
            inner,
            notes,
            patience,
            refusals,
            framing: Framing::default(),
            opening: Some(0),
            refusal: None,
            all_left: Some(0),
            ahead: Vec::new(),
            presence: Presence::Open,
            stalled: None,
            answer_by: None,
            head_by: None,
            head_began: None,
            head_timer: None,
        }
    }

    fn note(&mut self, read: &[u8]) {
        if !read.is_empty() && self.notes.is_head_next() {
            self.head_began = Some(self.notes.heads());
        }
        self.framing.feed(read);
        if self.framing.ambiguous() {
            self.notes.note_ambiguous();
        }
    }

    /// Whether what is written now answers no request: the library has found something else.
    fn is_unasked(&self) -> bool {
        self.notes.stage() == Stage::None && self.all_left == Some(self.notes.heads())
    }

    /// Answers what is no request.
    fn refuse(&mut self, why: Malformed) {
        if self.refusal.is_none() {
            let refusal = self.refusals.answer(why);
            self.notes.note_refused(why, refusal.id);
            self.refusal = Some((refusal.bytes, 0));
        }
    }

    /// Whether these first bytes of a connection may be, or are, the preface of HTTP/2. It is
    /// answered, and the library sees nothing of it.
    fn may_be_http2(&mut self, bytes: &[u8]) -> bool {
        let Some(matched) = self.opening else {
            return false;
        };
        let expected = HTTP2.get(matched..).unwrap_or_default();
        let common = bytes.len().min(expected.len());
        if bytes.get(..common) != expected.get(..common) {
            self.opening = None;
            return false;
        }
        self.opening = Some(matched + common);
        if common == expected.len() {
            self.refuse(Malformed::Http2);
        }
        true
    }

    /// Passes on what came of a write, and fails one that the caller keeps waiting too long.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let (patience, head) = (self.patience, self.notes.heads());
        let answer_by = &mut self.answer_by;
        let stalled = self.stalled.get_or_insert_with(|| {
            let from_now = |time| sleep(time).deadline();
            // Until now it took all that was sent: so this is where its time begins, and no clock
            // has to be read for those who never make us wait.
            let by = match *answer_by {
                Some((same, by)) if same == head => by,
                _ => from_now(patience.answer),
            };
            *answer_by = Some((head, by));
            Box::pin(sleep_until(by.min(from_now(patience.piece))))
        });
        ready!(stalled.as_mut().poll(context));
        let why = "the caller does not take its answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<I> Line<I> {
    /// Nothing more came: fails the read of a head that does not come in time.
    fn head_in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.notes.is_head_next() {
            return Ok(());
        }
        let heads = self.notes.heads();
        let began = self.head_began == Some(heads);
        let by = match self.head_by {
            Some((same, by, had)) if same == heads && had == began => by,
            _ if began => sleep(self.patience.head).deadline(),
            _ => sleep(self.patience.idle).deadline(),
        };
        self.head_by = Some((heads, by, began));
        let timer = self
            .head_timer
            .get_or_insert_with(|| Box::pin(sleep_until(by)));
        if timer.deadline() > by {
            timer.as_mut().reset(by);
        }
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= by {
                let why = "the head of a request did not come in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            timer.as_mut().reset(by);
        }
        Ok(())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Line<I> {
    /// A request waits for the head of its answer, and all that was sent before has been taken:
    /// finds out whether its caller is still there.
    fn watch(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            match &mut self.presence {
                Presence::Open => {
                    if !self.ahead.is_empty() || !self.input_ends(context)? {
                        return Ok(());
                    }
                    self.presence = if self.notes.stage() == Stage::Waiting {
                        Presence::Asking(0, Round::First)
                    } else {
                        Presence::Listening
                    };
                }
                Presence::Asking(..) => {
                    if self.poll_asked(context)?.is_pending() {
                        return Ok(());
                    }
                }
                Presence::Asked(timer) => {
                    if timer.as_mut().poll(context).is_pending() {
                        return Ok(());
                    }
                    self.presence = Presence::Asking(0, Round::Second);
                }
                // The head's deadline ends the connection after the answer.
                Presence::Listening => return Ok(()),
            }
        }
    }

    /// Whether the input has ended. What comes instead is kept, and the caller watched no more
    /// until it has been read.
    fn input_ends(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut bytes = [0; AHEAD];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.inner).poll_read(context, &mut buffer)? {
            Poll::Pending => return Ok(false),
            // Whoever waits for it, e.g. for the rest of a request's body, must look again.
            Poll::Ready(()) => context.waker().wake_by_ref(),
        }
        self.note(buffer.filled());
        self.ahead.extend_from_slice(buffer.filled());
        Ok(buffer.filled().is_empty())
    }

    /// Writes what is left of the interim response, if one has been begun.
    fn poll_asked(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Presence::Asking(written, round) = &mut self.presence {
            let rest = INTERIM.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                self.presence = match round {
                    Round::First => Presence::Asked(Box::pin(sleep(RESET_WITHIN))),
                    Round::Second => Presence::Listening,
                };
                break;
            }
            if *written == 0 && self.notes.stage() != Stage::Waiting {
                self.presence = Presence::Listening;
                break;
            }
            let polled = Pin::new(&mut self.inner).poll_write(context, rest);
            match ready!(self.in_time(context, polled))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => {
                    if let Presence::Asking(written, _) = &mut self.presence {
                        *written += more;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Line<I> {
    /// Hands over what was read before.
    fn take_ahead(&mut self, buffer: &mut ReadBuf<'_>) {
        let most = buffer.remaining().min(self.ahead.len());
        buffer.put_slice(self.ahead.split_at(most).0);
        self.ahead.drain(..most);
    }

    /// Writes what is left of the answer to what is no request.
    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, written)) = &self.refusal
            && let rest @ [_, ..] = bytes.get(*written..).unwrap_or_default()
        {
            let polled = Pin::new(&mut self.inner).poll_write(context, rest);
            match ready!(self.in_time(context, polled))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => {
                    if let Some((_, written)) = &mut self.refusal {
                        *written += more;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Closes the connection. Where the caller may still be sending, what comes is read and dropped
    /// for a while, so that no reset keeps it from reading its answer; for less once `stopped` ends.
    pub async fn close(mut self, stopped: impl Future<Output = ()>) {
        if self.shutdown().await.is_err() {
            return;
        }
        if self.refusal.is_some() || self.notes.is_body_unread() {
            let mut rest = self.inner.take(LINGER_BYTES);
            let mut nowhere = tokio::io::sink();
            let stopped = async {
                stopped.await;
                sleep(LINGER_STOPPED).await;
            };
            tokio::select! {
                _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)) => {}
                () = stopped => {}
            }
        }
    }
}

/// What the library complains of in the answer that it would give.
fn reason_of(answer: &[u8]) -> Malformed {
    match answer.get(9..12) {
        Some(b"431" | b"414") => Malformed::TooLarge,
        _ => Malformed::Head,
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Line<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.opening.is_none() && !this.ahead.is_empty() {
            this.take_ahead(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            // The library takes it for the end and closes the connection.
            if this.refusal.is_some() {
                return Poll::Ready(Ok(()));
            }
            if Pin::new(&mut this.inner)
                .poll_read(context, buffer)?
                .is_pending()
            {
                this.head_in_time(context)?;
                return Poll::Pending;
            }
            let read = buffer.filled().get(before..).unwrap_or_default();
            this.note(read);
            if read.is_empty() || !this.may_be_http2(read) {
                break;
            }
            this.ahead.extend_from_slice(read);
            buffer.set_filled(before);
        }
        this.opening = None;
        if !this.ahead.is_empty() {
            // It began like the preface of HTTP/2 and went on otherwise.
            let rest = buffer.filled().get(before..).unwrap_or_default();
            this.ahead.extend_from_slice(rest);
            buffer.set_filled(before);
            this.take_ahead(buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_asked(context))?;
        if self.is_unasked() {
            self.refuse(reason_of(bytes));
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.in_time(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_unasked() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(context, first.map_or(&[][..], |slice| &**slice));
        }
        ready!(self.poll_asked(context))?;
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.in_time(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// The HTTP library flushes whenever it was polled and has written all it had, which is when
    /// the caller can be watched.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(context))?;
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        ready!(self.in_time(context, polled))?;
        match self.notes.stage() {
            Stage::None => self.all_left = Some(self.notes.heads()),
            Stage::Waiting | Stage::WaitingSilently => self.watch(context)?,
            Stage::Answered => {}
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(context))?;
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.in_time(context, polled)
    }
}

#[cfg(test)]
mod tests;
