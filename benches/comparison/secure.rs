//! Cache hits over TLS, with HTTP/1.1 and with HTTP/2, each beside bare hyper with the same
//! settings of TLS, the same bytes and the same headers.
//!
//! The load speaks TLS and both protocols by the libraries of the servers, so it costs about what
//! they cost, and the server is not busy all the time: the verdict is about processor time.

use super::load::{self, Meter, Run};
use super::machine::Cores;
use super::report::{self, Bound, Goal};
use super::servers::{Server, Servers};
use super::upstream::{self, Answer, Upstream};
use super::{BODY_BYTES, CONNECTIONS, Contender, Failure, GATEWAY, Options, Round, bare};
use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use segment_gateway::clock::Clock;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const PATH: &str = "/users/user-00001";
/// The streams of HTTP/2 at once on each of its connections.
const STREAMS: usize = 8;

const PAIRS: [(Contender, Contender); 2] = [
    (Contender::GatewayTls, Contender::BareTls),
    (Contender::GatewayHttp2, Contender::BareHttp2),
];

/// A certificate for the servers, and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

pub(crate) fn measure(options: &Options, cores: &Cores) -> Result<(), Failure> {
    let upstream = Upstream::start(|_| Answer::plain(upstream::user(BODY_BYTES)))?;
    let servers = Servers {
        cores,
        gateway: &options.gateway,
        upstream: upstream.address(),
    };
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let pair = Pair {
        certificate: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    };
    let rounds = (0..options.rounds)
        .map(|round| one_round(round, options, servers, &pair))
        .collect::<Result<Vec<Round>, Failure>>()?;
    for (of, to) in PAIRS {
        let both = |round: &Round| {
            let both = round.iter().filter(|(one, _)| [of, to].contains(one));
            both.cloned().collect()
        };
        let rounds: Vec<Round> = rounds.iter().map(both).collect();
        report::table("cache hit over TLS", to, &rounds);
        let goal = Goal {
            of,
            to,
            figure: Run::micros_of_core,
            what: "processor time per request",
            // 0.85 of the requests on a full core.
            bound: Bound::AtMost(1.0 / 0.85),
        };
        report::verdict(&goal, &rounds);
    }
    Ok(())
}

/// One run of each: new processes, their warm-up, their measurement in turn.
fn one_round(
    round: usize,
    options: &Options,
    servers: Servers<'_>,
    pair: &Pair,
) -> Result<Round, Failure> {
    let folder = tempfile::tempdir()?;
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&certificate, &pair.certificate)?;
    std::fs::write(&key, &pair.key)?;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let tls = [
        ("SEGMENT_GATEWAY__TLS__CERTIFICATE_FILE", &*certificate),
        ("SEGMENT_GATEWAY__TLS__KEY_FILE", &*key),
    ];
    let gateway = servers.gateway(&[&GATEWAY[..], &tls].concat())?;
    let mut loads = Vec::new();
    let mut first = SecureLoad::connect(&gateway, pair, Version::HTTP_11)?;
    // The first is the fetch, the second the hit that the bare server repeats.
    first.ask()?;
    let sample = first.ask()?;
    loads.push((Contender::GatewayTls, first));
    let answer = wire(&sample);
    let bare = bare::secure_server(servers.cores, &answer, [&certificate, &key])?;
    for (contender, server, version) in [
        (Contender::GatewayHttp2, &gateway, Version::HTTP_2),
        (Contender::BareTls, &bare, Version::HTTP_11),
        (Contender::BareHttp2, &bare, Version::HTTP_2),
    ] {
        loads.push((contender, SecureLoad::connect(server, pair, version)?));
    }
    for (_, load) in &mut loads {
        load.body = sample.1.clone();
        load.run(options.warm_up)?;
    }
    let runs = load::interleave(round, loads.len(), options.measured, |at| {
        loads[at].1.run(load::SLICE)
    })?;
    let contenders = loads.into_iter().map(|(contender, _)| contender);
    Ok(contenders.zip(runs).collect())
}

