//! A crowd: many readers ask at once for what is not stored.

use crate::load::{self, Expect, GZIP, OK, Reader};
use crate::machine::{Cores, Usage};
use crate::servers::Servers;
use crate::upstream::{self, Answer, Upstream};
use crate::{Failure, grouped, spread};
use parking_lot::Mutex;
use segment_gateway::clock::Clock;
use segment_gateway::server::descriptors;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const READERS: usize = 1_000;
const BODY_BYTES: usize = 2_253;
/// How long the API takes.
const DELAY: Duration = Duration::from_millis(100);
/// No answer takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(10);
const COLLAPSED: &[u8] = b"; collapsed; ";

/// What became of one question.
struct Turn {
    /// When all had their answers.
    ended: Instant,
    /// From the first question to the last answer.
    lasted: Duration,
    /// What the server used, where the system tells.
    used: Option<Usage>,
    /// How many were told that they shared a fetch.
    collapsed: usize,
}

/// What the turns of one kind add up to; times are in milliseconds.
#[derive(Default)]
struct Figures {
    lasted: Vec<f64>,
    /// Since there was something to answer with: since the API's answer, or the first question.
    since: Vec<f64>,
    used: Vec<f64>,
}

pub(crate) fn measure(quick: bool, (cores, gateway): (&Cores, &Path)) -> Result<(), Failure> {
    let turns = if quick { 3 } else { 31 };
    // For the connections here; the gateway sees to its own.
    if let Some(said) = descriptors::make_room(READERS) {
        return Err(said.into());
    }
    let clock = Clock::system();
    let answered = Arc::new(Mutex::new(clock.now()));
    let upstream = Upstream::start({
        let (clock, answered) = (clock.clone(), Arc::clone(&answered));
        move |_| {
            wait();
            *answered.lock() = clock.now();
            Answer::plain(upstream::user(BODY_BYTES))
        }
    })?;
    let servers = Servers {
        cores,
        gateway,
        upstream: upstream.address(),
    };
    let server = servers.gateway(&[])?;
    let mut crowd = Crowd::connect(server.address, server.id(), clock)?;
    let (mut missed, mut hit) = (Figures::default(), Figures::default());
    // The first turn is the warm-up.
    for turn in 0..=turns {
        let request = load::request("GET", &format!("/users/crowd-{turn:05}"), GZIP);
        let before = upstream.asked();
        let miss = crowd.ask(&request, Expect::Anything)?;
        let asked = upstream.asked() - before;
        let since = miss.ended.saturating_duration_since(*answered.lock());
        if (asked, miss.collapsed) != (1, READERS - 1) {
            return Err(format!(
                "the upstream was asked {asked} times, and {} of {READERS} readers shared a fetch",
                miss.collapsed
            )
            .into());
        }
        let again = crowd.ask(&request, Expect::Hit)?;
        if upstream.asked() - before != asked {
            return Err("the upstream was asked while all should have been hits".into());
        }
        if turn > 0 {
            missed.add(&miss, since);
            hit.add(&again, again.lasted);
        }
    }
    println!(
        "\n{} readers at once, {turns} turns: medians (least to most)\n\
         {:<27} {:>8}  {:>26}  {:>26}  {:>8}  {:>20}",
        grouped(READERS),
        "",
        "upstream",
        "ms until all are answered",
        "ms since it could begin",
        "µs each",
        "µs of its core, each",
    );
    missed.print("a miss: one fetch for all", 1);
    hit.print("a hit of the same", 0);
    Ok(())
}

/// The API takes its time.
#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own stands for the API, and nothing else is to be done on it"
)]
fn wait() {
    std::thread::sleep(DELAY);
}

impl Figures {
    fn add(&mut self, turn: &Turn, since: Duration) {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        self.lasted.push(millis(turn.lasted));
        self.since.push(millis(since));
        self.used.extend(turn.used.map(|usage| millis(usage.ran)));
    }

    fn print(self, name: &str, asked: u64) {
        let of_each = |millis: f64| millis * 1e3 / READERS as f64;
        let text =
            |[least, median, most]: [f64; 3]| format!("{median:.1} ({least:.1} to {most:.1})");
        let since = spread(self.since);
        println!(
            "  {name:<25} {asked:>8}  {:>26}  {:>26}  {:>8.1}  {:>20}",
            text(spread(self.lasted)),
            text(since),
            of_each(since[1]),
            text(spread(self.used).map(of_each)),
        );
    }
}

/// The readers, and how they read.
struct Crowd {
    connections: Vec<TcpStream>,
    reader: Reader,
    server: u32,
    clock: Clock,
}

impl Crowd {
    fn connect(address: SocketAddr, server: u32, clock: Clock) -> Result<Self, Failure> {
        let connections = (0..READERS)
            .map(|_| {
                let stream = load::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(stream)
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self {
            connections,
            reader: Reader::new(OK, upstream::user(BODY_BYTES)),
            server,
            clock,
        })
    }

    /// All of them ask this.
    fn ask(&mut self, request: &[u8], expect: Expect) -> Result<Turn, Failure> {
        let before = Usage::of(self.server);
        let began = self.clock.now();
        for connection in &mut self.connections {
            connection.write_all(request)?;
        }
        // Asleep until the first answer is there: the API shares this core.
        if let Some(first) = self.connections.first() {
            first.set_nonblocking(false)?;
            first.peek(&mut [0])?;
            first.set_nonblocking(true)?;
        }
        let mut collapsed = 0;
        for connection in &mut self.connections {
            self.reader.read(connection, expect)?;
            let said = memchr::memmem::find(self.reader.last(), COLLAPSED);
            collapsed += usize::from(said.is_some());
        }
        let ended = self.clock.now();
        let used = Usage::of(self.server);
        Ok(Turn {
            ended,
            lasted: ended - began,
            used: used.zip(before).map(|(now, before)| now.since(before)),
            collapsed,
        })
    }
}
