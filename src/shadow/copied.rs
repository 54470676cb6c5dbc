//! The body of an answer that is passed on as it comes, and of which a copy is judged at its end.
//!
//! Promises that what is passed on is what came, trailers and breaking off included, whatever
//! becomes of the copy; that the copy is no longer than its bound; and that it is judged as soon as
//! the last byte is there, whether or not anybody asks for what comes after it.

use crate::exchange::body_memory::Taken;
use crate::shadow::reads::Judge;
use crate::upstream::{AnswerBody, BodyError};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

type Came = Option<Result<Frame<Bytes>, BodyError>>;

/// A body and its copy.
pub struct Copied {
    /// What was read before it was asked for.
    ahead: VecDeque<Result<Frame<Bytes>, BodyError>>,
    rest: AnswerBody,
    /// Until it has been judged, or cannot be.
    copy: Option<(BytesMut, Box<Judge>)>,
    most: usize,
    /// What the copy takes of the memory of all copies.
    room: Taken,
    same: Option<bool>,
}

impl Copied {
    /// A copy of at most `most` bytes, for which there is `room`, goes to `judge`.
    pub(super) fn new(body: AnswerBody, most: usize, room: Taken, judge: Box<Judge>) -> Self {
        let mut copied = Self {
            ahead: VecDeque::new(),
            rest: body,
            copy: Some((BytesMut::new(), judge)),
            most,
            room,
            same: None,
        };
        copied.judge_at_end();
        copied
    }

    /// Reads until the copy has been judged, or cannot be. May be given up at any time.
    pub(super) async fn read_ahead(&mut self) {
        while self.copy.is_some() {
            let Some(came) = poll_fn(|context| self.poll_rest(context)).await else {
                break;
            };
            self.ahead.push_back(came);
        }
    }

    /// Whether the body is what it was compared with, if that is known by now.
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
            // It broke off: nobody knows the whole.
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
