//! A streamed body with a copy that is judged at its end.
//!
//! Promises:
//!
//! - The caller gets exactly what arrived, trailers and errors included, whatever happens to the
//!   copy.
//! - The copy is no longer than its bound.
//! - The copy is judged as soon as the last byte has arrived, even if nothing is polled after it.

use crate::exchange::share::Portion;
use crate::shadow::comparison::Comparison;
use crate::upstream::{AnswerBody, BodyError};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

// The next frame, or the end.
type Came = Option<Result<Frame<Bytes>, BodyError>>;

/// A body and its copy.
pub struct Copied {
    /// The frames that were read before they were polled.
    ahead: VecDeque<Result<Frame<Bytes>, BodyError>>,
    rest: AnswerBody,
    /// The copy and its judge. `None` once it has been judged, or cannot be.
    copy: Option<(BytesMut, Box<Comparison>)>,
    most: usize,
    /// The memory reserved for the copy.
    room: Portion,
    /// The result of the comparison, once it is known.
    same: Option<bool>,
}

impl Copied {
    /// Copies at most `most` bytes into `room`, for `judge`.
    pub(super) fn new(
        body: AnswerBody,
        most: usize,
        room: Portion,
        judge: Box<Comparison>,
    ) -> Self {
        let mut copied = Self {
            ahead: VecDeque::new(),
            rest: body,
            copy: Some((BytesMut::new(), judge)),
            most,
            room,
            same: None,
        };
        // An empty body is at its end already.
        copied.judge_at_end();
        copied
    }

    /// Reads until the copy has been judged, or cannot be. Cancel safe: no frame is lost.
    pub(super) async fn read_ahead(&mut self) {
        while self.copy.is_some() {
            let Some(came) = poll_fn(|context| self.poll_rest(context)).await else {
                break;
            };
            self.ahead.push_back(came);
        }
    }

    /// Returns whether the body equals the stored one, if that is known by now.
    pub(super) fn same(&self) -> Option<bool> {
        self.same
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Came> {
        let came = ready!(Pin::new(&mut self.rest).poll_frame(context));
        match &came {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.copy_more(data);
                }
                self.judge_at_end();
            }
            // Without its end the body cannot be judged.
            Some(Err(_)) => self.copy = None,
            None => self.judge(),
        }
        Poll::Ready(came)
    }

    fn copy_more(&mut self, data: &Bytes) {
        let Some((copy, _)) = &mut self.copy else {
            return;
        };
        let has_room = copy.len() + data.len() <= self.most;
        if has_room && self.room.grow(data.len()).is_ok() {
            copy.extend_from_slice(data);
        } else if let Some((_, judge)) = self.copy.take() {
            judge.too_long();
        }
    }

    fn judge_at_end(&mut self) {
        if self.rest.is_end_stream() {
            self.judge();
        }
    }

    fn judge(&mut self) {
        if let Some((copy, judge)) = self.copy.take() {
            self.same = judge.whole(&copy.freeze());
        }
    }
}

impl Body for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Came> {
        let this = self.get_mut();
        match this.ahead.pop_front() {
            Some(came) => Poll::Ready(Some(came)),
            None => this.poll_rest(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.iter().flatten();
        let ahead = ahead.filter_map(|frame| frame.data_ref());
        let ahead: usize = ahead.map(Bytes::len).sum();
        let mut hint = self.rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(ahead as u64));
        }
        hint.set_lower(hint.lower().saturating_add(ahead as u64));
        hint
    }
}

impl fmt::Debug for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Copied({:?})", self.rest)
    }
}
