//! The bodies of responses: held in memory, or streamed from the API, as they are or decoded.
//!
//! A body reports its own errors; this module does not decide which kind a response gets.
//!
//! Three types, from the inside out: [`Body`] is what the gateway produces, [`Guarded`] counts it
//! and contains its panics, [`OuterBody`] is what the server writes. None of them holds back bytes:
//! what arrives is passed on with the next poll, so a slow caller slows the API's connection down.

use crate::buffer::Buffer;
use crate::cache::coding::Decoder;
use crate::exchange::decoding::Decoding;
use crate::metrics::BodyUnderWay;
use crate::upstream::{AnswerBody, BodyError};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Any error of a layer.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response that has passed the layers.
pub type LayeredBody = tower_http::body::UnsyncBoxBody<Bytes, BoxError>;

/// The body of a response of the gateway.
#[derive(Debug)]
pub enum Body {
    /// Bytes in memory, from the store or of the gateway itself.
    Held(Full<Bytes>),
    /// The API's body as it arrives.
    Streamed(Box<AnswerBody>),
    /// Bytes that were read already, followed by the rest of the API's body.
    Continued(Option<Bytes>, Box<AnswerBody>),
    /// Bytes in memory, decoded piece by piece as the caller takes them.
    Decoded(Box<Decoder>),
    /// The API's body, decoded as it arrives.
    Decoding(Box<Decoding>),
    /// Any other body.
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body {
    /// Returns a body of these bytes.
    pub fn held(bytes: impl Into<Bytes>) -> Self {
        Self::Held(Full::new(bytes.into()))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::held(Bytes::new())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            // Bytes in memory cannot fail.
            Self::Held(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Self::Streamed(body) => Pin::new(body).poll_frame(context),
            // What was read already goes first, in one piece. From then on the rest is polled
            // directly.
            Self::Continued(first, rest) => match first.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Pin::new(rest).poll_frame(context),
            },
            Self::Decoded(decoder) => Poll::Ready(match decoder.piece() {
                Ok(piece) => piece.map(|piece| Ok(Frame::data(piece))),
                // Decoding succeeded when the response was stored.
                Err(_) => Some(Err(BodyError::Broken)),
            }),
            Self::Decoding(body) => Pin::new(body).poll_frame(context),
            Self::Boxed(body) => Pin::new(body).poll_frame(context),
        }
    }

    // Must not be true too early: hyper stops polling then, and the caller would lose the rest.
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(body) => body.is_end_stream(),
            Self::Streamed(body) => body.is_end_stream(),
            Self::Continued(first, rest) => first.is_none() && rest.is_end_stream(),
            Self::Decoded(decoder) => decoder.left() == 0,
            Self::Decoding(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    // An exact hint becomes `Content-Length` if the head has none. A body of unknown length is sent
    // in chunks.
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(body) => body.size_hint(),
            Self::Streamed(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
            Self::Continued(None, rest) => rest.size_hint(),
            Self::Decoded(decoder) => SizeHint::with_exact(decoder.left() as u64),
            // Unknown until the last compressed byte has arrived.
            Self::Decoding(_) => SizeHint::default(),
            // The bounds of the rest, moved up by the bytes in hand. An unknown upper bound stays
            // unknown.
            Self::Continued(Some(first), rest) => {
                let mut hint = rest.size_hint();
                let first = first.len() as u64;
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper.saturating_add(first));
                }
                hint.set_lower(hint.lower().saturating_add(first));
                hint
            }
        }
    }
}

/// A body in flight to a caller, counted while it lives.
///
/// A panic in the body becomes an error, which ends its connection and nothing else. The layers end
/// at the head of the response and would not catch it.
#[derive(Debug)]
pub struct Guarded<B> {
    /// The body that is guarded. Its panics and its errors end here.
    inner: B,
    /// The count of bodies in flight. Dropping the body, also when the caller hangs up, ends it.
    under_way: BodyUnderWay,
    /// Whether the inner body panicked. Its state is then unknown, so nothing polls it any more.
    panicked: bool,
}

