//! Requests to a running gateway, on its admin listener or through the socket in its state
//! directory.
//!
//! The gateway is found by `--admin`, by its configuration with `--config`, or where a gateway with
//! the defaults would be. The socket comes first. It needs no token, because only the
//! user of the gateway can open it.
//!
//! Each command makes one request per connection, without retries: a command may change something,
//! and the operator decides whether to repeat it. A rejection is shown in the gateway's own words.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

use super::output::Failure;
use super::process;
use crate::config::{self, Config, admin_token_environment, state_directory_environment};
use crate::state::SOCKET;
use crate::tasks;
use crate::upstream;
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The longest time for a connection and its whole response.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest time for a request that moves many writes. The journal records them in groups and
/// syncs each group.
const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// The characters to encode: all but the unreserved ones (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The variable with the admin token.
const ADMIN_TOKEN: &str = "SEGMENT_GATEWAY_ADMIN_TOKEN";

/// The header with the token to which a credential's writes are given.
const NEW_AUTHORIZATION: HeaderName = HeaderName::from_static("x-gateway-new-authorization");

/// The gateway to ask.
#[derive(Args, Debug)]
pub(super) struct AdminTarget {
    /// Admin listener: an address, https:// with a host and a port if it has TLS, or the path of
    /// the socket admin.sock in the state directory.
    /// [default: that socket, in the state directory of --config, or that the environment variable
    /// SEGMENT_GATEWAY__STATE__DIRECTORY names, or in segment-gateway-state, if it exists; else
    /// admin.listen of --config, or 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", value_parser = Endpoint::parse, global = true)]
    admin: Option<Endpoint>,
    /// Configuration file of the gateway, from which its admin listener is known. Environment
    /// variables SEGMENT_GATEWAY__SECTION__KEY override it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// File with the admin token. Without it the environment variable SEGMENT_GATEWAY_ADMIN_TOKEN
    /// is used.
    #[arg(long, value_name = "FILE", global = true)]
    admin_token_file: Option<PathBuf>,
    /// File with certificates (PEM) to trust besides the public authorities, for https://.
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
}

/// The address or socket of an admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    /// A TCP listener. The connection is not encrypted, so a token should not leave the machine.
    Address(SocketAddr),
    /// A TCP listener with TLS, by the name or address that its certificate has.
    Secure(Authority),
    /// A Unix socket, `admin.sock` in a state directory.
    Socket(PathBuf),
}

impl Endpoint {
    /// Reads an address, or a path, which must contain a slash: `./admin.sock` and not
    /// `admin.sock`. Otherwise a mistyped address would be taken for a file.
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("https://") {
            let authority: Option<Authority> = rest.trim_end_matches('/').parse().ok();
            let authority = authority.filter(|authority| {
                authority.port_u16().is_some() && !authority.as_str().contains('@')
            });
            return authority.map(Self::Secure).ok_or_else(|| {
                "expected a host and a port, such as https://gateway.example.com:8081".to_owned()
            });
        }
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
            Self::Secure(authority) => write!(f, "https://{authority}"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

impl AdminTarget {
    /// Returns the endpoint that was named, or else the socket if there is one.
    ///
    /// # Errors
    /// If the configuration that was named cannot be used.
    fn endpoint(&self) -> Result<Endpoint, String> {
        if let Some(admin) = &self.admin {
            return Ok(admin.clone());
        }
        let config = match &self.config {
            Some(file) => configuration(file)?,
            // No file is read unasked: the command may run where it cannot be read.
            None => {
                let mut usual = Config::default();
                usual.state.directory = state_directory_environment().or(usual.state.directory);
                usual
            }
        };
        let directory = config.state.directory;
        let socket = directory.map(|directory| directory.join(SOCKET));
        // A socket that a killed gateway left is found as well. The request then fails and names
        // it.
        if let Some(socket) = socket.filter(|socket| socket.exists()) {
            return Ok(Endpoint::Socket(socket));
        }
        // A listener on every address is asked on this machine.
        let mut listen = config.admin.listen;
        if listen.ip().is_unspecified() {
            listen.set_ip(match listen {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        match config.admin.tls.certificate_file {
            Some(_) => Endpoint::parse(&format!("https://{listen}")),
            None => Ok(Endpoint::Address(listen)),
        }
    }

    /// Returns the value of `Authorization`, if there is a token. A file that was named goes before
    /// the environment, even if it cannot be read: that is an error.
    fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let secret = match &self.admin_token_file {
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                format!(
                    "--admin-token-file {}: cannot be read: {error}",
                    path.display()
                )
            })?),
            None => admin_token_environment().map(OsString::into_encoded_bytes),
        };
        let field = secret.map(|secret| {
            let secret = secret.trim_ascii();
            if secret.is_empty() {
                return Err(match &self.admin_token_file {
                    Some(path) => format!("--admin-token-file {}: it is empty", path.display()),
                    None => {
                        format!("{ADMIN_TOKEN} is set and empty; unset it, or set the admin token")
                    }
                });
            }
            let value = [b"Bearer ", secret].concat();
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| "the admin token has characters that cannot be sent".to_owned())?;
            // `Debug` shows `Sensitive` in place of the token.
            value.set_sensitive(true);
            Ok(value)
        });
        field.transpose()
    }

