//! The bare server: hyper and nothing else, answering every request with what the gateway answers
//! to a hit. It runs in a process of its own: this program, with another command.

use crate::Failure;
use crate::servers::{Server, Servers};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use tokio::net::TcpListener;

/// Makes this program the bare server. A file with the answer follows.
pub(crate) const COMMAND: &str = "bare";

/// Starts it on the servers' core, with this answer to everything.
pub(crate) fn start(servers: &Servers<'_>, answer: &[u8]) -> Result<Server, Failure> {
    let file = servers.folder.join("answer");
    std::fs::write(&file, answer)?;
    let mut command = servers.cores.command(&std::env::current_exe()?);
    command
        .arg(COMMAND)
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut server = Server {
        child: command.spawn()?,
        address: (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let output = server.child.stdout.take().ok_or("it has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    server.address = line
        .trim()
        .parse()
        .map_err(|_| format!("the bare server said {line:?} instead of its address"))?;
    Ok(server)
}

/// Serves until it is killed. Its address is the first line of its output.
pub(crate) fn main(answer: Option<&Path>) -> Result<(), Failure> {
    let answer = std::fs::read(answer.ok_or("a file with the answer is expected")?)?;
    let (headers, body) = parse(&answer).ok_or("the answer is malformed")?;
    // The gateway's runtime, and its way to serve: a task that accepts, a task per connection.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?);
        tokio::spawn(serve(listener, headers, body)).await?;
        Ok(())
    })
}

async fn serve(listener: TcpListener, headers: HeaderMap, body: Bytes) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        // Without it, an answer could be held back for 40 ms.
        let _ = stream.set_nodelay(true);
        let (headers, body) = (headers.clone(), body.clone());
        drop(tokio::spawn(async move {
            let handle = service_fn(move |_: Request<Incoming>| {
                let mut response = Response::new(Full::new(body.clone()));
                response.headers_mut().clone_from(&headers);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), handle);
            // A connection that breaks is the load's to report.
            let _ = connection.await;
        }));
    }
}

/// The fields and the body of an answer as it was on the wire. hyper adds the length by itself;
/// `Date` is among the gateway's own fields, because it is the stored answer's.
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
