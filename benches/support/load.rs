//! The load: connections with one request each in flight, by a single thread that costs less than
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
//! has from it, and a fast one would not. An upstream that has to answer runs on the load's core;
//! then the load yields to it before it looks again.
//!
//! Latencies are those of a full server: about the time of one request times the connections.

use super::Failure;
use super::machine::Usage;
use super::servers::Server;
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

/// How long each has its turn: much longer than it takes to get going again, much shorter than the
/// machine keeps one speed.
pub(crate) const SLICE: Duration = Duration::from_millis(200);

/// What is asked over and over, and what is answered.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) request: Vec<u8>,
    /// How every answer begins.
    pub(crate) status: &'static [u8],
    /// How every answer ends.
    pub(crate) body: Vec<u8>,
    pub(crate) expect: Expect,
}

/// A token as the API makes them.
const TOKEN: &str = "sgp_0123456789abcdef0123456789abcdef0123456789abcdef";

/// A request as an SDK sends it, with these fields besides, each with the end of its line.
pub(crate) fn request(method: &str, path: &str, fields: &str) -> Vec<u8> {
    request_of(TOKEN, method, path, fields)
}

/// The same request with this token or key.
pub(crate) fn request_of(token: &str, method: &str, path: &str, fields: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\n\
         host: 127.0.0.1:8080\r\n\
         user-agent: segment-gateway-bench/1\r\n\
         accept: application/vnd.segment.v1+json, application/json\r\n\
         {fields}\
         authorization: Bearer {token}\r\n\
         connection: keep-alive\r\n\r\n"
    )
    .into_bytes()
}

/// What a run showed, or a slice of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) lasted: Duration,
    /// Times from a request to the end of its answer.
    pub(crate) latencies: Vec<Duration>,
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

    /// The processor time that the server took for an answer, in microseconds. Where the system
    /// does not tell, the time that passed: as if the server had been busy all the time.
    pub(crate) fn micros_of_core(&self) -> f64 {
        let ran = self.server.map_or(self.lasted, |usage| usage.ran);
        ran.as_secs_f64() * 1e6 / self.answers()
    }

    /// [`Self::latency`] in microseconds.
    pub(crate) fn micros(&self, percent: usize) -> f64 {
        self.latency(percent).as_secs_f64() * 1e6
    }

    /// The latency that this share (in percent) of the requests did not exceed.
    fn latency(&self, percent: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = sorted.len() * percent / 100;
        sorted
            .get(at)
            .or(sorted.last())
            .copied()
            .unwrap_or_default()
    }
}

/// Measures so many in turn, by slices, until each has lasted long enough. A virtual machine
/// changes its speed by a third from one second to the next: so all have their share of the good
/// times and the bad. The first turn is another one's in each round.
pub(crate) fn interleave(
    round: usize,
    count: usize,
    lasting: Duration,
    mut slice: impl FnMut(usize) -> Result<Run, Failure>,
) -> Result<Vec<Run>, Failure> {
    let mut runs: Vec<Run> = (0..count).map(|_| Run::default()).collect();
    let mut turn = round;
    while runs.iter().any(|run| run.lasted < lasting) {
        for at in 0..count {
            let at = (turn + at) % count;
            runs[at].add(slice(at)?);
        }
        turn += 1;
    }
    Ok(runs)
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
    expect: Expect,
    reader: Reader,
    server: u32,
}

/// Where an answer has to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The store.
    Hit,
    /// Anywhere, also the upstream, which may run on the load's core.
    Anything,
}

impl Load {
    pub(crate) fn connect(
        server: &Server,
        connections: usize,
        question: Question,
    ) -> Result<Self, Failure> {
        let clock = Clock::system();
        let sent = clock.now();
        let connect = |_| connect(server.address).map(|stream| Connection { stream, sent });
        Ok(Self {
            connections: (0..connections).map(connect).collect::<Result<_, _>>()?,
            reader: Reader::new(question.status, question.body),
            request: question.request,
            expect: question.expect,
            server: server.id(),
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
    pub(crate) fn run(&mut self, lasting: Duration) -> Result<Run, Failure> {
        // Room for more than there will be, so that nothing is moved while it is measured.
        let room = (lasting.as_secs_f64() * 400_000.0) as usize;
        let mut latencies = Vec::with_capacity(room);
        let clock = &self.clock;
        for connection in &mut self.connections {
            connection.send(&self.request, clock.now())?;
        }
        let meter = Meter::start(self.server);
        let start = clock.now();
        let lasted = loop {
            for connection in &mut self.connections {
                self.reader.read(&mut connection.stream, self.expect)?;
                let now = clock.now();
                latencies.push(now - connection.sent);
                connection.send(&self.request, now)?;
            }
            let lasted = clock.now() - start;
            if lasted >= lasting {
                break lasted;
            }
        };
        let run = meter.stop(lasted, latencies);
        // What is still in flight does not count, but has to be as good as the rest.
        for connection in &mut self.connections {
            self.reader.read(&mut connection.stream, self.expect)?;
        }
        Ok(Run {
            sample: self.reader.last().to_vec(),
            ..run
        })
    }
}

/// What a server and the load have used until it starts.
pub(crate) struct Meter {
    process: u32,
    server: Option<Usage>,
    load: Option<Usage>,
}

impl Meter {
    pub(crate) fn start(process: u32) -> Self {
        Self {
            process,
            server: Usage::of(process),
            load: Usage::of(std::process::id()),
        }
    }

    /// Returns the run that has taken place since the start.
    pub(crate) fn stop(&self, lasted: Duration, latencies: Vec<Duration>) -> Run {
        let used = |id: u32, before: Option<Usage>| Some(Usage::of(id)?.since(before?));
        Run {
            lasted,
            latencies,
            server: used(self.process, self.server),
            load: used(std::process::id(), self.load),
            sample: Vec::new(),
        }
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

    /// Reads one answer.
    pub(crate) fn read(&mut self, stream: &mut TcpStream, expect: Expect) -> Result<(), Failure> {
        let mut looks = 0_u32;
        while !self.read_if_there(stream, expect)? {
            looks += 1;
            if looks > MOST_LOOKS {
                return Err(self.complain("no answer"));
            }
            match expect {
                Expect::Hit => std::hint::spin_loop(),
                Expect::Anything => std::thread::yield_now(),
            }
        }
        Ok(())
    }

    /// Reads one answer, unless nothing of it is there yet: then it returns false. Once a part is
    /// there it waits for the rest, which the server has sent with it.
    pub(crate) fn read_if_there(
        &mut self,
        stream: &mut TcpStream,
        expect: Expect,
    ) -> Result<bool, Failure> {
        self.length = 0;
        let mut looks = 0_u32;
        while !self.is_complete() {
            let room = &mut self.buffer[self.length..];
            match stream.read(room) {
                Ok(0) => return Err(self.complain("response ended early")),
                Ok(read) => self.length += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.length == 0 {
                        return Ok(false);
                    }
                    looks += 1;
                    if looks > MOST_LOOKS {
                        return Err(self.complain("the rest of the answer is missing"));
                    }
                    std::thread::yield_now();
                }
                Err(error) => return Err(error.into()),
            }
            let begun = self.length.min(self.status.len());
            if !self.status.starts_with(&self.buffer[..begun]) {
                return Err(self.complain("another status than it should be"));
            }
        }
        if expect == Expect::Hit && !self.is_hit() {
            return Err(self.complain("not a hit"));
        }
        Ok(true)
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
