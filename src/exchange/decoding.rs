//! Decoding of a compressed response that is not stored, for a reader that does not accept `gzip`.
//!
//! Every shared fetch accepts `gzip`, also for readers that do not. A response that turns out not
//! to be shareable is decoded here as it arrives. Memory is bounded: little is decoded at a time,
//! so a body that expands a thousandfold becomes as many pieces.

use crate::upstream::{AnswerBody, BodyError};
use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use http_body::{Body, Frame};
use std::fmt;
use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The number of compressed bytes decoded at a time.
const BITE: usize = 1024;

/// The decoded body of a response.
pub struct Decoding {
    /// The compressed bytes received but not decoded, and the part still to come.
    pending: Bytes,
    rest: Option<AnswerBody>,
    /// `None` once decoding has ended.
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    /// A frame that was decoded before the first poll.
    ahead: Option<Result<Frame<Bytes>, BodyError>>,
    /// Whether some part was not valid `gzip`.
    is_malformed: bool,
}

impl Decoding {
    /// Decodes a body of which `first` was read already.
    pub fn new(first: Option<Bytes>, rest: Option<AnswerBody>) -> Self {
        Self {
            pending: first.unwrap_or_default(),
            rest,
            decoder: Some(MultiGzDecoder::new(Vec::new())),
            ahead: None,
            is_malformed: false,
        }
    }

    /// Decodes the first frame and keeps it. Returns false if the data up to there is not valid
    /// `gzip`. Any other error is returned when the body is read.
    pub async fn begins(&mut self) -> bool {
        self.ahead = poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await;
        !self.is_malformed
    }

    /// Returns whether nothing is left.
    pub fn is_end_stream(&self) -> bool {
        self.decoder.is_none() && self.ahead.is_none()
    }

    /// Decodes the next bite.
    ///
    /// # Errors
    /// If it is not valid `gzip`.
    fn bite(&mut self) -> Result<(), BodyError> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(());
        };
        let bite = self.pending.len().min(BITE);
        let count = decoder.write(&self.pending[..bite]);
        let count = count.unwrap_or(0);
        if count == 0 {
            self.is_malformed = true;
            return Err(BodyError::Broken);
        }
        self.pending.advance(count);
        Ok(())
    }

    /// Takes the bytes decoded since the last call.
    fn decoded(&mut self) -> Option<Bytes> {
        let decoded = std::mem::take(self.decoder.as_mut()?.get_mut());
        (!decoded.is_empty()).then(|| decoded.into())
    }

    /// Returns the last decoded bytes once the compressed ones have ended.
    ///
    /// # Errors
    /// If the compressed data is truncated or its checksum is wrong.
    fn finish(&mut self) -> Result<Option<Bytes>, BodyError> {
        let Some(decoder) = self.decoder.take() else {
            return Ok(None);
        };
        let rest = decoder.finish().map_err(|_| {
            self.is_malformed = true;
            BodyError::Broken
        })?;
        Ok((!rest.is_empty()).then(|| rest.into()))
    }
}

impl Body for Decoding {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(ahead) = this.ahead.take() {
            return Poll::Ready(Some(ahead));
        }
        loop {
            if let Some(bytes) = this.decoded() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let result = if !this.pending.is_empty() {
                this.bite()
            } else if let Some(rest) = &mut this.rest {
                match ready!(Pin::new(rest).poll_frame(context)) {
                    // Trailers are dropped: they describe the compressed body.
                    Some(Ok(frame)) => {
                        this.pending = frame.into_data().unwrap_or_default();
                        Ok(())
                    }
                    Some(Err(error)) => Err(error),
                    None => {
                        this.rest = None;
                        Ok(())
                    }
                }
            } else {
                return Poll::Ready(match this.finish() {
                    Ok(rest) => rest.map(|rest| Ok(Frame::data(rest))),
                    Err(error) => Some(Err(error)),
                });
            };
            // An error ends the body for good; later polls return the end.
            if let Err(error) = result {
                (this.rest, this.decoder) = (None, None);
                this.pending.clear();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_end_stream()
    }
}

impl fmt::Debug for Decoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoding")
    }
}