/// An answer as it is on the wire of HTTP/1.1.
fn wire((headers, body): &(HeaderMap, Bytes)) -> Vec<u8> {
    let mut head = String::from("HTTP/1.1 200 OK\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

#[derive(Clone)]
enum Sender {
    Http1(Arc<tokio::sync::Mutex<http1::SendRequest<Empty<Bytes>>>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    /// Sends the request and returns the answer.
    async fn ask(&mut self, request: Request<Empty<Bytes>>) -> Result<(HeaderMap, Bytes), Failure> {
        let answer = match self {
            Self::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => sender.send_request(request).await?,
        };
        let (head, body) = answer.into_parts();
        if head.status != 200 {
            return Err(format!("{} instead of 200", head.status).into());
        }
        Ok((head.headers, body.collect().await?.to_bytes()))
    }
}

/// The connections to one server, and as many requests at once as the other loads have.
struct SecureLoad {
    runtime: Runtime,
    senders: Vec<Sender>,
    request: Request<Empty<Bytes>>,
    /// The body of every answer.
    body: Bytes,
    server: u32,
}

impl SecureLoad {
    fn connect(server: &Server, pair: &Pair, version: Version) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let is_http2 = version == Version::HTTP_2;
        let (count, each) = match is_http2 {
            true => (CONNECTIONS / STREAMS, STREAMS),
            false => (CONNECTIONS, 1),
        };
        let connector = connector(pair, is_http2)?;
        let senders = runtime.block_on(async {
            let mut senders = Vec::new();
            for _ in 0..count {
                let sender = open(server, &connector, is_http2).await?;
                senders.extend((0..each).map(|_| sender.clone()));
            }
            Ok::<_, Failure>(senders)
        })?;
        let target = match is_http2 {
            true => format!("https://{}{PATH}", server.address),
            false => PATH.to_owned(),
        };
        let mut request = Request::get(target)
            .header("user-agent", "segment-gateway-bench/1")
            .header(
                "accept",
                "application/vnd.segment.v1+json, application/json",
            )
            .header("accept-encoding", "gzip, deflate")
            .header(
                "authorization",
                "Bearer sgp_0123456789abcdef0123456789abcdef",
            );
        if !is_http2 {
            request = request.header("host", server.address.to_string());
        }
        Ok(Self {
            runtime,
            senders,
            request: request.body(Empty::new())?,
            body: Bytes::new(),
            server: server.id(),
        })
    }

    fn ask(&mut self) -> Result<(HeaderMap, Bytes), Failure> {
        let sender = self.senders.first_mut().ok_or("no connection")?;
        self.runtime.block_on(sender.ask(self.request.clone()))
    }

    /// Keeps the server busy for this long, and checks that every answer is the hit.
    fn run(&mut self, lasting: Duration) -> Result<Run, Failure> {
        let clock = Clock::system();
        let meter = Meter::start(self.server);
        let start = clock.now();
        let latencies = self.runtime.block_on(async {
            let mut asking = JoinSet::new();
            for sender in self.senders.iter().cloned() {
                let (request, body) = (self.request.clone(), self.body.clone());
                asking.spawn(keep_asking(sender, request, body, (start, lasting)));
            }
            let mut all = Vec::new();
            while let Some(latencies) = asking.join_next().await {
                all.extend(latencies??);
            }
            Ok::<_, Failure>(all)
        })?;
        Ok(meter.stop(clock.now().saturating_duration_since(start), latencies))
    }
}

/// Asks one request after the other, each as soon as the last is answered, for so long from an
/// instant on. Returns the latencies.
async fn keep_asking(
    mut sender: Sender,
    request: Request<Empty<Bytes>>,
    body: Bytes,
    (start, lasting): (Instant, Duration),
) -> Result<Vec<Duration>, Failure> {
    let clock = Clock::system();
    let mut latencies = Vec::new();
    loop {
        let sent = clock.now();
        if sent.saturating_duration_since(start) >= lasting {
            return Ok(latencies);
        }
        let (headers, found) = sender.ask(request.clone()).await?;
        let status = headers.get("cache-status").map(|value| value.as_bytes());
        let is_hit = status.is_some_and(|status| status.starts_with(b"segment-gateway; hit"));
        if !is_hit || found != body {
            return Err("another answer than the hit".into());
        }
        latencies.push(clock.now().saturating_duration_since(sent));
    }
}

fn connector(pair: &Pair, is_http2: bool) -> Result<TlsConnector, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pair.certificate.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocol: &[u8] = if is_http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn open(
    server: &Server,
    connector: &TlsConnector,
    is_http2: bool,
) -> Result<Sender, Failure> {
    let stream = TcpStream::connect(server.address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(server.address.ip());
    let stream = TokioIo::new(connector.connect(name, stream).await?);
    Ok(if is_http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        drop(tokio::spawn(connection));
        Sender::Http2(sender)
    } else {
        let (sender, connection) = http1::handshake(stream).await?;
        drop(tokio::spawn(connection));
        Sender::Http1(Arc::new(sender.into()))
    })
}
