//! The bodies of a connection: of a request as it arrives, and of a response as it is sent.

use super::notes::{BodyComing, Exchange, Notes};
use crate::exchange::body::BoxError;
use crate::exchange::body::OuterBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of a request as hyper reads it. While it arrives, the stream does not take its bytes
/// for the next head, which has a deadline of its own.
#[derive(Debug)]
pub struct RequestBody {
    // Dropped first: dropping `inner` wakes the connection, which may then wait for the next head.
    coming: Option<BodyComing>,
    inner: Incoming,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, notes: &Notes) -> Self {
        let coming = (!inner.is_end_stream()).then(|| notes.body_coming());
        Self { coming, inner }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let has_ended = self.inner.is_end_stream() || matches!(polled, Poll::Ready(None));
        if let Some(coming) = self.coming.take_if(|_| has_ended) {
            coming.ended();
        // An error ends the body without having read all of it, so it stays noted as unread.
        } else if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.coming = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a response. Once hyper has all of it and drops it, the exchange has ended.
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
