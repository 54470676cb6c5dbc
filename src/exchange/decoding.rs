//! A compressed answer that is not stored, for a reader who does not understand it.
//!
//! Every shared fetch says that it understands `gzip`, also for readers who do not: what turns out
//! not to be for others is decoded here, as it arrives. Bounded: a little is decoded at a time, so
//! bytes that swell a thousandfold are as many pieces.

use crate::upstream::{AnswerBody, BodyError};
use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use http_body::{Body, Frame};
use std::fmt;
use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How many compressed bytes are decoded at a time.
const BITE: usize = 1024;

/// The decoded bytes of an answer.
pub struct Decoding {
    /// What was read already, and what is still to come.
    pending: Bytes,
    rest: Option<AnswerBody>,
    /// `None` once it has ended.
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    /// What was decoded before it was asked for.
    ahead: Option<Result<Frame<Bytes>, BodyError>>,
    /// Whether something was not compressed as it says.
    is_malformed: bool,
}

impl Decoding {
    /// Decodes an answer, of which `first` was read already.
    pub fn new(first: Option<Bytes>, rest: Option<AnswerBody>) -> Self {
        Self {
            pending: first.unwrap_or_default(),
            rest,
            decoder: Some(MultiGzDecoder::new(Vec::new())),
            ahead: None,
            is_malformed: false,
        }
    }

    /// Decodes until there is something to hand out, which it keeps. False if what came by then is
    /// not compressed as it says; how else it may end is told when it is read.
    pub async fn begins(&mut self) -> bool {
        self.ahead = poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await;
        !self.is_malformed
    }

    /// Whether nothing is left.
    pub fn is_end_stream(&self) -> bool {
        self.decoder.is_none() && self.ahead.is_none()
    }

    /// Decodes the next bite; `Err` at what is not compressed.
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

    /// What has been decoded since it was last asked for.
    fn decoded(&mut self) -> Option<Bytes> {
        let decoded = std::mem::take(self.decoder.as_mut()?.get_mut());
        (!decoded.is_empty()).then(|| decoded.into())
    }

    /// The compressed bytes have ended: the rest, if they are whole.
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
                    // Trailers say nothing of the decoded bytes.
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
