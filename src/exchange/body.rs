//! The body of an answer: held bytes, or streamed from the API as it comes, as it is or decoded.

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

/// The body of an answer once it has passed the layers.
pub type LayeredBody = tower_http::body::UnsyncBoxBody<Bytes, BoxError>;

/// What the gateway answers with.
#[derive(Debug)]
pub enum Body {
    /// Bytes that are held: from the store, or the gateway's own.
    Held(Full<Bytes>),
    /// The API's answer as it arrives.
    Streamed(Box<AnswerBody>),
    /// Bytes that were read already, then the rest of the API's answer.
    Continued(Option<Bytes>, Box<AnswerBody>),
    /// Held bytes, decoded as they are asked for.
    Decoded(Box<Decoder>),
    /// The API's answer, decoded as it arrives.
    Decoding(Box<Decoding>),
    /// Any other.
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body {
    /// A held body.
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
            Self::Held(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Self::Streamed(body) => Pin::new(body).poll_frame(context),
            Self::Continued(first, rest) => match first.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Pin::new(rest).poll_frame(context),
            },
            Self::Decoded(decoder) => Poll::Ready(match decoder.piece() {
                Ok(piece) => piece.map(|piece| Ok(Frame::data(piece))),
                // It could be decoded when it was stored.
                Err(_) => Some(Err(BodyError::Broken)),
            }),
            Self::Decoding(body) => Pin::new(body).poll_frame(context),
            Self::Boxed(body) => Pin::new(body).poll_frame(context),
        }
    }

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

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(body) => body.size_hint(),
            Self::Streamed(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
            Self::Continued(None, rest) => rest.size_hint(),
            Self::Decoded(decoder) => SizeHint::with_exact(decoder.left() as u64),
            Self::Decoding(_) => SizeHint::default(),
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

/// A body on its way to a caller: counted while it lives. A panic in it is an error like any other
/// and ends its connection, not more; the layers around the head of an answer do not see it.
#[derive(Debug)]
pub struct Guarded<B> {
    inner: B,
    under_way: BodyUnderWay,
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
        match catch_unwind(AssertUnwindSafe(|| inner.poll_frame(context))) {
            Ok(polled) => polled.map_err(Into::into),
            Err(cause) => {
                this.panicked = true;
                this.under_way.panicked();
                let cause = crate::tasks::panic_text(cause.as_ref());
                tracing::error!(cause, "the body of an answer panicked");
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

/// The body of an answer as the server gets it.
pub enum OuterBody {
    /// Held bytes that no layer has to watch: how long a caller takes for them is the connection's
    /// matter.
    Held(Guarded<Body>),
    /// One that has passed the layers, and its error, once it has one.
    Layered(LayeredBody, Option<BoxError>),
}

impl OuterBody {
    /// The bytes of an answer that is not the gateway's proper.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        let body = Full::new(bytes.into()).map_err(|never| -> BoxError { match never {} });
        Self::layered(LayeredBody::new(body))
    }

    /// One that has passed the layers.
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
                        // The connection is closed at an error, with whatever was not yet written.
                        // It writes when it finds nothing to read: so the caller sees the head and
                        // what came of the body.
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
    /// All of it.
    Whole(Bytes),
    /// More than the bound: what was read, and the rest.
    Longer(Bytes, Box<AnswerBody>),
    /// It broke off.
    Broken(BodyError),
}

/// Reads a body of at most `most` bytes.
pub async fn read(body: AnswerBody, most: usize) -> Read {
    read_within(body, most, |_| true).await
}

/// The same where each piece has to find room; without it the body counts as longer.
pub(crate) async fn read_within(
    mut body: AnswerBody,
    most: usize,
    mut has_room: impl FnMut(usize) -> bool,
) -> Read {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut bytes = Buffer::new(expected.min(most));
    let mut is_within = true;
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                bytes.push(&data);
                is_within &= has_room(data.len());
            }
            Ok(Err(_trailers)) => {}
            Err(error) => return Read::Broken(error),
        }
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
        assert!(shown().contains("segment_gateway_bodies 1\n"));
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
        drop(body);
        assert!(shown().contains("segment_gateway_bodies 0\n"));
        assert!(shown().contains("segment_gateway_body_panics_total 1\n"));
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
