//! hyper's client, which keeps the pool of connections and speaks HTTP on them, and its bounds.
//!
//! hyper decides whether a request waits for a kept connection or gets a new one. It must never
//! send a request a second time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::Connector;

/// The largest response head. On HTTP/1.1 also the most of a body that is read ahead. In bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// The largest number of header fields in an HTTP/1.1 response.
const HEAD_FIELDS: usize = 100;
/// The HTTP/2 receive windows of one stream and of one connection. In bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// The largest number of idle connections. More may be in use at once; those close when done.
const IDLE_CONNECTIONS: usize = 64;
/// The silence before a ping on an HTTP/2 connection in use, and the time limit for its response.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_ANSWER: Duration = Duration::from_secs(10);

/// hyper's client, over connections that the [`Connector`] makes.
pub(super) type HttpClient = legacy::Client<Connector, Full<Bytes>>;

/// Returns a client that keeps idle connections for at most `idle`, and one that keeps none. Both
/// make their connections with `connector`.
pub(super) fn http_clients(connector: Connector, idle: Duration) -> (HttpClient, HttpClient) {
    let mut pooled = legacy::Client::builder(TokioExecutor::new());
    // Every attempt is charged to a budget, so the library must not retry by itself.
    pooled
        .retry_canceled_requests(false)
        .set_host(true)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(idle)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http1_max_buf_size(HEAD_BYTES)
        .http1_max_headers(HEAD_FIELDS)
        .http2_max_header_list_size(HEAD_BYTES as u32)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_ANSWER)
        .http2_keep_alive_while_idle(false);
    let mut unpooled = pooled.clone();
    unpooled.pool_max_idle_per_host(0);
    (pooled.build(connector.clone()), unpooled.build(connector))
}