impl<B> Guarded<B> {
    /// Guards `inner`.
    pub fn new(inner: B, under_way: BodyUnderWay) -> Self {
        Self {
            inner,
            under_way,
            panicked: false,
        }
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin> HttpBody for Guarded<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.panicked {
            return Poll::Ready(None);
        }
        let inner = Pin::new(&mut this.inner);
        // `AssertUnwindSafe` is sound, because a body that panicked is never polled again.
        match catch_unwind(AssertUnwindSafe(|| inner.poll_frame(context))) {
            Ok(polled) => polled.map_err(Into::into),
            Err(cause) => {
                this.panicked = true;
                this.under_way.panicked();
                let cause = crate::tasks::panic_text(cause.as_ref());
                tracing::error!(cause, "response body panicked");
                // An error, not an end: a truncated response must not look complete.
                Poll::Ready(Some(Err("the body panicked".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a response as the server gets it.
pub enum OuterBody {
    /// Bytes in memory that no layer watches. The connection bounds how long a caller takes for
    /// them.
    Held(Guarded<Body>),
    /// A body that has passed the layers, and its error once there is one.
    Layered(LayeredBody, Option<BoxError>),
}

impl OuterBody {
    /// Returns a body for a response that is not part of the request path.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        let body = Full::new(bytes.into()).map_err(|never| -> BoxError { match never {} });
        Self::layered(LayeredBody::new(body))
    }

    /// Returns the body of a response that has passed the layers.
    pub fn layered(body: LayeredBody) -> Self {
        Self::Layered(body, None)
    }
}

impl std::fmt::Debug for OuterBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held(body) => body.fmt(f),
            Self::Layered(..) => f.write_str("Layered"),
        }
    }
}

impl HttpBody for OuterBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Held(body) => Pin::new(body).poll_frame(context),
            Self::Layered(body, error) => {
                if let Some(error) = error.take() {
                    return Poll::Ready(Some(Err(error)));
                }
                match Pin::new(body).poll_frame(context) {
                    Poll::Ready(Some(Err(broken))) => {
                        // hyper closes the connection at an error and discards what it has not
                        // written. It writes when a poll is pending. So the error is reported at
                        // the next poll, and the caller gets the head and the part of the body that
                        // arrived.
                        *error = Some(broken);
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                    polled => polled,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(body) => body.is_end_stream(),
            Self::Layered(body, error) => error.is_none() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(body) => body.size_hint(),
            Self::Layered(body, _) => body.size_hint(),
        }
    }
}

/// A body read up to a bound.
#[derive(Debug)]
pub enum Read {
    /// The whole body.
    Whole(Bytes),
    /// A body beyond the bound: the bytes read, and the rest. Nothing is lost, so the caller may
    /// still stream both as [`Body::Continued`].
    Longer(Bytes, Box<AnswerBody>),
    /// A body that broke off. What was read of it is dropped.
    Broken(BodyError),
}

/// Reads a body of at most `most` bytes. There is no deadline here: the body's timeouts apply, or
/// the caller sets one.
pub async fn read(body: AnswerBody, most: usize) -> Read {
    read_within(body, most, |_| true).await
}

/// Reads a body of at most `most` bytes, of which each piece must find room. A body that finds none
/// is returned as [`Read::Longer`].
pub(crate) async fn read_within(
    mut body: AnswerBody,
    most: usize,
    mut has_room: impl FnMut(usize) -> bool,
) -> Read {
    // The announced length saves copies while the buffer grows. A length beyond the bound reserves
    // no more than the bound.
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut bytes = Buffer::new(expected.min(most));
    let mut is_within = true;
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                // The piece is kept even without room for it: it was read, and belongs before the
                // rest.
                bytes.push(&data);
                is_within &= has_room(data.len());
            }
            // A body that is read as a whole loses its trailers, which any recipient may discard
            // (RFC 9110, section 6.5.1). Only a streamed body passes them on.
            Ok(Err(_trailers)) => {}
            Err(error) => return Read::Broken(error),
        }
        // After the piece, so the bound is exceeded by one piece at most.
        if bytes.len() > most || !is_within {
            return Read::Longer(bytes.freeze(), Box::new(body));
        }
    }
    Read::Whole(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Levels, Metrics};

    struct Panics;

    /// Some bytes, then an error.
    struct Breaks(bool);

    impl HttpBody for Breaks {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(Some(if std::mem::replace(&mut self.0, true) {
                Err("broken".into())
            } else {
                Ok(Frame::data(Bytes::from_static(b"abc")))
            }))
        }
    }

    impl HttpBody for Panics {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            panic!("on purpose")
        }
    }

    #[tokio::test]
    async fn a_body_that_panics_is_an_error_and_is_counted_to_its_end() {
        let metrics = Metrics::new(&[]).unwrap();
        let shown = || String::from_utf8(metrics.render(&[], &Levels::default())).unwrap();
        let mut body = Guarded::new(Panics, metrics.body());
        assert!(shown().contains("segment_gateway_response_bodies_in_flight 1\n"));
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
        drop(body);
        assert!(shown().contains("segment_gateway_response_bodies_in_flight 0\n"));
        assert!(shown().contains("segment_gateway_response_body_panics_total 1\n"));
    }

    #[tokio::test]
    async fn what_came_is_written_before_it_breaks_off() {
        let mut body = OuterBody::layered(LayeredBody::new(Breaks(false)));
        let mut polls = Vec::new();
        std::future::poll_fn(|context| {
            let polled = Pin::new(&mut body).poll_frame(context);
            polls.push(match &polled {
                Poll::Pending => "pending",
                Poll::Ready(Some(Ok(_))) => "data",
                Poll::Ready(Some(Err(_))) => "error",
                Poll::Ready(None) => "end",
            });
            match polled {
                Poll::Ready(Some(Err(_))) => Poll::Ready(()),
                Poll::Ready(_) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        assert_eq!(polls, ["data", "pending", "error"]);
    }
}
