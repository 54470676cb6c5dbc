//! The byte stream of a connection, watched for what hyper does not report: an ambiguous head, a
//! caller that hung up while it waits, and a caller that does not read its response.
//!
//! **Slow readers.** hyper polls a response body, and with it the body's deadlines, only after the
//! socket has accepted what came before. So a caller that reads nothing is detected here.
//!
//! **Malformed requests.** hyper answers bytes that are not a request with a bare status. The line
//! recognises that response, because it comes while no request is served and everything written
//! before has been sent. It writes one of the gateway's own instead ([`MalformedReplies`]). If a
//! caller pipelines such bytes behind a request whose response is still being written, the bare
//! status passes.
//!
//! An overdue head that began is answered with 408. Without a first byte there is no response.
//!
//! **Closing.** A connection that is closed while bytes still arrive is reset, and the reset may
//! overtake the response. So [`Line::close`] reads and drops some of them first (RFC 9112, section
//! 9.6).
//!
//! The line parses no requests and passes all bytes on unchanged.

use super::deadlines::{HeadDeadline, HeadPart, LinePatience, WriteDeadline};
use super::framing::Framing;
use super::notes::{ConnectionStage, Notes};
use super::presence::{INTERIM, Presence, RESET_WITHIN, Round};
use super::refusals::{MalformedReplies, reason_of};
use crate::metrics::Malformed;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{sleep, timeout};

/// The most bytes read ahead while a request waits.
const AHEAD: usize = 1024;
/// The first line of HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";
/// The most bytes of an answered request that are read and dropped before the connection closes. A
/// caller that sends more is reset.
const LINGER_BYTES: u64 = 64 * 1024 * 1024;
/// The longest time for that. It bounds how long a closed connection still occupies a descriptor.
const LINGER: Duration = Duration::from_secs(10);
/// The time bound while the gateway stops: enough for the caller to read its response.
const LINGER_STOPPED: Duration = Duration::from_secs(1);

/// A connection whose reads and writes are watched.
///
/// Heads are counted, of requests and of responses. Several fields keep the count at which they
/// were set, and are valid only while it is unchanged. So nothing has to be reset for each request.
#[derive(Debug)]
pub struct Line<I> {
    inner: I,
    notes: Notes,
    patience: LinePatience,
    refusals: MalformedReplies,
    framing: Framing,
    /// The length of the HTTP/2 preface read so far; `None` once the connection began otherwise.
    opening: Option<usize>,
    /// The response to bytes that are not a request, and how much of it is written.
    refusal: Option<(Vec<u8>, usize)>,
    /// The head count at which everything of hyper's was sent and no request was served.
    all_left: Option<u32>,
    /// The bytes read while a request waited, for hyper to read later.
    ahead: Vec<u8>,
    presence: Presence,
    writes: WriteDeadline,
    next_head: HeadDeadline,
}

