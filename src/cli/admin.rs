//! Requests to a running gateway, on its admin listener or through the socket in its state
//! directory.

use super::output::Failure;
use super::process;
use crate::config::{Config, admin_token_environment, state_directory_environment};
use crate::state::SOCKET;
use crate::tasks;
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

/// The longest time for a response, and that for a request which moves many writes.
const PATIENCE: Duration = Duration::from_secs(30);
const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// The characters to encode: all but the unreserved ones (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The header with the token to which a credential's writes are given.
const NEW_AUTHORIZATION: HeaderName = HeaderName::from_static("x-gateway-new-authorization");

/// The gateway to ask.
#[derive(Args, Debug)]
pub(super) struct AdminTarget {
    /// Admin listener: an address, or the path of the socket admin.sock in the state directory.
    /// [default: that socket, in segment-gateway-state or in the directory that the environment
    /// variable SEGMENT_GATEWAY__STATE__DIRECTORY names, if it exists; else 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", value_parser = Endpoint::parse, global = true)]
    admin: Option<Endpoint>,
    /// File with the admin token. Without it the environment variable SEGMENT_GATEWAY_ADMIN_TOKEN
    /// is used.
    #[arg(long, value_name = "FILE", global = true)]
    admin_token_file: Option<PathBuf>,
}

/// The address or socket of an admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Address(SocketAddr),
    Socket(PathBuf),
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) if text.contains('/') => Ok(Self::Socket(text.into())),
            Err(_) => Err(
                "expected an IP address and a port, such as 127.0.0.1:8081 (names of hosts are not \
                 looked up), or the path of a socket"
                    .to_owned(),
            ),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

impl AdminTarget {
    /// Returns the endpoint that was named, or else the socket if there is one.
    fn endpoint(&self) -> Endpoint {
        self.admin.clone().unwrap_or_else(|| {
            let usual = Config::default();
            let directory = state_directory_environment().or(usual.state.directory);
            let socket = directory.map(|directory| directory.join(SOCKET));
            match socket.filter(|socket| socket.exists()) {
                Some(socket) => Endpoint::Socket(socket),
                None => Endpoint::Address(usual.admin.listen),
            }
        })
    }

    /// Returns the value of `Authorization`, if there is a token.
    fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let secret = match &self.admin_token_file {
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                format!("cannot read the admin token in {}: {error}", path.display())
            })?),
            None => admin_token_environment().map(OsString::into_encoded_bytes),
        };
        let field = secret.map(|secret| {
            let value = [b"Bearer ", secret.trim_ascii_end()].concat();
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| "the admin token has characters that cannot be sent".to_owned())?;
            value.set_sensitive(true);
            Ok(value)
        });
        field.transpose()
    }
}

/// Runs what asks a gateway.
pub(super) fn run(act: impl Future<Output = Result<(), String>>) -> Result<(), Failure> {
    let runtime = process::runtime(&mut Builder::new_current_thread())?;
    Ok(runtime.block_on(act)?)
}

/// Encodes an argument as one segment of a path or one value of a query.
pub(super) fn encoded(argument: &str) -> String {
    utf8_percent_encode(argument, RESERVED).to_string()
}

/// Sends a request to the gateway. A rejection is an error in the gateway's own words. The values
/// of the parameters are encoded here; an argument in the path is encoded by its caller.
pub(super) async fn ask(
    listener: &AdminTarget,
    method: Method,
    path: &str,
    parameters: &[(&'static str, String)],
    token: Option<HeaderValue>,
) -> Result<Value, String> {
    let admin = listener.endpoint();
    // Only a rebind has a token, and it may move many writes.
    let patience = if token.is_some() {
        LONG_PATIENCE
    } else {
        PATIENCE
    };
    let query: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    let host = match &admin {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Socket(_) => "localhost".to_owned(),
    };
    let target = format!("{path}?{}", query.join("&"));
    let mut request = Request::builder()
        .method(method)
        .uri(target.trim_end_matches('?'))
        .header("host", host)
        .header("x-gateway-admin", "1")
        .body(Empty::<Bytes>::new())
        .map_err(|_| "an argument is too long to be sent".to_owned())?;
    if let Some(own) = listener.authorization()? {
        request.headers_mut().insert(AUTHORIZATION, own);
    }
    if let Some(token) = token {
        request.headers_mut().insert(NEW_AUTHORIZATION, token);
    }
    let answered = timeout(patience, exchange(&admin, request)).await;
    let (is_success, body) = answered
        .map_err(|_| format!("{admin} does not answer"))?
        .map_err(|why| {
            format!("cannot ask the gateway at {admin}: {why}; is it running, is this --admin?")
        })?;
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    if is_success {
        return Ok(document);
    }
    let message = document["message"].as_str().map(str::to_owned);
    Err(message.unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned()))
}

async fn exchange(
    admin: &Endpoint,
    request: Request<Empty<Bytes>>,
) -> Result<(bool, Bytes), Box<dyn std::error::Error>> {
    match admin {
        Endpoint::Address(address) => over(TcpStream::connect(address).await?, request).await,
        #[cfg(unix)]
        Endpoint::Socket(path) => over(tokio::net::UnixStream::connect(path).await?, request).await,
        #[cfg(not(unix))]
        Endpoint::Socket(_) => Err("there are no such sockets on this system".into()),
    }
}

async fn over<I>(
    stream: I,
    request: Request<Empty<Bytes>>,
) -> Result<(bool, Bytes), Box<dyn std::error::Error>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tasks::detached(connection);
    let answer = sender.send_request(request).await?;
    let is_success = answer.status().is_success();
    Ok((is_success, answer.into_body().collect().await?.to_bytes()))
}
