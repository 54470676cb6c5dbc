//! What the tests of the client share: an upstream at the other end of a stream in memory, whose
//! every byte the test writes itself.

mod aging;
mod bodies;
mod heads;
mod http2;
mod race;
mod sockets;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::clock::Clock;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn spec(base: &str) -> ClientSpec {
    ClientSpec {
        destination: Destination::Api,
        base: Base::parse(base).unwrap(),
        ca_file: None,
        connect: Duration::from_secs(5),
        head: Duration::from_secs(30),
        idle_body: Duration::from_secs(30),
        total: Duration::from_secs(120),
        connection_lifetime: Duration::from_secs(300),
        connection_idle: Duration::from_secs(50),
        late_arrival: Duration::from_secs(60),
        http2: true,
        proxy: ProxyRules::none(),
        via: HeaderValue::from_static("1.1 segment-gateway"),
    }
}

/// The upstream's ends of the connections that the client opened.
struct Far(mpsc::UnboundedReceiver<DuplexStream>);

fn memory() -> (MemoryConnector, Far) {
    let (give, take) = mpsc::unbounded_channel();
    let connector = MemoryConnector::new(move || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let given = give.send(far);
        async move { given.map(|()| near).map_err(std::io::Error::other) }
    });
    (connector, Far(take))
}

fn plain() -> (Client, Far) {
    plain_with(|_| {})
}

fn plain_with(change: impl FnOnce(&mut ClientSpec)) -> (Client, Far) {
    let (connector, far) = memory();
    let mut spec = spec("http://api.test");
    change(&mut spec);
    (Client::over(connector, spec, Clock::system()), far)
}

impl Far {
    async fn accept(&mut self) -> DuplexStream {
        self.0.recv().await.unwrap()
    }

    /// How many connections were opened that nobody accepted yet.
    fn waiting(&self) -> usize {
        self.0.len()
    }
}

/// Reads one request head; `None` when the stream ended before its first byte.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => return None,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Accepts one connection, reads one request and writes `answer`, keeping the connection.
async fn serve_one(far: &mut Far, answer: &str) -> (String, DuplexStream) {
    let mut stream = far.accept().await;
    let head = read_head(&mut stream).await.unwrap();
    stream.write_all(answer.as_bytes()).await.unwrap();
    (head, stream)
}

fn get(path: &str) -> Request<Bytes> {
    Request::builder().uri(path).body(Bytes::new()).unwrap()
}

fn answered(attempt: Attempt) -> Response<AnswerBody> {
    match attempt {
        Attempt::Answered(response) => response,
        other => panic!("expected an answer, not {other:?}"),
    }
}

fn not_sent(attempt: Attempt) -> NotSent {
    match attempt {
        Attempt::NotSent(reason) => reason,
        other => panic!("expected not sent, not {other:?}"),
    }
}

fn unknown(attempt: Attempt) -> Unknown {
    match attempt {
        Attempt::Unknown(reason) => reason,
        other => panic!("expected unknown, not {other:?}"),
    }
}

async fn text(response: Response<AnswerBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test measures the paused clock"
)]
fn now() -> Instant {
    Instant::now()
}
