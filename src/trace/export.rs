//! The exporter: sends spans to a collector in batches, as OTLP over HTTP in protobuf.
//!
//! The OpenTelemetry library builds batches in a thread of its own. That thread waits for a client
//! that runs in the gateway's runtime, because the library's own clients would need another one.
//!
//! Promises that exporting never delays a request: spans are dropped and counted instead.
//!
//! A span is counted once: as dropped when the queue is full, or as exported or failed with its
//! batch. A batch that the collector rejects is not sent again.
//!
//! The collector is reached directly and never through a proxy. Exports are charged to no budget of
//! the API.

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::upstream::{Attempt, Base, Client, ClientSpec, Destination, ProxyRules};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor,
};
use parking_lot::Mutex;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// The most spans in the queue. Further spans are dropped.
const MOST_WAITING: usize = 4_096;
/// The most spans in one batch.
const BATCH: usize = 512;
/// The longest that a span waits for its batch to fill.
const DELAY: Duration = Duration::from_secs(2);
/// The timeout of the collector for a batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// The path for spans (OTLP/HTTP request).
const PATH: &str = "/v1/traces";
/// The largest response of a collector that is read, in bytes.
const LARGEST_ANSWER: usize = 64 * 1024;

/// A collector that accepts OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// `http://` or `https://`, a host, and optionally a port and a path. `/v1/traces` is appended.
    pub endpoint: String,
    /// A PEM file of certificates to trust besides the public ones.
    pub ca_file: Option<PathBuf>,
    /// The service name of the gateway.
    pub service: String,
}

/// The reason why spans cannot be exported at all.
#[derive(Debug)]
pub struct TraceError(String);

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot export traces: {}", self.0)
    }
}

impl std::error::Error for TraceError {}

/// Wraps the cause of a failed start.
fn because(error: impl fmt::Display) -> TraceError {
    TraceError(error.to_string())
}

