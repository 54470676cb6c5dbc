//! The byte stream of a connection, watched for what hyper does not report: an ambiguous head, a
//! caller that hung up while it waits, a head that is late, and bytes that are not a request.
//!
//! hyper reads and writes here as on a socket. The stream parses no requests. It passes all bytes
//! on unchanged, with two exceptions: hyper's bare response to a malformed request is replaced, and
//! the preface of HTTP/2 is answered before hyper sees it. It adds two responses of its own: a 408,
//! and the interim response to a caller that waits.
//!
//! **Malformed requests.** hyper answers bytes that are not a request with a bare status. The
//! stream recognises that response, because it comes while no request is served and everything
//! written before has been sent. It writes one of the gateway's own instead ([`MalformedReplies`]).
//! If a caller pipelines such bytes behind a request whose response is still being written, the
//! bare status passes.
//!
//! An overdue head that began is answered with 408. Without a first byte there is no response.
//!
//! The stream combines three parts that know nothing of each other's state. `presence.rs` finds out
//! whether the caller has gone, `timed_stream.rs` whether it accepts its response, and `linger.rs`
//! reads the rest before the connection closes.

use super::deadlines::{HeadDeadline, HeadPart, StreamDeadlines};
use super::framing::Framing;
use super::linger::linger;
use super::notes::{ConnectionStage, Notes};
use super::preface::{Preface, PrefaceMatch};
use super::presence::Presence;
use super::refusals::{MalformedReplies, reason_of};
use super::timed_stream::TimedStream;
use crate::metrics::Malformed;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// The most bytes read ahead while a request waits.
const AHEAD: usize = 1024;

/// A connection whose reads and writes are watched.
///
/// Heads are counted, of requests and of responses. Several fields keep the count at which they
/// were set, and are valid only while it is unchanged. So nothing has to be reset for each request.
#[derive(Debug)]
pub struct WatchedStream<I> {
    stream: TimedStream<I>,
    notes: Notes,
    deadlines: StreamDeadlines,
    refusals: MalformedReplies,
    framing: Framing,
    preface: Preface,
    /// The response to bytes that are not a request, and how much of it is written. Once it is set,
    /// hyper reads the end of the input, so that it closes the connection.
    refusal: Option<(Vec<u8>, usize)>,
    /// The head count at which everything of hyper's was sent and no request was served.
    all_sent: Option<u32>,
    /// The bytes read that hyper has not seen. They arrived while a request waited, or may become
    /// the preface of HTTP/2.
    ahead: Vec<u8>,
    presence: Presence,
    next_head: HeadDeadline,
}

impl<I> WatchedStream<I> {
    /// Watches `inner`. The service of the connection and the stream share `notes`.
    pub fn new(
        inner: I,
        notes: Notes,
        deadlines: StreamDeadlines,
        refusals: MalformedReplies,
    ) -> Self {
        Self {
            stream: TimedStream::new(inner, notes.clone(), deadlines),
            notes,
            deadlines,
            refusals,
            framing: Framing::default(),
            preface: Preface::new(),
            refusal: None,
            all_sent: Some(0),
            ahead: Vec::new(),
            presence: Presence::Open,
            next_head: HeadDeadline::default(),
        }
    }

