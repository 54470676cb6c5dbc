//! One request and its response on a stream of HTTP/2.
//!
//! Every wait for the caller has a deadline, as on HTTP/1.1: a stream whose flow-control window
//! stays closed is reset. Nothing else of the connection waits for it. Data is handed to the HTTP
//! library only as far as the caller has opened the window, so nothing of a stream is left behind
//! in the library that no deadline watches.
//!
//! A stream that the caller resets is a hang-up: the service's future is dropped.

use super::head;
use crate::clock::Clock;
use crate::exchange::body::{BoxError, OuterBody};
use crate::server::deadlines::StreamDeadlines;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::Response;
use http_body::{Body, Frame};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use tokio::time::{Instant, sleep, timeout_at};

/// The most bytes of one stream that the HTTP library holds for a slow caller.
pub(super) const SEND_BUFFER: usize = 64 * 1024;

/// The facts about a request that its response depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExchangeSpec {
    /// Whether the method is `HEAD`.
    pub(super) is_head: bool,
    pub(super) deadlines: StreamDeadlines,
}

/// Why a response was not sent to its end.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The caller reset the stream, or the connection was lost.
    Gone,
    /// The caller took too long. The stream was reset.
    Stalled,
    /// The body broke off. The stream was reset.
    Broken(BoxError),
}

impl From<h2::Error> for Unsent {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

/// Waits for the response of a service and sends it.
///
/// # Errors
/// If the response was not sent to its end. Nothing more is to be done about the stream.
pub(super) async fn respond<F>(
    answer: F,
    mut stream: SendResponse<Bytes>,
    spec: ExchangeSpec,
    clock: Clock,
) -> Result<(), Unsent>
where
    F: Future<Output = Result<Response<OuterBody>, Infallible>>,
{
    let answer = tokio::select! {
        biased;
        answer = answer => answer,
        _ = poll_fn(|context| stream.poll_reset(context)) => return Err(Unsent::Gone),
    };
    let Ok(answer) = answer;
    let (mut parts, body) = answer.into_parts();
    let date = || httpdate::fmt_http_date(clock.wall());
    head::complete(&mut parts, spec.is_head, body.size_hint().exact(), date);
    let has_body = head::has_body(parts.status, spec.is_head) && !body.is_end_stream();
    let stream = stream.send_response(Response::from_parts(parts, ()), !has_body)?;
    if !has_body {
        return Ok(());
    }
    let mut outgoing = Outgoing {
        stream,
        deadlines: spec.deadlines,
        answer_by: None,
    };
    let sent = outgoing.send(body).await;
    match &sent {
        Err(Unsent::Stalled) => outgoing.stream.send_reset(Reason::CANCEL),
        Err(Unsent::Broken(_)) => outgoing.stream.send_reset(Reason::INTERNAL_ERROR),
        Err(Unsent::Gone) | Ok(()) => {}
    }
    sent
}

/// The body of a response on its way.
struct Outgoing {
    stream: SendStream<Bytes>,
    deadlines: StreamDeadlines,
    /// The deadline of the response, set when the caller first makes it wait.
    answer_by: Option<Instant>,
}

impl Outgoing {
    /// Sends a body that has not ended.
    async fn send(&mut self, mut body: OuterBody) -> Result<(), Unsent> {
        while let Some(frame) = self.next(&mut body).await? {
            match frame.into_data() {
                Ok(data) => {
                    if self.send_data(data, body.is_end_stream()).await? {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Ok(self.stream.send_trailers(trailers)?);
                    }
                }
            }
        }
        Ok(self.stream.send_data(Bytes::new(), true)?)
    }

    /// Returns the next frame of the body, or `None` at its end.
    async fn next(&mut self, body: &mut OuterBody) -> Result<Option<Frame<Bytes>>, Unsent> {
        poll_fn(|context| {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
                return Poll::Ready(frame.transpose().map_err(Unsent::Broken));
            }
            let reset = self.stream.poll_reset(context);
            reset.map(|_| Err(Unsent::Gone))
        })
        .await
    }

    /// Sends data as far as the window is open, waits for the caller to open it further, and so on.
    /// Returns whether the stream has ended with it.
    async fn send_data(&mut self, mut data: Bytes, ends: bool) -> Result<bool, Unsent> {
        while !data.is_empty() {
            // No more than the library takes at once: other streams need the window of the
            // connection as well.
            self.stream.reserve_capacity(data.len().min(SEND_BUFFER));
            if self.stream.capacity() == 0 {
                self.wait_for_window().await?;
            }
            let part = data.split_to(self.stream.capacity().min(data.len()));
            let is_last = data.is_empty() && ends;
            if !part.is_empty() {
                self.stream.send_data(part, is_last)?;
            }
            if is_last {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until the caller accepts more.
    async fn wait_for_window(&mut self) -> Result<(), Unsent> {
        let from_now = |time| sleep(time).deadline();
        let answer = self.deadlines.answer;
        let answer_by = *self.answer_by.get_or_insert_with(|| from_now(answer));
        let by = answer_by.min(from_now(self.deadlines.piece));
        let opened = poll_fn(|context| self.stream.poll_capacity(context));
        match timeout_at(by, opened).await {
            Ok(Some(Ok(_))) => Ok(()),
            Ok(_) => Err(Unsent::Gone),
            Err(_) => Err(Unsent::Stalled),
        }
    }
}
