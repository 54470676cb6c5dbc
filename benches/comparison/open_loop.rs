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

/// The requests of one slice.
struct Slice {
    start: Instant,
    interval: Duration,
    count: u32,
    sent: u32,
    latencies: Vec<Duration>,
    /// When the last answer came.
    ended: Duration,
}

impl Slice {
    fn new(clock: &Clock, interval: Duration) -> Self {
        let count = (SLICE.as_secs_f64() / interval.as_secs_f64()) as u32;
        Self {
            start: clock.now(),
            interval,
            count,
            sent: 0,
            latencies: Vec::with_capacity(count as usize),
            ended: Duration::ZERO,
        }
    }
}

/// What one look at a load came to.
enum Step {
    Received,
    Waiting,
    /// All answers of the slice have come.
    Over,
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
        let slice = Slice::new(&self.clock, interval);
        self.run_beside(slice, None)
    }

    /// Runs a slice while another load has one of its own.
    pub(crate) fn run_while(
        &mut self,
        interval: Duration,
        (other, its_interval): (&mut Self, Duration),
    ) -> Result<Run, Failure> {
        let slices = [interval, its_interval].map(|interval| Slice::new(&self.clock, interval));
        let [own, its] = slices;
        self.run_beside(own, Some((other, its)))
    }

    fn run_beside(
        &mut self,
        mut slice: Slice,
        mut beside: Option<(&mut Self, Slice)>,
    ) -> Result<Run, Failure> {
        let meter = Meter::start(self.server);
        loop {
            let own = self.step(&mut slice)?;
            let its = match &mut beside {
                Some((other, slice)) => other.step(slice)?,
                None => Step::Over,
            };
            match (own, its) {
                (Step::Over, Step::Over) => break,
                (Step::Received, _) | (_, Step::Received) => {}
                // The upstream runs on this core.
                _ => std::thread::yield_now(),
            }
        }
        let whole = slice.interval * slice.count;
        Ok(meter.stop(slice.ended.max(whole), slice.latencies))
    }

    /// Sends what is due, and reads what has come.
    fn step(&mut self, slice: &mut Slice) -> Result<Step, Failure> {
        let lasted = self.clock.now() - slice.start;
        if lasted > PATIENCE {
            return Err("answers are missing".into());
        }
        let sends = slice.sent < slice.count && lasted < SENT_WITHIN;
        if !sends && self.busy.is_empty() {
            return Ok(Step::Over);
        }
        while sends && slice.sent < slice.count && slice.interval * slice.sent <= lasted {
            let Some(mut stream) = self.idle.pop() else {
                break;
            };
            stream.write_all(&self.question.request)?;
            let due = slice.start + slice.interval * slice.sent;
            self.busy.push((due, stream));
            slice.sent += 1;
        }
        if !self.receive(&mut slice.latencies)? {
            return Ok(Step::Waiting);
        }
        slice.ended = self.clock.now() - slice.start;
        Ok(Step::Received)
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
