//! The life of one request, top to bottom: edge rules → operation → body → read or write →
//! response.
//!
//! In [shadow mode](crate::shadow): edge rules → operation → body → forwarded at once → response.
//!
//! Promises that every request ends in exactly one outcome: its `RequestRecord` is created first
//! and finished last, and a dropped one counts itself. Decisions about reads and writes are not
//! made here.

use crate::buffer::Buffer;
use crate::caller::Principal;
use crate::error::GatewayError;
use crate::exchange::body::{Body, BoxError};
use crate::exchange::edge;
use crate::exchange::request::AmbiguousFraming;
use crate::exchange::response::Reply;
use crate::exchange::share::Portion;
use crate::exchange::source::RequestSource;
use crate::gateway::Gateway;
use crate::gateway::record::RequestRecord;
use crate::route::policy::Effect;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use std::pin::pin;
use std::sync::Arc;

impl Gateway {
    /// Responds to one request, whatever happens, and counts it under exactly one outcome.
    pub async fn answer<B>(self: &Arc<Self>, mut request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let source = RequestSource::take(&mut request, self.tracer.as_ref());
        let mut record = RequestRecord::new(self, source);
        let target = self.audit.is_enabled().then(|| request.uri().clone());
        let reply = match self.handle(request, &mut record).await {
            Ok(reply) => reply,
            Err(error) => {
                record.audit_rejection(&error, target);
                Reply::error(&error)
            }
        };
        record.finish(reply)
    }

    // The order of the steps matters:
    //
    // 1. Edge rules come before everything, so that no ambiguous request is interpreted.
    // 2. The sender is known before anything is done for it. A key goes no further than this.
    // 3. The gateway's own paths need no operation.
    // 4. The record learns the operation before the checks below, so that their failures are
    //    reported under its name.
    // 5. Missing rights and a missing credential are rejected before the body is read.
    async fn handle<B>(
        &self,
        request: Request<B>,
        record: &mut RequestRecord,
    ) -> Result<Reply, GatewayError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        edge::check(&request)?;
        if request.extensions().get::<AmbiguousFraming>().is_some() {
            return Err(GatewayError::BadRequest(edge::AMBIGUOUS_LENGTH));
        }
        let (mut head, body) = request.into_parts();
        let source = record.source();
        let admit = || {
            let (certificate, now) = (&source.certificate, self.clock.wall());
            self.router.admit(&head.headers, certificate, now)
        };
        // The connection knows most senders from an earlier request.
        let sender = source.admitted.clone().map_or_else(admit, Ok)?;
        if edge::is_own(head.uri.path()) {
            let owner = sender.owner();
            return Box::pin(self.writes.own(&head.method, &head.uri, owner)).await;
        }
        sender.mask(&mut head.headers);
        let accepted = record.accepted();
        let mut context = self
            .router
            .understand(head, source, &sender.identity, accepted)?;
        record.understood(&context);
        sender.may(&context.operation, context.overridden)?;
        if context.lacks_credential() && self.shadow.is_none() {
            return Err(GatewayError::NoCredential);
        }
        // Everything that a hit does not need is boxed. What is left is small, and moves through
        // the surrounding layers with each request.
        if !body.is_end_stream() {
            let (body, room) = Box::pin(self.collect(body, &context.caller.principal)).await?;
            (context.body, context.room) = (body, Some(Arc::new(room)));
        }
        let reply = match (&self.shadow, context.operation.effect) {
            (Some(shadow), _) => Ok(Box::pin(shadow.forward_at_once(context)).await),
            (None, Effect::Write) => Box::pin(self.writes.write(context)).await,
            (None, Effect::Read) => self.reads.read(context).await,
        };
        if sender.token.is_some() {
            return reply.and_then(not_rejected);
        }
        reply
    }

    /// Responds to a request that a layer rejected. The request is reported like any other.
    pub(crate) fn turn_away(
        self: &Arc<Self>,
        source: RequestSource,
        error: &GatewayError,
    ) -> Response<Body> {
        RequestRecord::new(self, source).finish(Reply::error(error))
    }

    /// Collects the body. A layer bounds the time that this takes. A body whose announced length is
    /// too large is not read at all.
    ///
    /// # Errors
    /// If the body is larger than the limit, breaks off, times out, or finds no room in the memory
    /// for bodies.
    async fn collect<B>(
        &self,
        body: B,
        principal: &Principal,
    ) -> Result<(Bytes, Portion), GatewayError>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let most = self.router.settings.get().largest_body;
        let too_large = |bytes: usize| bytes > most;
        if too_large(usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)) {
            return Err(GatewayError::BodyTooLarge(most));
        }
        // Memory is reserved as data arrives, not by the announced length: a caller that announces
        // much and sends little must not keep others out.
        let mut room = self.bodies.portion(principal);
        let (mut first, mut all) = (Bytes::new(), Buffer::new(0));
        let mut body = pin!(body);
        while let Some(frame) = body.as_mut().frame().await {
            let Ok(data) = frame.map_err(|error| broken(error.into()))?.into_data() else {
                continue;
            };
            if too_large(first.len() + all.len() + data.len()) {
                return Err(GatewayError::BodyTooLarge(most));
            }
            room.grow(data.len())?;
            // Most bodies come in one piece, which needs no copy.
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                all.push(&std::mem::take(&mut first));
                all.push(&data);
            }
        }
        let whole = if all.is_empty() { first } else { all.freeze() };
        Ok((whole, room))
    }
}

/// Returns a response to a request that was sent with a held token, unless the API rejected that:
/// its caller has done nothing wrong, and would look for the fault in its key.
fn not_rejected(reply: Reply) -> Result<Reply, GatewayError> {
    match reply.response.status() {
        StatusCode::UNAUTHORIZED => Err(GatewayError::HeldTokenRefused { sent: true }),
        _ => Ok(reply),
    }
}

/// Returns the error for a body that ended early.
fn broken(error: BoxError) -> GatewayError {
    if is::<tower_http::timeout::TimeoutError>(error.as_ref()) {
        GatewayError::BodyTimeout
    } else {
        GatewayError::BadRequest("The body broke off or is malformed")
    }
}

/// Returns whether the error or one of its causes is an `E`.
fn is<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<E>())
}
