//! Real sockets: bytes as a test writes them, and whole requests.

use super::Answer;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Much longer than anything takes: what is not there by then will never be.
pub const NEVER: Duration = Duration::from_secs(20);

/// A port that nobody listens on, and that no connection gets as its own end: those have higher ones.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).expect("a small number");
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().expect("an address");
        }
    }
}

/// Connects.
pub async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
}

/// Writes `bytes` and returns what comes back until the other side closes.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address).await;
    // Whoever refuses a request need not read all of it.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

/// What comes until the other side closes.
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut part = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut part).await {
            all.extend_from_slice(&part[..read]);
        }
    };
    timeout(NEVER, reading).await.expect("closed in time");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until `what` has come.
pub async fn read_until(stream: &mut TcpStream, what: &str) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut byte = [0; 1];
        while !all.ends_with(what.as_bytes()) {
            stream.read_exact(&mut byte).await.expect("more bytes");
            all.push(byte[0]);
        }
    };
    timeout(NEVER, reading).await.expect("it comes");
    String::from_utf8_lossy(&all).into_owned()
}

/// Sends a request over a connection of its own, if there can be one.
pub async fn try_ask(address: SocketAddr, request: Request<Full<Bytes>>) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let connection = tokio::spawn(connection);
    let response = timeout(NEVER, sender.send_request(request))
        .await
        .ok()?
        .ok()?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    connection.abort();
    Some(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}

/// As [`try_ask`], where there must be an answer.
pub async fn ask(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    try_ask(address, request).await.expect("an answer")
}

/// Waits until `is` holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let trying = async {
        while !is().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(NEVER, trying)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
