//! The bodies of a connection: of a request as it arrives, and of a response of HTTP/1.1 as it is
//! sent.

use super::notes::{BodyComing, Exchange, Notes};
use crate::exchange::body::BoxError;
use crate::exchange::body::OuterBody;
use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The body of a request as the HTTP library reads it.
#[derive(Debug)]
pub struct RequestBody {
    // Dropped first: dropping `inner` wakes the connection, which may then wait for the next head.
    coming: Option<BodyComing>,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Http1(Incoming),
    /// The stream, and the rest of the length that its head announces. The library checks that the
    /// two agree.
    Http2(RecvStream, Option<u64>),
}

impl RequestBody {
    /// Returns the body of a request of HTTP/1.1. While it arrives, the watched stream does not
    /// take its bytes for the next head, which has a deadline of its own.
    pub(super) fn http1(inner: Incoming, notes: &Notes) -> Self {
        let coming = (!inner.is_end_stream()).then(|| notes.body_coming());
        Self {
            coming,
            inner: Inner::Http1(inner),
        }
    }

    /// Returns the body of a request of HTTP/2 with this head.
    pub(super) fn http2(stream: RecvStream, head: &HeaderMap) -> Self {
        let length = head.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            coming: None,
            inner: Inner::Http2(stream, length),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let inner = match &mut self.inner {
            Inner::Http1(inner) => inner,
            Inner::Http2(stream, length) => return poll_data(stream, length, context),
        };
        let polled = Pin::new(&mut *inner).poll_frame(context);
        let has_ended = inner.is_end_stream() || matches!(polled, Poll::Ready(None));
        if let Some(coming) = self.coming.take_if(|_| has_ended) {
            coming.ended();
        // An error ends the body without having read all of it, so it stays noted as unread.
        } else if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.coming = None;
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Http1(inner) => inner.is_end_stream(),
            Inner::Http2(stream, _) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Http1(inner) => inner.size_hint(),
            Inner::Http2(..) if self.is_end_stream() => SizeHint::with_exact(0),
            Inner::Http2(_, length) => length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// Reads the next piece of a stream of HTTP/2 and lets the caller send as much again. Trailers are
/// dropped: the gateway forwards none.
fn poll_data(
    stream: &mut RecvStream,
    length: &mut Option<u64>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    Poll::Ready(match ready!(stream.poll_data(context)) {
        Some(Ok(data)) => {
            // Fails only for more than was received.
            let _ = stream.flow_control().release_capacity(data.len());
            *length = length.map(|length| length.saturating_sub(data.len() as u64));
            Some(Ok(Frame::data(data)))
        }
        Some(Err(error)) => Some(Err(error.into())),
        None => None,
    })
}

/// The body of a response of HTTP/1.1. Once hyper has all of it and drops it, the exchange has
/// ended.
#[derive(Debug)]
pub struct ResponseBody {
    inner: OuterBody,
    _exchange: Exchange,
}

impl ResponseBody {
    pub(super) fn new(inner: OuterBody, exchange: Exchange) -> Self {
        Self {
            inner,
            _exchange: exchange,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
