//! Requests that are sent at fixed instants, however long the answers take. A latency is counted
//! from the instant at which the request was due: what a server delays is not forgiven by sending
//! later.

use super::load::{self, Meter, Question, Reader, Run};
use super::servers::Server;
use super::{CONNECTIONS, Failure};
use segment_gateway::clock::Clock;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Long enough for a queue to grow before a server that cannot keep up.
pub(crate) const SLICE: Duration = Duration::from_millis(500);
/// How long the requests of a slice are sent at most, if the server cannot keep up.
const SENT_WITHIN: Duration = Duration::from_secs(1);
/// No server is nearly as late.
const PATIENCE: Duration = Duration::from_secs(10);

/// The connections to one server.
pub(crate) struct OpenLoop {
    clock: Clock,
    idle: Vec<TcpStream>,
    /// Each with the instant at which its request was due.
    busy: Vec<(Instant, TcpStream)>,
    question: Question,
    reader: Reader,
    server: u32,
}

impl OpenLoop {
    pub(crate) fn connect(server: &Server, question: Question) -> Result<Self, Failure> {
        let connect = |_| load::connect(server.address);
        Ok(Self {
            clock: Clock::system(),
            idle: (0..CONNECTIONS).map(connect).collect::<Result<_, _>>()?,
            busy: Vec::with_capacity(CONNECTIONS),
            reader: Reader::new(question.status, question.body.clone()),
            question,
            server: server.id(),
        })
    }

    /// Sends a request at each interval of a slice, or as soon after as a connection is free, and
    /// reads the answers. The run ends with the last answer: its rate is less than that of the
    /// requests if the server cannot keep up.
    pub(crate) fn run(&mut self, interval: Duration) -> Result<Run, Failure> {
        let count = (SLICE.as_secs_f64() / interval.as_secs_f64()) as u32;
        let mut latencies = Vec::with_capacity(count as usize);
        let meter = Meter::start(self.server);
        let start = self.clock.now();
        let mut sent = 0;
        loop {
            let now = self.clock.now();
            if now > start + PATIENCE {
                return Err("answers are missing".into());
            }
            let sends = sent < count && now < start + SENT_WITHIN;
            if !sends && self.busy.is_empty() {
                break;
            }
            while sends && sent < count && start + interval * sent <= now {
                let Some(mut stream) = self.idle.pop() else {
                    break;
                };
                stream.write_all(&self.question.request)?;
                self.busy.push((start + interval * sent, stream));
                sent += 1;
            }
            if !self.receive(&mut latencies)? {
                // The upstream runs on this core.
                std::thread::yield_now();
            }
        }
        let lasted = self.clock.now() - start;
        Ok(meter.stop(lasted.max(interval * count), latencies))
    }

    /// Reads the answers that are there. Returns whether there was any.
    fn receive(&mut self, latencies: &mut Vec<Duration>) -> Result<bool, Failure> {
        let before = latencies.len();
        let mut at = 0;
        while let Some((due, stream)) = self.busy.get_mut(at) {
            if self.reader.read_if_there(stream, self.question.expect)? {
                latencies.push(self.clock.now() - *due);
                let (_, stream) = self.busy.swap_remove(at);
                self.idle.push(stream);
            } else {
                at += 1;
            }
        }
        Ok(latencies.len() > before)
    }
}