    /// Returns the message about a token that is missing or wrong, with the flag and the variable
    /// that give one.
    fn unauthorized(&self, admin: &Endpoint) -> String {
        let given = match &self.admin_token_file {
            Some(path) => format!("--admin-token-file {}", path.display()),
            None if admin_token_environment().is_some() => ADMIN_TOKEN.to_owned(),
            None => {
                return format!(
                    "this needs the admin token; name its file with --admin-token-file, or set {ADMIN_TOKEN}"
                );
            }
        };
        format!("{given}: this is not the admin token of the gateway at {admin}")
    }

    /// Returns the flags that find this gateway again.
    pub(super) fn arguments(&self) -> Vec<String> {
        let admin = self.admin.as_ref().map(ToString::to_string);
        let file = self.admin_token_file.as_ref();
        let file = file.map(|file| file.display().to_string());
        let config = self.config.as_ref();
        let config = config.map(|config| config.display().to_string());
        let flags = [
            ("--admin", admin),
            ("--config", config),
            ("--admin-token-file", file),
        ]
        .into_iter();
        let flags = flags.filter_map(|(flag, value)| Some([flag.to_owned(), value?]));
        flags.flatten().collect()
    }
}

/// Loads the configuration of the gateway to ask.
///
/// # Errors
/// Every mistake in it. Such a gateway can still be found by `--admin`.
fn configuration(file: &Path) -> Result<Config, String> {
    let loaded = config::load(Some(file), config::environment());
    let loaded = loaded.map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        format!(
            "{}; name the admin listener with --admin",
            problems.join("; ")
        )
    })?;
    Ok(loaded.config)
}

/// Runs what asks a gateway, on a runtime of one thread: there is one request at a time.
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
///
/// # Errors
/// A sentence for the operator: the gateway cannot be reached, does not answer in time, or rejects
/// the request.
pub(super) async fn ask(
    listener: &AdminTarget,
    method: Method,
    path: &str,
    parameters: &[(&'static str, String)],
    token: Option<HeaderValue>,
) -> Result<Value, String> {
    let admin = listener.endpoint()?;
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
    // The listener knows IP addresses and `localhost` as its own names.
    let host = match &admin {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Secure(authority) => authority.to_string(),
        Endpoint::Socket(_) => "localhost".to_owned(),
    };
    let target = format!("{path}?{}", query.join("&"));
    let mut request = Request::builder()
        .method(method)
        .uri(target.trim_end_matches('?'))
        .header("host", host)
        // Sent with reads as well, where it changes nothing.
        .header("x-gateway-admin", "1")
        .body(Empty::<Bytes>::new())
        .map_err(|_| "an argument is too long to be sent".to_owned())?;
    if let Some(own) = listener.authorization()? {
        request.headers_mut().insert(AUTHORIZATION, own);
    }
    if let Some(token) = token {
        request.headers_mut().insert(NEW_AUTHORIZATION, token);
    }
    // The limit includes connecting, which may hang if a firewall drops packets.
    // A wrong file of certificates is reported like a gateway that cannot be reached.
    let asked = exchange(&admin, listener.ca_file.as_deref(), request);
    let (status, body) = timeout(patience, asked)
        .await
        .map_err(|_| format!("{admin} does not answer"))?
        .map_err(|why| {
            format!(
                "cannot ask the gateway at {admin}: {why}; is it running, and is --admin right?"
            )
        })?;
    // Null if the body is not JSON, as in a rejection by the listener or by a proxy on the way.
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() {
        return Ok(document);
    }
    // The listener says in the words of HTTP how to send the token. Wrong ones soon after another
    // get 429 from it, without a document.
    let is_paused = status == StatusCode::TOO_MANY_REQUESTS && document.is_null();
    if status == StatusCode::UNAUTHORIZED || is_paused {
        return Err(listener.unauthorized(&admin));
    }
    // A rejected command is answered with a message in JSON. Anything else is shown as it is.
    let message = document["message"].as_str().map(str::to_owned);
    Err(message.unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned()))
}

/// Connects and makes the request. Returns the status and the body.
async fn exchange(
    admin: &Endpoint,
    ca_file: Option<&Path>,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error>> {
    match admin {
        Endpoint::Address(address) => over(TcpStream::connect(address).await?, request).await,
        Endpoint::Secure(authority) => {
            // The same trust as towards the API: the public authorities, and those of the file.
            // Certificates are always verified; a token must not go to anybody else.
            let settings = upstream::client_tls(ca_file)?;
            // Brackets belong to an IPv6 address in a URL alone (RFC 3986, section 3.2.2).
            let host = authority.host().trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned())?;
            let port = authority.port_u16().unwrap_or_default();
            let stream = TcpStream::connect((host, port)).await?;
            let stream = TlsConnector::from(settings).connect(name, stream).await?;
            over(stream, request).await
        }
        #[cfg(unix)]
        Endpoint::Socket(path) => over(tokio::net::UnixStream::connect(path).await?, request).await,
        #[cfg(not(unix))]
        Endpoint::Socket(_) => Err("there are no such sockets on this system".into()),
    }
}

/// Makes one request on a new connection.
async fn over<I>(
    stream: I,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Drives the connection until it closes. The runtime ends with the command and drops it.
    tasks::detached(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}
