//! The load: connections with one request each under way, by a single thread that costs less than
//! any server, so that the server's core is the one that is full.
//!
//! The thread goes round: it reads and checks the answer of one connection, sends its next request
//! and turns to the next. The server answers in the order in which it was asked, so the answer that
//! is waited for is the next to come, and the server always has all other requests to go on
//! with. There is nothing to poll and nothing to parse: the body is known, and so is where the
//! answer ends.
//!
//! It never sleeps: where an answer is not there yet it looks again. Waking a thread on another
//! core is the work of whoever sends, so a slow server would be charged for the rest that the load
//! has from it, and a fast one would not.
//!
//! Latencies are those of a full server: about the time of one request times the connections.

use crate::Failure;
use crate::machine::Usage;
use segment_gateway::clock::Clock;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
/// What an SDK says that it understands.
pub(crate) const GZIP: &str = "accept-encoding: gzip, deflate\r\n";
const HIT: &[u8] = b"\r\ncache-status: segment-gateway; hit; ";
const HEAD_END: &[u8] = b"\r\n\r\n";
/// No answer takes nearly as long: some ten seconds.
const MOST_LOOKS: u32 = 20_000_000;
const LARGEST_ANSWER: usize = 16 * 1024;

/// What is asked over and over, and what is answered.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) request: Vec<u8>,
    /// How every answer begins.
    pub(crate) status: &'static [u8],
    /// How every answer ends.
    pub(crate) body: Vec<u8>,
}

/// What an SDK sends, with these fields besides, each with the end of its line.
pub(crate) fn request(path: &str, fields: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\n\
         host: 127.0.0.1:8080\r\n\
         user-agent: segment-gateway-bench/1\r\n\
         accept: application/vnd.segment.v1+json, application/json\r\n\
         {fields}\
         authorization: Bearer sgp_0123456789abcdef0123456789abcdef0123456789abcdef\r\n\
         connection: keep-alive\r\n\r\n"
    )
    .into_bytes()
}

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

    fn answers(&self) -> f64 {
        self.latencies.len() as f64
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.answers() / self.lasted.as_secs_f64()
    }

    /// As if the server had had its core to itself; 0 where the system does not tell.
    pub(crate) fn per_core_second(&self) -> f64 {
        self.server
            .map_or(0.0, |usage| self.answers() / usage.ran.as_secs_f64())
    }

    /// The latency that this share (in percent) of the requests did not exceed.
    pub(crate) fn latency(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() * percent / 100).min(last);
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

/// Why the figures may not be what they should be.
pub(crate) fn doubts<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<String> {
    let (mut idle, mut disturbed) = (0, 0);
    for run in runs {
        let Some(usage) = run.server else {
            continue;
        };
        let share = |part: Duration| part.as_secs_f64() / run.lasted.as_secs_f64();
        idle += usize::from(share(usage.ran + usage.waited) < 0.97);
        disturbed += usize::from(share(usage.waited) > 0.03);
    }
    let mut doubts = Vec::new();
    if idle > 0 {
        doubts.push(format!(
            "WARNING: in {idle} runs the server was idle for a part of the time, because the load \
             or the machine below did not keep up: the ratio per second flatters the slower one"
        ));
    }
    if disturbed > 0 {
        doubts.push(format!(
            "WARNING: in {disturbed} runs something else used the server's core: trust the figures \
             per second of its core rather than those per second"
        ));
    }
    doubts
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
    request: Vec<u8>,
    reader: Reader,
}

/// Whether an answer has to come from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Hit,
    Anything,
}

impl Load {
    pub(crate) fn connect(
        server: SocketAddr,
        connections: usize,
        question: Question,
    ) -> Result<Self, Failure> {
        let clock = Clock::system();
        let sent = clock.now();
        let connect = |_| connect(server).map(|stream| Connection { stream, sent });
        Ok(Self {
            connections: (0..connections).map(connect).collect::<Result<_, _>>()?,
            reader: Reader::new(question.status, question.body),
            request: question.request,
            clock,
        })
    }

    /// Asks once, so that there is something to hit.
    pub(crate) fn fetch(&mut self) -> Result<(), Failure> {
        let connection = self.connections.first_mut().ok_or("no connections")?;
        connection.stream.write_all(&self.request)?;
        self.reader.read(&mut connection.stream, Expect::Anything)
    }

    /// Keeps the server busy for this long.
    pub(crate) fn run(&mut self, lasting: Duration, server: u32) -> Result<Run, Failure> {
        // Room for more than there will be, so that nothing is moved while it is measured.
        let room = (lasting.as_secs_f64() * 400_000.0) as usize;
        let mut latencies = Vec::with_capacity(room);
        let clock = &self.clock;
        for connection in &mut self.connections {
            connection.send(&self.request, clock.now())?;
        }
        let us = std::process::id();
        let before = (Usage::of(server), Usage::of(us));
        let start = clock.now();
        let lasted = loop {
            for connection in &mut self.connections {
                self.reader.read(&mut connection.stream, Expect::Hit)?;
                let now = clock.now();
                latencies.push(now - connection.sent);
                connection.send(&self.request, now)?;
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
    fn send(&mut self, request: &[u8], now: Instant) -> std::io::Result<()> {
        self.sent = now;
        self.stream.write_all(request)
    }
}

/// A connection that says at once when nothing is there.
pub(crate) fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Reads and checks answers.
pub(crate) struct Reader {
    buffer: Box<[u8]>,
    /// Of the last answer.
    length: usize,
    status: &'static [u8],
    body: Vec<u8>,
    /// Where the last answer said that it was a hit.
    hit_at: usize,
}

impl Reader {
    /// Every answer has to begin and to end so.
    pub(crate) fn new(status: &'static [u8], body: Vec<u8>) -> Self {
        Self {
            buffer: vec![0; LARGEST_ANSWER].into(),
            length: 0,
            status,
            body,
            hit_at: 0,
        }
    }

    /// The last answer.
    pub(crate) fn last(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    pub(crate) fn read(&mut self, stream: &mut TcpStream, expect: Expect) -> Result<(), Failure> {
        self.length = 0;
        let mut looks = 0_u32;
        while !self.is_complete() {
            let room = &mut self.buffer[self.length..];
            match stream.read(room) {
                Ok(0) => return Err(self.complain("response ended early")),
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
        if !self.last().starts_with(self.status) {
            return Err(self.complain("another status than it should be"));
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
