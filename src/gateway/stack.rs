//! The layers around the request path, outermost first.
//!
//! Every request passes them, except a hit on the [fast path](crate::gateway::fast_path).
//!
//! Promises that the server never sees an error and that every request ends in exactly one outcome:
//! an error of a layer becomes a response in the API's envelope here, and is reported like any
//! other.
//!
//! Layers end at the head of the response. A streaming body and a detached fetch have guards of
//! their own ([`crate::exchange::body`], [`crate::tasks`]).

use crate::credential::SECRET_HEADERS;
use crate::error::GatewayError;
use crate::exchange::body::BoxError;
use crate::exchange::body::LayeredBody;
use crate::exchange::body::{Body, Guarded};
use crate::exchange::error_response;
use crate::exchange::ids::Ids;
use crate::exchange::request::short;
use crate::exchange::request_id::REQUEST_ID;
use crate::exchange::source::RequestSource;
use crate::gateway::Gateway;
use crate::gateway::headers::mark_own;
use crate::tasks::panic_text;
use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response};
use http_body_util::BodyExt;
use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::layer::layer_fn;
use tower::{Service, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::timeout::{RequestBodyDeadlineLayer, ResponseBodyDeadlineLayer};
use tower_http::trace::{DefaultOnFailure, TraceLayer};
use tracing::Level;

/// The bounds of the layers.
#[derive(Clone, Copy, Debug)]
pub struct StackBounds {
    /// The most requests handled concurrently. Requests beyond that are rejected immediately.
    pub concurrent_requests: usize,
    /// The deadline for receiving a request's body.
    pub request_body: Duration,
    /// The deadline for sending a response's body.
    pub response_body: Duration,
}

/// Returns the layers and the path behind them. The service never fails and is cheap to clone.
///
/// The order is part of the behaviour; the comments say which neighbours depend on each other.
pub(crate) fn stack<B>(
    gateway: Arc<Gateway>,
    bounds: StackBounds,
) -> impl Service<Request<B>, Response = Response<LayeredBody>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (outer, via) = (gateway.clone(), gateway.router.settings.get().via.clone());
    ServiceBuilder::new()
        // Outside the load shedding, so that a request shed there is reported and has an id.
        .layer(layer_fn(move |inner| Finish {
            inner,
            gateway: outer.clone(),
        }))
        // Excess requests are rejected immediately instead of waiting.
        .load_shed()
        .concurrency_limit(bounds.concurrent_requests)
        // A panic in the path or in a layer below becomes a 500.
        .layer(CatchPanicLayer::custom(
            move |cause: Box<dyn Any + Send>| after_panic(cause.as_ref(), &via),
        ))
        // `Debug` of a request shows none of these values.
        .layer(SetSensitiveRequestHeadersLayer::new(
            SECRET_HEADERS.iter().cloned(),
        ))
        // Logs the end of every body at debug level.
        .layer(
            TraceLayer::new_for_http()
                // Without the target: a query may contain a token, a path an email address.
                .make_span_with(|request: &Request<_>| {
                    // The source is looked up only if the span is enabled.
                    let source = || request.extensions().get::<RequestSource>();
                    tracing::debug_span!(
                        "request",
                        method = short(request.method()),
                        request_id = source().and_then(|source| source.ids.request()),
                        trace_id = source().and_then(|source| source.ids.trace()),
                    )
                })
                // Failures have a log line of their own.
                .on_failure(DefaultOnFailure::new().level(Level::DEBUG)),
        )
        .layer(ResponseBodyDeadlineLayer::new(bounds.response_body))
        .layer(RequestBodyDeadlineLayer::new(bounds.request_body))
        // The size of a body is bounded where it is collected, so that this rejection is reported
        // too.
        .service_fn(move |request| {
            let gateway = gateway.clone();
            // Boxed, because each layer above moves it: it has the state of the whole path.
            Box::pin(async move {
                let answer = gateway.answer(request).await;
                Ok::<_, Infallible>(answer.map(|body| Guarded::new(body, gateway.metrics.body())))
            })
        })
}

/// Turns the errors of the inner layers into responses in the API's envelope, and gives every
/// response the request's id.
#[derive(Clone, Debug)]
struct Finish<S> {
    inner: S,
    gateway: Arc<Gateway>,
}

impl<S, B> Service<Request<B>> for Finish<S>
where
    S: Service<Request<B>, Response = Response<LayeredBody>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<LayeredBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<LayeredBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Load shedding is always ready: a request that it sheds fails when it is called.
        self.inner.poll_ready(context).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Copied before the call, which consumes the request. The connection has put it there.
        let source = request.extensions().get::<RequestSource>().cloned();
        let source = source.unwrap_or_else(|| RequestSource::within(&request, Ids::default()));
        let answer = self.inner.call(request);
        let gateway = self.gateway.clone();
        Box::pin(async move {
            let id = source.ids.header();
            let mut answer = match answer.await {
                Ok(answer) => answer,
                Err(_shed) => boxed(gateway.turn_away(source, &GatewayError::Overloaded)),
            };
            if let Some(id) = id {
                // A hit has it already.
                answer.headers_mut().entry(REQUEST_ID).or_insert(id);
            }
            Ok(answer)
        })
    }
}

/// Responds after a panic. The request itself was counted when its record was dropped.
fn after_panic(cause: &(dyn Any + Send), via: &HeaderValue) -> Response<LayeredBody> {
    tracing::error!(cause = panic_text(cause), "request panicked");
    let error = GatewayError::Internal;
    let mut answer = error_response::error(&error);
    mark_own(answer.headers_mut(), error.facts().kind, via);
    boxed(answer)
}

fn boxed(answer: Response<Body>) -> Response<LayeredBody> {
    answer.map(|body| LayeredBody::new(body.map_err(Into::into)))
}
