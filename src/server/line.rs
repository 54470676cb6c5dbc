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
//! The deadline of a head is kept here as well, because the library sets and clears a timer for
//! every single one. Here a timer runs on while heads come and go in time, and only when it ends is
//! it looked what it should have been: callers that are quick cost no timer at all.

use super::framing::Blocks;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// A reset takes one round trip to come back.
const RESET_WITHIN: Duration = Duration::from_millis(500);
/// What is read ahead at most while a request waits.
const AHEAD: usize = 1024;

/// Bounds of what a caller may take its time for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a whole head, from the connection's or the last answer's end, the first byte included:
    /// it bounds idle connections too.
    pub head: Duration,
    /// Between two pieces of what is sent to it.
    pub piece: Duration,
    /// For the rest of an answer, from when it was first waited for.
    pub answer: Duration,
}

/// What the service tells the line, and the line the service. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Some head had both a length and a transfer encoding.
    ambiguous: AtomicBool,
    /// Whether a request waits for the head of its answer; see [`Interim`].
    waiting: AtomicU8,
    /// Counts heads, of requests and of answers. Only the connection's own task counts.
    heads: AtomicU32,
    /// Whether a request's body has not ended yet.
    body: AtomicBool,
}

const NOBODY: u8 = 0;
const SILENTLY: u8 = 1;
const ASKABLE: u8 = 2;

/// Whether a caller understands interim responses: those of HTTP/1.0 do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interim {
    /// HTTP/1.1.
    Understood,
    /// HTTP/1.0.
    Unknown,
}

/// Marks a request as waiting for as long as it lives.
#[derive(Debug)]
pub struct Waiting(Notes);

impl Waiting {
    /// The head of the answer is there.
    pub fn answered(self) {
        self.0.head();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.shared.waiting.store(NOBODY, Ordering::Release);
    }
}

/// Marks the body of a request as coming for as long as it lives.
#[derive(Debug)]
pub struct BodyComing(Notes);

impl Drop for BodyComing {
    fn drop(&mut self) {
        self.0.shared.body.store(false, Ordering::Release);
    }
}

impl Notes {
    /// Whether some head of the connection had both a length and a transfer encoding.
    pub fn is_ambiguous(&self) -> bool {
        self.shared.ambiguous.load(Ordering::Acquire)
    }

    /// A request has been taken up.
    pub fn taken_up(&self, interim: Interim) -> Waiting {
        self.head();
        let waiting = match interim {
            Interim::Understood => ASKABLE,
            Interim::Unknown => SILENTLY,
        };
        self.shared.waiting.store(waiting, Ordering::Release);
        Waiting(self.clone())
    }

    /// A request has been taken up whose body is still to come, for all that is known.
    pub fn body_coming(&self) -> BodyComing {
        self.shared.body.store(true, Ordering::Release);
        BodyComing(self.clone())
    }

    fn waiting(&self) -> u8 {
        self.shared.waiting.load(Ordering::Acquire)
    }

    fn heads(&self) -> u32 {
        self.shared.heads.load(Ordering::Acquire)
    }

    fn head(&self) {
        let heads = self.heads().wrapping_add(1);
        self.shared.heads.store(heads, Ordering::Release);
    }

    /// Whether what is read now is the head of a request, or nothing.
    fn is_head_next(&self) -> bool {
        self.waiting() == NOBODY && !self.shared.body.load(Ordering::Acquire)
    }
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
    blocks: Blocks,
    /// What was read while a request waited, for the HTTP library to read later.
    ahead: Vec<u8>,
    presence: Presence,
    /// Running while the caller does not take what is sent.
    stalled: Option<Pin<Box<Sleep>>>,
    /// After which head the caller first did not take it, and when it must have taken it all.
    answer_by: Option<(u32, Instant)>,
    /// After which head the next one was first waited for, and when it must be there.
    head_by: Option<(u32, Instant)>,
    /// Ends at the deadline of a head, or at that of an earlier one.
    head_timer: Option<Pin<Box<Sleep>>>,
}

impl<I> Line<I> {
    /// Watches `inner`.
    pub fn new(inner: I, notes: Notes, patience: Patience) -> Self {
        Self {
            inner,
            notes,
            patience,
            blocks: Blocks::default(),
            ahead: Vec::new(),
            presence: Presence::Open,
            stalled: None,
            answer_by: None,
            head_by: None,
            head_timer: None,
        }
    }

    fn note(&mut self, read: &[u8]) {
        self.blocks.feed(read);
        if self.blocks.ambiguous() {
            self.notes.shared.ambiguous.store(true, Ordering::Release);
        }
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
        let by = match self.head_by {
            Some((same, by)) if same == heads => by,
            _ => sleep(self.patience.head).deadline(),
        };
        self.head_by = Some((heads, by));
        let timer = self
            .head_timer
            .get_or_insert_with(|| Box::pin(sleep_until(by)));
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
                    self.presence = if self.notes.waiting() == ASKABLE {
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
            if *written == 0 && self.notes.waiting() != ASKABLE {
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

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Line<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let most = buffer.remaining().min(this.ahead.len());
            buffer.put_slice(this.ahead.split_at(most).0);
            this.ahead.drain(..most);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if Pin::new(&mut this.inner)
            .poll_read(context, buffer)?
            .is_pending()
        {
            this.head_in_time(context)?;
            return Poll::Pending;
        }
        this.note(buffer.filled().get(before..).unwrap_or_default());
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
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.in_time(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        ready!(self.in_time(context, polled))?;
        if self.notes.waiting() != NOBODY {
            self.watch(context)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.in_time(context, polled)
    }
}

#[cfg(test)]
mod tests;