    /// Notes what was read. Every byte must pass here exactly once and in order, before hyper sees
    /// it. Otherwise the framing would take the bytes of a body for a head.
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
        self.notes.stage() == ConnectionStage::None && self.all_sent == Some(self.notes.heads())
    }

    /// Starts the response to bytes that are not a request. Only the first reason counts.
    fn refuse(&mut self, why: Malformed) {
        if self.refusal.is_none() {
            let refusal = self.refusals.answer(why);
            self.notes.note_refused(why, refusal.id);
            self.refusal = Some((refusal.bytes, 0));
        }
    }

    /// Fails a read that found nothing, if the head is overdue, or answers what there is of it (RFC
    /// 9110, section 15.5.9).
    fn head_in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.notes.is_head_next() {
            return Ok(());
        }
        let heads = self.notes.heads();
        match self.next_head.poll_overdue(context, heads, &self.deadlines) {
            Poll::Pending => Ok(()),
            Poll::Ready(HeadPart::Some) if self.is_unasked() => {
                self.refuse(Malformed::Timeout);
                Ok(())
            }
            // No byte to answer, or the response before was not sent completely: a 408 would end up
            // in the middle of it.
            Poll::Ready(_) => {
                let why = "the head of a request did not come in time";
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        }
    }

    /// Moves bytes read ahead into `buffer`.
    fn take_ahead(&mut self, buffer: &mut ReadBuf<'_>) {
        let most = buffer.remaining().min(self.ahead.len());
        buffer.put_slice(self.ahead.split_at(most).0);
        self.ahead.drain(..most);
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> WatchedStream<I> {
    /// Finds out whether the caller is still there. Called while a request waits for its response
    /// head, and after everything sent before was accepted. hyper does not look for the end of the
    /// input (`half_close` in `conn.rs`), so a read here does.
    fn watch(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if matches!(self.presence, Presence::Open) {
            // A caller cannot fill the memory: no more is read ahead until hyper has taken this.
            if !self.ahead.is_empty() {
                return Ok(());
            }
            match self.poll_read_ahead(context)? {
                Poll::Ready(0) => self.presence = Presence::after_input(self.notes.stage()),
                Poll::Ready(_) | Poll::Pending => return Ok(()),
            }
        }
        self.presence
            .advance(context, &mut self.stream, &self.notes)
    }

    /// Reads what hyper does not want yet, and returns the number of bytes; none means the end of
    /// the input. The bytes are kept, and the caller is not watched until hyper has read them.
    fn poll_read_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; AHEAD];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        // A task that waits for them, for instance for the rest of a body, must look again.
        context.waker().wake_by_ref();
        self.note(buffer.filled());
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes the rest of an interim response that has begun.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.presence
            .poll_interim(context, &mut self.stream, &self.notes)
    }

    /// Writes the rest of the response to bytes that are not a request.
    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.refusal {
            Some((bytes, written)) => self.stream.poll_write_rest(context, bytes, written),
            None => Poll::Ready(Ok(())),
        }
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
            linger(self.stream, stopped).await;
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for WatchedStream<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.preface.may_continue() && !this.ahead.is_empty() {
            this.take_ahead(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            // hyper takes this for the end of the input and closes the connection.
            if this.refusal.is_some() {
                return Poll::Ready(Ok(()));
            }
            let polled = Pin::new(&mut this.stream).poll_read(context, buffer)?;
            if polled.is_pending() {
                this.head_in_time(context)?;
                // An overdue head may have been answered just now.
                match this.refusal {
                    Some(_) => continue,
                    None => return Poll::Pending,
                }
            }
            let read = buffer.filled().get(before..).unwrap_or_default();
            this.note(read);
            match this.preface.feed(read) {
                PrefaceMatch::None => break,
                PrefaceMatch::Part => {}
                PrefaceMatch::Whole => this.refuse(Malformed::Http2),
            }
            // Hidden from hyper until it is certain what the connection speaks.
            this.ahead.extend_from_slice(read);
            buffer.set_filled(before);
        }
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

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedStream<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The interim response comes first: bytes of hyper's must not end up in the middle of it.
        ready!(self.poll_interim(context))?;
        if self.is_unasked() {
            // Reported as written, so that hyper believes its bare status sent.
            self.refuse(reason_of(bytes));
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        ready!(self.poll_interim(context))?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes after each poll in which it wrote everything. That is the moment to watch the
    /// caller.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        match self.notes.stage() {
            // Until the next head, hyper writes nothing but its status for a malformed request.
            ConnectionStage::None => self.all_sent = Some(self.notes.heads()),
            ConnectionStage::Waiting | ConnectionStage::WaitingSilently => self.watch(context)?,
            ConnectionStage::Answered => {}
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