impl<I> Line<I> {
    /// Watches `inner`.
    pub fn new(inner: I, notes: Notes, patience: LinePatience, refusals: MalformedReplies) -> Self {
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
            writes: WriteDeadline::default(),
            next_head: HeadDeadline::default(),
        }
    }

    fn note(&mut self, read: &[u8]) {
        // The stage decides what the bytes are. Between requests they belong to a head.
        if !read.is_empty() && self.notes.is_head_next() {
            self.next_head.note_bytes(self.notes.heads());
        }
        self.framing.feed(read);
        if self.framing.ambiguous() {
            self.notes.note_ambiguous();
        }
    }

    /// Returns whether bytes written now respond to no request: hyper found a malformed one.
    fn is_unasked(&self) -> bool {
        self.notes.stage() == ConnectionStage::None && self.all_left == Some(self.notes.heads())
    }

    /// Starts the response to bytes that are not a request. Only the first reason counts.
    fn refuse(&mut self, why: Malformed) {
        if self.refusal.is_none() {
            let refusal = self.refusals.answer(why);
            self.notes.note_refused(why, refusal.id);
            self.refusal = Some((refusal.bytes, 0));
        }
    }

    /// Returns whether the first bytes of a connection are, or may become, the HTTP/2 preface. The
    /// line answers that, and hyper sees nothing of it.
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

    /// Returns the result of a write, and fails one that the caller blocks for too long.
    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let heads = self.notes.heads();
        self.writes.in_time(context, polled, heads, &self.patience)
    }

    /// Fails a read that found nothing, if the head is overdue, or answers what there is of it (RFC
    /// 9110, section 15.5.9).
    fn head_in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.notes.is_head_next() {
            return Ok(());
        }
        let heads = self.notes.heads();
        match self.next_head.poll_overdue(context, heads, &self.patience) {
            Poll::Pending => Ok(()),
            Poll::Ready(HeadPart::Some) if self.is_unasked() => {
                self.refuse(Malformed::Timeout);
                Ok(())
            }
            Poll::Ready(_) => {
                let why = "the head of a request did not come in time";
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Line<I> {
    /// Finds out whether the caller is still there. Called while a request waits for its response
    /// head, and after everything sent before was accepted.
    fn watch(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            match &mut self.presence {
                Presence::Open => {
                    if !self.ahead.is_empty() || !self.input_ends(context)? {
                        return Ok(());
                    }
                    self.presence = if self.notes.stage() == ConnectionStage::Waiting {
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
                // After the response, the deadline of the next head ends the connection.
                Presence::Listening => return Ok(()),
            }
        }
    }

    /// Returns whether the input has ended. Bytes that arrived instead are kept, and the caller is
    /// not watched until hyper has read them.
    fn input_ends(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut bytes = [0; AHEAD];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.inner).poll_read(context, &mut buffer)? {
            Poll::Pending => return Ok(false),
            // A task that waits for them, for instance for the rest of a body, must look again.
            Poll::Ready(()) => context.waker().wake_by_ref(),
        }
        self.note(buffer.filled());
        self.ahead.extend_from_slice(buffer.filled());
        Ok(buffer.filled().is_empty())
    }

    /// Writes the rest of an interim response that has begun.
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
            // Checked before the first byte only: a begun interim response must be completed, or it
            // would corrupt the response that follows.
            if *written == 0 && self.notes.stage() != ConnectionStage::Waiting {
                self.presence = Presence::Listening;
                break;
            }
            let polled = Pin::new(&mut self.inner).poll_write(context, rest);
            match ready!(self.in_time(context, polled))? {
                // A socket that accepts nothing without blocking is broken; another try would loop
                // for ever.
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
    /// Moves bytes read ahead into `buffer`.
    fn take_ahead(&mut self, buffer: &mut ReadBuf<'_>) {
        let most = buffer.remaining().min(self.ahead.len());
        buffer.put_slice(self.ahead.split_at(most).0);
        self.ahead.drain(..most);
    }

    /// Writes the rest of the response to bytes that are not a request.
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

    /// Closes the connection.
    ///
    /// If the caller may still be sending, its bytes are read and dropped for a while, so that no
    /// reset prevents it from reading its response. The time is shorter once `stopped` ends.
    pub async fn close(mut self, stopped: impl Future<Output = ()>) {
        // The sending half first: the caller gets the rest of its response and sees its end.
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
            // hyper takes this for the end of the input and closes the connection.
            if this.refusal.is_some() {
                return Poll::Ready(Ok(()));
            }
            if Pin::new(&mut this.inner)
                .poll_read(context, buffer)?
                .is_pending()
            {
                this.head_in_time(context)?;
                match this.refusal {
                    Some(_) => continue,
                    None => return Poll::Pending,
                }
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
            // The bytes began like the HTTP/2 preface and went on differently.
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
        // The interim response comes first: bytes of hyper's must not end up in the middle of it.
        ready!(self.poll_asked(context))?;
        if self.is_unasked() {
            // Reported as written, so that hyper believes its bare status sent.
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

    /// hyper flushes after each poll in which it wrote everything. That is the moment to watch the
    /// caller.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(context))?;
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        ready!(self.in_time(context, polled))?;
        match self.notes.stage() {
            ConnectionStage::None => self.all_left = Some(self.notes.heads()),
            ConnectionStage::Waiting | ConnectionStage::WaitingSilently => self.watch(context)?,
            ConnectionStage::Answered => {}
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
