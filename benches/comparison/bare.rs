//! hyper and nothing else: a server that answers every request with the same bytes, and a proxy
//! with a pool of connections. They run in processes of their own: this program, with another
//! command. The server is also the upstream of what is passed through, because it answers in less
//! time than any proxy takes.

use super::Failure;
use super::machine::Cores;
use super::servers::{Server, free_port};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The commands that make this program one of them. The address to listen on follows, and then the
/// name of a file with the answer, or the address of the upstream.
const SERVER: &str = "bare-server";
const PROXY: &str = "bare-proxy";
const SECURE: &str = "bare-secure-server";
/// Where the answer is, in the folder of the server.
const ANSWER: &str = "answer";

/// Starts the server on this core. It answers everything with these bytes.
pub(crate) fn server(cores: &Cores, core: usize, answer: &[u8]) -> Result<Server, Failure> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join(ANSWER), answer)?;
    let address = free_port()?;
    let mut command = cores.command(core, &std::env::current_exe()?);
    command.args([SERVER, &address.to_string(), ANSWER]);
    Server::start(command, folder, address)
}

/// Starts the server on the servers' core, over TLS with this certificate and key (files).
pub(crate) fn secure_server(
    cores: &Cores,
    answer: &[u8],
    [certificate, key]: [&str; 2],
) -> Result<Server, Failure> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join(ANSWER), answer)?;
    let address = free_port()?;
    let mut command = cores.command(cores.server, &std::env::current_exe()?);
    command.args([SECURE, &address.to_string(), ANSWER, certificate, key]);
    Server::start(command, folder, address)
}

/// Starts the proxy on the servers' core.
pub(crate) fn proxy(cores: &Cores, upstream: SocketAddr) -> Result<Server, Failure> {
    let address = free_port()?;
    let mut command = cores.command(cores.server, &std::env::current_exe()?);
    command.args([PROXY, &address.to_string(), &upstream.to_string()]);
    Server::start(command, tempfile::tempdir()?, address)
}

/// Serves until the process is killed, if the arguments say so.
pub(crate) fn serve_if_asked(
    mut arguments: impl Iterator<Item = String>,
) -> Option<Result<(), Failure>> {
    let role = arguments
        .next()
        .filter(|role| [SERVER, PROXY, SECURE].contains(&&**role))?;
    let (address, argument) = (arguments.next()?, arguments.next()?);
    let pair = arguments.next().zip(arguments.next());
    Some(serve(&role, &address, &argument, pair))
}

fn serve(
    role: &str,
    address: &str,
    argument: &str,
    pair: Option<(String, String)>,
) -> Result<(), Failure> {
    // The gateway's runtime, and its way to serve: a task that accepts, a task per connection.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        if role != PROXY {
            let acceptor = pair.map(|pair| acceptor(&pair)).transpose()?;
            let answer = std::fs::read(Path::new(argument))?;
            let (headers, body) = parse(&answer).ok_or("the answer is malformed")?;
            tokio::spawn(accept(listener, acceptor, move |request| {
                answer_with(request, headers.clone(), body.clone())
            }))
            .await?;
        } else {
            let upstream: Authority = argument.parse()?;
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            let client = Client::builder(TokioExecutor::new()).build(connector);
            tokio::spawn(accept(listener, None, move |request| {
                forward(request, client.clone(), upstream.clone())
            }))
            .await?;
        }
        Ok(())
    })
}

/// Serves every connection with `handle`.
async fn accept<F, B>(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    handle: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Result<Response<B>, Failure>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Failure>> + Send + 'static,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        // Without it, an answer could be held back for 40 ms.
        let _ = stream.set_nodelay(true);
        let (service, acceptor) = (service_fn(handle.clone()), acceptor.clone());
        drop(tokio::spawn(async move {
            // A connection that breaks is the load's to report.
            let Some(acceptor) = acceptor else {
                let stream = TokioIo::new(stream);
                let _ = http1::Builder::new()
                    .serve_connection(stream, service)
                    .await;
                return;
            };
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let stream = TokioIo::new(stream);
            if is_http2 {
                let builder = http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(stream, service).await;
            } else {
                let _ = http1::Builder::new()
                    .serve_connection(stream, service)
                    .await;
            }
        }));
    }
}

/// Returns the gateway's settings of TLS, with this certificate and key (files).
fn acceptor((certificate, key): &(String, String)) -> Result<TlsAcceptor, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_file(certificate)?];
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn answer_with(
    request: Request<Incoming>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, Failure> {
    // A body that is not read would cost the connection.
    if !request.body().is_end_stream() {
        request.into_body().collect().await?;
    }
    let mut response = Response::new(Full::new(body));
    *response.headers_mut() = headers;
    Ok(response)
}

async fn forward(
    mut request: Request<Incoming>,
    client: Client<HttpConnector, Incoming>,
    upstream: Authority,
) -> Result<Response<Incoming>, Failure> {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(upstream)
        .path_and_query(path.unwrap_or(PathAndQuery::from_static("/")))
        .build()?;
    request.headers_mut().remove(CONNECTION);
    Ok(client.request(request).await?)
}

/// The fields and the body of an answer as it was on the wire. hyper adds the length by itself;
/// `Date` is among the fields, because it is the stored answer's.
fn parse(answer: &[u8]) -> Option<(HeaderMap, Bytes)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut headers = HeaderMap::new();
    for line in head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ")?;
        let name: HeaderName = name.parse().ok()?;
        if name != CONTENT_LENGTH {
            headers.append(name, HeaderValue::from_str(value).ok()?);
        }
    }
    Some((headers, Bytes::copy_from_slice(&answer[end + 4..])))
}
