//! The body of an answer: held bytes, or streamed from the API as it comes.

use crate::upstream::{AnswerBody, BodyError};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use std::pin::Pin;
use std::task::{Context, Poll};

/// What the gateway answers with.
#[derive(Debug)]
pub enum Body {
    /// Bytes that are held: from the store, or the gateway's own.
    Held(Full<Bytes>),
    /// The API's answer as it arrives.
    Streamed(Box<AnswerBody>),
    /// Bytes that were read already, then the rest of the API's answer.
    Continued(Option<Bytes>, Box<AnswerBody>),
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(body) => body.is_end_stream(),
            Self::Streamed(body) => body.is_end_stream(),
            Self::Continued(first, rest) => first.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(body) => body.size_hint(),
            Self::Streamed(body) => body.size_hint(),
            Self::Continued(None, rest) => rest.size_hint(),
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
pub async fn read(mut body: AnswerBody, most: usize) -> Read {
    let mut bytes = bytes::BytesMut::with_capacity(
        usize::try_from(body.size_hint().lower())
            .unwrap_or(0)
            .min(most),
    );
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(_trailers)) => {}
            Err(error) => return Read::Broken(error),
        }
        if bytes.len() > most {
            return Read::Longer(bytes.freeze(), Box::new(body));
        }
    }
    Read::Whole(bytes.freeze())
}
