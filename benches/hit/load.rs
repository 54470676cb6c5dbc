//! The load: 64 connections with one request each under way, by a single thread that costs less
//! than any server, so that the server's core is the one that is full.
//!
//! The thread goes round: it reads and checks the answer of one connection, sends its next request
//! and turns to the next. The server answers in the order in which it was asked, so the answer that
//! is waited for is the next to come, and the server always has the other 63 requests to go on
//! with. There is nothing to poll and nothing to parse: the body is known, and so is where the
//! answer ends.
//!
//! It never sleeps: where an answer is not there yet it looks again. Waking a thread on another
//! core is the work of whoever sends, so a slow server would be charged for the rest that the load
//! has from it, and a fast one would not.
//!
//! Latencies are those of a full server: about 64 times the time of one request.

use crate::Failure;
use crate::machine::Usage;
use segment_gateway::clock::Clock;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What an SDK sends.
const REQUEST: &[u8] = b"GET /users/user-00001 HTTP/1.1\r\n\
    host: 127.0.0.1:8080\r\n\
    user-agent: segment-gateway-bench/1\r\n\
    accept: application/vnd.segment.v1+json, application/json\r\n\
    accept-encoding: gzip, deflate\r\n\
    authorization: Bearer sgp_0123456789abcdef0123456789abcdef0123456789abcdef\r\n\
    connection: keep-alive\r\n\r\n";
const STATUS: &[u8] = b"HTTP/1.1 200 OK\r\n";
const HIT: &[u8] = b"\r\ncache-status: segment-gateway; hit; ";
const HEAD_END: &[u8] = b"\r\n\r\n";
/// No answer takes nearly as long: some ten seconds.
const MOST_LOOKS: u32 = 20_000_000;
const LARGEST_ANSWER: usize = 16 * 1024;

/// What a run showed, or a slice of it.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) lasted: Duration,
    /// Times from a request to the end of its answer, sorted.
    latencies: Vec<Duration>,
    /// What the server used, and the load, where the system tells.
    pub(crate) server: Option<Usage>,
    pub(crate) load: Option<Usage>,
    /// The last answer.
    pub(crate) sample: Vec<u8>,
}

impl Run {
    /// Adds what came next.
    pub(crate) fn add(&mut self, next: Self) {
        let first = self.latencies.is_empty();
        self.lasted += next.lasted;
        self.latencies.extend(next.latencies);
        self.latencies.sort();
        self.server = if first {
            next.server
        } else {
            sum(self.server, next.server)
        };
        self.load = if first {
            next.load
        } else {
            sum(self.load, next.load)
        };
        self.sample = next.sample;
    }

    pub(crate) fn answers(&self) -> usize {
        self.latencies.len()
    }

    /// The latency that this share (in percent) of the requests did not exceed.
    pub(crate) fn latency(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() * percent / 100).min(last);
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

fn sum(one: Option<Usage>, other: Option<Usage>) -> Option<Usage> {
    Some(one?.and(other?))
}

struct Connection {
    stream: TcpStream,
    sent: Instant,
}

/// The connections to one server.
pub(crate) struct Load {
    clock: Clock,
    connections: Vec<Connection>,
    reader: Reader,
}

/// Whether an answer has to come from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Hit,
    Anything,
}

impl Load {
    /// Connects; every answer will have to have this body.
    pub(crate) fn connect(
        server: SocketAddr,
        connections: usize,
        body: Vec<u8>,
    ) -> Result<Self, Failure> {
        let clock = Clock::system();
        let connect = |_| -> Result<Connection, Failure> {
            let stream = TcpStream::connect(server)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(Connection {
                stream,
                sent: clock.now(),
            })
        };
        Ok(Self {
            connections: (0..connections).map(connect).collect::<Result<_, _>>()?,
            reader: Reader {
                buffer: vec![0; LARGEST_ANSWER].into(),
                length: 0,
                body,
                hit_at: 0,
            },
            clock,
        })
    }

