//! The API behind the gateway, as small as it can be: an answer for each path, requests counted.
//!
//! It is hardly ever asked while anything is measured, so it may share the load's core.

use super::Failure;
use segment_gateway::clock::Clock;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the API says.
pub(crate) struct Answer {
    /// Fields besides the usual ones, each with the end of its line.
    pub(crate) fields: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// With nothing but the usual fields.
    pub(crate) fn plain(body: Vec<u8>) -> Self {
        Self { fields: "", body }
    }
}

/// Answers until the process ends.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Box<dyn Fn(&str) -> Answer + Send + Sync>,
    asked: AtomicU64,
}

impl Upstream {
    /// Listens on a free port. Whoever asks for a path gets the answer to it, when it is made.
    pub(crate) fn start(
        answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            asked: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&of_thread);
                // A connection that breaks is the gateway's to report.
                std::thread::spawn(move || drop(shared.answer(&stream)));
            }
        });
        Ok(Self { address, shared })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Answers one connection until it is closed.
    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let mut first = None;
        while let Some(line) = lines.next().transpose()? {
            // The empty line that ends the head of a GET ends the request.
            if !line.is_empty() {
                first.get_or_insert(line);
                continue;
            }
            self.asked.fetch_add(1, Ordering::AcqRel);
            let first = first.take().unwrap_or_default();
            let path = first.split(' ').nth(1).unwrap_or_default();
            let Answer { fields, body } = (self.answer)(path);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.segment.v1+json\r\n\
                 x-ratelimit-consumed: 1\r\nx-ratelimit-remaining: 199\r\n\
                 x-ratelimit-reset: {date}\r\ndate: {date}\r\n{fields}content-length: {}\r\n\r\n",
                body.len(),
                date = httpdate::fmt_http_date(Clock::system().wall()),
            );
            let mut stream = stream;
            stream.write_all(&[head.as_bytes(), &body].concat())?;
        }
        Ok(())
    }
}

/// A user in the API's form, with as many permissions as it takes to reach the length.
pub(crate) fn user(bytes: usize) -> Vec<u8> {
    let start = r#"{"data":{"user":{"id":"user-00001","name":"A. User","email":"user@example.com","permissions":["#;
    let permission =
        r#"{"roleId":"source-admin","resources":[{"id":"0000","type":"SOURCE","labels":[]}]},"#;
    let end = r#"]}}}"#;
    let room = bytes.saturating_sub(start.len() + end.len());
    let mut text = start.to_owned();
    text.push_str(&permission.repeat(room / permission.len()));
    text.truncate(text.trim_end_matches(',').len());
    // The rest is white space, which JSON allows.
    let filler = bytes.saturating_sub(text.len() + end.len());
    text.push_str(&" ".repeat(filler));
    text.push_str(end);
    text.into_bytes()
}