impl Collector {
    /// Returns scheme and authority, and the URL for spans.
    ///
    /// The path is appended to the endpoint, as the OTLP exporter specification requires for
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`. An endpoint that has it already is rejected, because spans
    /// would go to a path that no collector serves.
    ///
    /// # Errors
    /// If the endpoint is not the address of a collector.
    pub fn address(&self) -> Result<(Base, String), TraceError> {
        let uri: Uri = self.endpoint.trim().parse().map_err(because)?;
        let path = uri.path().trim_end_matches('/').to_owned();
        if uri.query().is_some() {
            return Err(TraceError("its address has a query".to_owned()));
        }
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(TraceError("its address is not a URL".to_owned()));
        };
        if path.ends_with(PATH) {
            return Err(TraceError(format!(
                "{PATH} is put behind it and must not be there"
            )));
        }
        let place = format!("{scheme}://{authority}");
        let base = Base::parse(&place).map_err(because)?;
        Ok((base, format!("{place}{path}{PATH}")))
    }
}

/// The state of the export, shared between the queue and the batches.
#[derive(Debug)]
struct Account {
    /// The collector for the log, without its path.
    url: String,
    /// Why the last batch had no response. The library's error does not say.
    reason: Mutex<Option<&'static str>>,
    /// Where spans are counted, by result.
    metrics: Arc<Metrics>,
    /// Spans in the queue or in a batch that is being sent. Never above [`MOST_WAITING`], except
    /// for a moment while a span is being refused.
    waiting: AtomicUsize,
    /// Whether the last batch failed, so that a lasting failure is logged once.
    failing: AtomicBool,
    /// Whether spans were dropped since the last success, so that this is logged once.
    dropping: AtomicBool,
}

impl Account {
    /// Notes why a batch had no response, and returns the error for the library.
    fn failed(&self, reason: &'static str) -> HttpError {
        *self.reason.lock() = Some(reason);
        HttpError::from(reason)
    }
}

/// The queue of spans and its processor.
#[derive(Debug)]
pub(super) struct Export {
    /// The library's queue, with the thread that empties it.
    processor: BatchSpanProcessor,
    /// Shared with the exporter at the other end of the queue.
    account: Arc<Account>,
}

impl Export {
    /// Starts the library's thread. Must be called within the runtime that is to send the batches.
    ///
    /// # Errors
    /// If the endpoint or the CA file is unusable, or if there is no runtime.
    pub(super) fn start(
        collector: &Collector,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Self, TraceError> {
        let (base, url) = collector.address()?;
        let account = Arc::new(Account {
            url: base.to_string(),
            reason: Mutex::default(),
            metrics,
            waiting: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
            dropping: AtomicBool::new(false),
        });
        let sender = Sender {
            client: client(collector, base, clock)?,
            account: account.clone(),
            runtime: Handle::try_current().map_err(because)?,
        };
        let otlp = Otlp::builder()
            .with_http()
            .with_http_client(sender)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .with_timeout(PATIENCE)
            .build()
            .map_err(because)?;
        let counting = Counting {
            inner: otlp,
            account: account.clone(),
        };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(MOST_WAITING)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let mut processor = BatchSpanProcessor::builder(counting)
            .with_batch_config(batches)
            .build();
        let resource = Resource::builder()
            .with_service_name(collector.service.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        processor.set_resource(&resource);
        Ok(Self { processor, account })
    }

    /// Queues a span, or drops and counts it if the queue is full. Never waits.
    pub(super) fn push(&self, span: SpanData) {
        let waiting = &self.account.waiting;
        // Counted before the library's queue, which would drop the span silently.
        if waiting.fetch_add(1, Ordering::AcqRel) >= MOST_WAITING {
            waiting.fetch_sub(1, Ordering::AcqRel);
            self.account.metrics.spans("dropped", 1);
            if !self.account.dropping.swap(true, Ordering::AcqRel) {
                tracing::warn!(
                    url = self.account.url,
                    "the trace collector is too slow: the queue of spans is full and further spans \
                     are dropped; requests are not affected"
                );
            }
            return;
        }
        self.processor.on_end(span);
    }

    /// Exports what is queued and ends the thread. Spans that are pushed afterwards are lost.
    /// Blocks for at most `within`, so it must not be called on a thread that the runtime needs to
    /// send the last batch.
    pub(super) fn finish(&self, within: Duration) {
        if let Err(error) = self.processor.shutdown_with_timeout(within) {
            tracing::warn!(
                url = self.account.url,
                %error,
                "cannot hand the last spans to the trace collector: they are lost"
            );
        }
    }
}

/// Creates the client for the collector. It has the gateway's care about abandoned requests without
/// needing it: a batch that arrives twice or late does no harm.
fn client(collector: &Collector, base: Base, clock: Clock) -> Result<Client, TraceError> {
    let spec = ClientSpec {
        destination: Destination::TraceCollector,
        base,
        ca_file: collector.ca_file.clone(),
        connect: PATIENCE,
        head: PATIENCE,
        idle_body: PATIENCE,
        total: PATIENCE,
        connection_lifetime: Duration::from_secs(300),
        connection_idle: Duration::from_secs(50),
        late_arrival: Duration::from_secs(60),
        http2: true,
        proxy: ProxyRules::default(),
        via: HeaderValue::from_static("1.1 segment-gateway"),
    };
    Client::new(spec, clock).map_err(because)
}

/// Counts the spans that the collector took.
#[derive(Debug)]
struct Counting<E> {
    /// The exporter that encodes a batch and hands it to [`Sender`].
    inner: E,
    account: Arc<Account>,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let done = self.inner.export(batch).await;
        let account = &self.account;
        // The room of the batch is free again, whether it arrived or not.
        account.waiting.fetch_sub(count, Ordering::AcqRel);
        let result = if done.is_ok() { "exported" } else { "failed" };
        account.metrics.spans(result, count);
        if done.is_ok() {
            account.dropping.store(false, Ordering::Release);
        }
        // Only a change is logged. A collector that is away for an hour gives two lines.
        let was_failing = account.failing.swap(done.is_err(), Ordering::AcqRel);
        let reason = account.reason.lock().take();
        match &done {
            Err(error) if !was_failing => tracing::warn!(
                url = account.url,
                reason,
                %error,
                "the trace collector takes no spans: they are dropped until it does; requests are \
                 not affected"
            ),
            Ok(()) if was_failing => {
                tracing::info!(url = account.url, "the trace collector takes spans again");
            }
            _ => {}
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Sends a batch from the library's thread through the gateway's runtime.
#[derive(Clone)]
struct Sender {
    /// Bounds each step of a batch by [`PATIENCE`], and the batch as a whole as well.
    client: Client,
    /// Where the reason of a failure is noted.
    account: Arc<Account>,
    /// The runtime in which [`Export::start`] was called. The library's thread has none.
    runtime: Handle,
}

/// Shows nothing: the library requires `Debug` of a client.
impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, account) = (self.client.clone(), self.account.clone());
        // Spawned, because the client needs the timers and sockets of the runtime.
        let sending = self.runtime.spawn(async move {
            match client.send(request).await {
                Attempt::Answered(answer) => {
                    let (head, body) = answer.into_parts();
                    let body = Limited::new(body, LARGEST_ANSWER).collect().await?;
                    Ok(Response::from_parts(head, body.to_bytes()))
                }
                // The library takes any error for a lost batch. It makes no difference whether the
                // collector has the batch already.
                Attempt::NotSent(why) => Err(account.failed(why.as_str())),
                Attempt::Unknown(why) => Err(account.failed(why.as_str())),
            }
        });
        // The library's thread blocks here. The client's own limits end the wait.
        sending.await?
    }
}