    /// Asks once, so that there is something to hit.
    pub(crate) fn fetch(&mut self) -> Result<(), Failure> {
        let connection = self.connections.first_mut().ok_or("no connections")?;
        connection.stream.write_all(REQUEST)?;
        self.reader.read(&mut connection.stream, Expect::Anything)
    }

    /// Keeps the server busy for this long.
    pub(crate) fn run(&mut self, lasting: Duration, server: u32) -> Result<Run, Failure> {
        // Room for more than there will be, so that nothing is moved while it is measured.
        let room = (lasting.as_secs_f64() * 400_000.0) as usize;
        let mut latencies = Vec::with_capacity(room);
        let clock = &self.clock;
        for connection in &mut self.connections {
            connection.send(clock.now())?;
        }
        let us = std::process::id();
        let before = (Usage::of(server), Usage::of(us));
        let start = clock.now();
        let lasted = loop {
            for connection in &mut self.connections {
                self.reader.read(&mut connection.stream, Expect::Hit)?;
                let now = clock.now();
                latencies.push(now - connection.sent);
                connection.send(now)?;
            }
            let lasted = clock.now() - start;
            if lasted >= lasting {
                break lasted;
            }
        };
        let used = |id: u32, before: Option<Usage>| Some(Usage::of(id)?.since(before?));
        let (by_server, by_us) = (used(server, before.0), used(us, before.1));
        // What is still under way does not count, but has to be as good as the rest.
        for connection in &mut self.connections {
            self.reader.read(&mut connection.stream, Expect::Hit)?;
        }
        latencies.sort_unstable();
        Ok(Run {
            lasted,
            latencies,
            server: by_server,
            load: by_us,
            sample: self.reader.last().to_vec(),
        })
    }
}

impl Connection {
    fn send(&mut self, now: Instant) -> std::io::Result<()> {
        self.sent = now;
        self.stream.write_all(REQUEST)
    }
}

/// Reads and checks answers.
struct Reader {
    buffer: Box<[u8]>,
    /// Of the last answer.
    length: usize,
    body: Vec<u8>,
    /// Where the last answer said that it was a hit.
    hit_at: usize,
}

impl Reader {
    /// The last answer.
    fn last(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    fn read(&mut self, stream: &mut TcpStream, expect: Expect) -> Result<(), Failure> {
        self.length = 0;
        let mut looks = 0_u32;
        while !self.is_complete() {
            let room = &mut self.buffer[self.length..];
            match stream.read(room) {
                Ok(0) => return Err(self.complain("an answer broke off")),
                Ok(read) => self.length += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    looks += 1;
                    if looks > MOST_LOOKS {
                        return Err(self.complain("no answer"));
                    }
                    std::hint::spin_loop();
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !self.last().starts_with(STATUS) {
            return Err(self.complain("not a 200"));
        }
        if expect == Expect::Hit && !self.is_hit() {
            return Err(self.complain("not a hit"));
        }
        Ok(())
    }

    /// Whether the head and the whole body are there. The body is known, so the head need not be
    /// understood to know its end.
    fn is_complete(&self) -> bool {
        let head = self.last().strip_suffix(&self.body[..]);
        head.is_some_and(|head| head.ends_with(HEAD_END))
    }

    fn is_hit(&mut self) -> bool {
        let answer = &self.buffer[..self.length];
        let there = |at: usize| answer.get(at..).is_some_and(|rest| rest.starts_with(HIT));
        // It nearly always is where it was; elsewhere when a number before it got longer.
        if there(self.hit_at) {
            return true;
        }
        let found = (0..answer.len()).find(|at| there(*at));
        self.hit_at = found.unwrap_or(0);
        found.is_some()
    }

    fn complain(&self, what: &str) -> Failure {
        let answer = String::from_utf8_lossy(self.last());
        format!("{what}; the answer so far:\n{answer}").into()
    }
}
