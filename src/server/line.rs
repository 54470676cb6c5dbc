//! A connection's bytes, watched for two things that the HTTP library does not tell: the raw head
//! of the last request, and whether a caller that closed its sending half is still there.
//!
//! A closed sending half is not a hang-up, but a caller that has gone looks just the same until
//! something is sent to it. So while a request waits for its answer, the end of the input is
//! answered with an interim response (102, which every client must skip; RFC 9110, section 15.2).
//! Whoever has gone resets the connection, which is a hang-up; whoever is still there gets the
//! answer.

use super::framing;
use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

const INTERIM: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";
/// A reset takes one round trip to come back.
const RESET_WITHIN: Duration = Duration::from_millis(500);

/// Bounds of what a caller may take its time for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two pieces of what is sent to it.
    pub piece: Duration,
    /// From the head of an answer to its end.
    pub answer: Duration,
}

/// What the service tells the line, and the line the service. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// What was read since the last request was taken up, up to a bound.
    recent: Mutex<Vec<u8>>,
    /// A request waits for the head of its answer, and its caller understands interim responses.
    waiting: AtomicBool,
}

/// Marks a request as waiting for as long as it lives.
#[derive(Debug)]
pub struct Waiting(Notes);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.shared.waiting.store(false, Ordering::Release);
    }
}

impl Notes {
    /// Whether the head just read has both a length and a transfer encoding.
    pub fn is_ambiguous(&self) -> bool {
        framing::is_ambiguous(&self.shared.recent.lock())
    }

    /// A request has been taken up; what was read of it is forgotten.
    pub fn taken_up(&self, interim: Interim) -> Waiting {
        self.shared.recent.lock().clear();
        self.shared
            .waiting
            .store(interim == Interim::Understood, Ordering::Release);
        Waiting(self.clone())
    }

    fn note(&self, read: &[u8], most: usize) {
        let mut recent = self.shared.recent.lock();
        let read = &read[read.len().saturating_sub(most)..];
        let surplus = (recent.len() + read.len())
            .saturating_sub(most)
            .min(recent.len());
        recent.drain(..surplus);
        recent.extend_from_slice(read);
    }
}

/// Whether a caller understands interim responses: those of HTTP/1.0 do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interim {
    /// HTTP/1.1.
    Understood,
    /// HTTP/1.0.
    Unknown,
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
    /// It closed its sending half and is still there.
    Listening,
}

/// The first write makes whoever has gone send a reset, the second one meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    First,
    Second,
}

impl Round {
    /// What follows once all of it is written.
    fn end(self) -> Presence {
        match self {
            Self::First => Presence::Asked(Box::pin(tokio::time::sleep(RESET_WITHIN))),
            Self::Second => Presence::Listening,
        }
    }
}

/// A connection whose reads are watched.
#[derive(Debug)]
pub struct Line<I> {
    inner: I,
    notes: Notes,
    most: usize,
    presence: Presence,
}

impl<I> Line<I> {
    /// Remembers at most `most` bytes of what is read.
    pub fn new(inner: I, notes: Notes, most: usize) -> Self {
        Self {
            inner,
            notes,
            most,
            presence: Presence::Open,
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Line<I> {
    /// The input has ended: finds out whether the caller is still there.
    fn poll_presence(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.presence {
                Presence::Open => {
                    if !self.notes.shared.waiting.load(Ordering::Acquire) {
                        return Poll::Ready(Ok(()));
                    }
                    self.presence = Presence::Asking(0, Round::First);
                }
                Presence::Asking(written, round) => {
                    let rest = INTERIM.get(*written..).unwrap_or_default();
                    if rest.is_empty() {
                        self.presence = round.end();
                        continue;
                    }
                    match Pin::new(&mut self.inner).poll_write(context, rest) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                        Poll::Ready(Ok(n)) => *written += n,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Presence::Asked(timer) => {
                    if timer.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    self.presence = Presence::Asking(0, Round::Second);
                }
                // The head's deadline ends the connection after the answer.
                Presence::Listening => return Poll::Pending,
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
        if !matches!(this.presence, Presence::Open) {
            return this.poll_presence(context);
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        let read = buffer.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            this.notes.note(read, this.most);
        } else if matches!(polled, Poll::Ready(Ok(()))) && buffer.remaining() > 0 {
            return this.poll_presence(context);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Line<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn no_more_than_the_bound_is_remembered() {
        let notes = Notes::default();
        for part in [&b"abcdef"[..], b"ghijklmnopqrstuvwxyz", b"12"] {
            notes.note(part, 8);
            assert!(notes.shared.recent.lock().len() <= 8);
        }
        assert_eq!(*notes.shared.recent.lock(), b"uvwxyz12");
        drop(notes.taken_up(Interim::Understood));
        assert!(notes.shared.recent.lock().is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_has_gone_is_told_from_one_that_only_listens() {
        for gone in [true, false] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut caller = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let notes = Notes::default();
            let mut line = Line::new(accepted, notes.clone(), 100);
            let waiting = notes.taken_up(Interim::Understood);
            let mut buffer = [0; 10];
            if gone {
                drop(caller);
                let error = line.read(&mut buffer).await.unwrap_err();
                let kind = error.kind();
                assert!(
                    matches!(
                        kind,
                        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                    ),
                    "{kind}"
                );
            } else {
                caller.shutdown().await.unwrap();
                let mut read = std::pin::pin!(line.read(&mut buffer));
                let mut interim = [0; INTERIM.len()];
                tokio::select! {
                    _ = &mut read => panic!("it is still there"),
                    seen = caller.read_exact(&mut interim) => assert_eq!(seen.unwrap(), INTERIM.len()),
                }
                assert_eq!(interim, INTERIM);
            }
            drop(waiting);
        }
    }

    #[tokio::test]
    async fn without_a_request_the_end_is_the_end() {
        let (caller, server) = tokio::io::duplex(100);
        drop(caller);
        let mut line = Line::new(server, Notes::default(), 100);
        assert_eq!(line.read(&mut [0; 10]).await.unwrap(), 0);
    }
}
