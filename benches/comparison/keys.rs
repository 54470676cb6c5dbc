//! Hits of a client with a key, beside those of a caller with a token of its own; and what a flood
//! of unknown keys costs the client.

use super::load::{self, Expect, Load, Question, Run};
use super::machine::Cores;
use super::open_loop::{self, OpenLoop};
use super::report::{self, Bound, Goal};
use super::servers::{Server, Servers};
use super::upstream::{self, Answer, Upstream};
use super::{
    BODY_BYTES, CONNECTIONS, Contender, Failure, GATEWAY, Options, Round, closed_loop, question,
};
use segment_gateway::clients::ClientKey;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tempfile::TempDir;

const PATH: &str = "/users/user-00001";

const HIT: Goal = Goal {
    of: Contender::GatewayKey,
    to: Contender::Gateway,
    figure: Run::micros_of_core,
    what: "processor time per request",
    bound: Bound::AtMost(1.03),
};

/// Between two hits of the client.
const HITS: Duration = Duration::from_micros(500);
/// Between two requests of the flood: 10,000 per second.
const FLOOD: Duration = Duration::from_micros(100);
/// How much longer the client's p99 may be.
const GOAL: f64 = 1.05;
/// Slices with the flood, and as many without, in each round of the bench.
const SLICES: usize = 6;

/// A key that is not in the file of clients is refused like this.
const UNKNOWN: &[u8] = b"HTTP/1.1 401 Unauthorized\r\n";

pub(crate) fn measure(options: &Options, cores: &Cores) -> Result<(), Failure> {
    let upstream = Upstream::start(|_| Answer::plain(upstream::user(BODY_BYTES)))?;
    let servers = Servers {
        cores,
        gateway: &options.gateway,
        upstream: upstream.address(),
    };
    let mut rounds = Vec::new();
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let (own, managed) = (servers.gateway(&GATEWAY)?, Managed::start(servers)?);
        rounds.push(hits(round, options, &own, &managed)?);
        flood(&managed, (&mut quiet, &mut flooded))?;
    }
    report::table("cache hit with a key", Contender::Gateway, &rounds);
    report::verdict(&HIT, &rounds);
    let slices = quiet.len();
    let [quiet, flooded] = [quiet, flooded].map(report::median);
    let ratio = flooded / quiet;
    println!(
        "\nhits of a client at {:.0} per second beside {:.0} requests per second with unknown keys: \
         p99 {quiet:.0} µs without them and {flooded:.0} µs with them, {ratio:.2} times (medians of \
         {slices} slices of {:.1} s); the goal of at most {GOAL} is {}",
        1.0 / HITS.as_secs_f64(),
        1.0 / FLOOD.as_secs_f64(),
        open_loop::SLICE.as_secs_f64(),
        if ratio <= GOAL { "met" } else { "NOT met" },
    );
    Ok(())
}

/// A gateway that holds a token for a client.
struct Managed {
    server: Server,
    key: ClientKey,
    /// The file of clients and that of the token, which are read again from time to time.
    _folder: TempDir,
}

impl Managed {
    fn start(servers: Servers<'_>) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let key = ClientKey::generate()?;
        std::fs::write(at("token"), "a-token-of-the-api")?;
        let clients = format!(
            "[tokens.held]\nfile = '{}'\n[clients.bench]\ntoken = 'held'\nmay = ['reads']\n\
             [[clients.bench.keys]]\nid = '{}'\nsha256 = '{}'\n",
            at("token"),
            key.id(),
            key.digest(),
        );
        std::fs::write(at("clients.toml"), clients)?;
        let file = at("clients.toml");
        let settings = [
            ("SEGMENT_GATEWAY__CALLERS__CREDENTIALS", "managed"),
            ("SEGMENT_GATEWAY__CALLERS__CLIENTS_FILE", &*file),
        ];
        let server = servers.gateway(&[&GATEWAY[..], &settings].concat())?;
        Ok(Self {
            server,
            key,
            _folder: folder,
        })
    }

    fn hit(&self) -> Question {
        let request = load::request_of(self.key.reveal(), "GET", PATH, load::GZIP);
        question(request, Expect::Hit)
    }
}

/// Measures hits with a token and hits with a key in turn.
fn hits(
    round: usize,
    options: &Options,
    own: &Server,
    managed: &Managed,
) -> Result<Round, Failure> {
    let hit = question(load::request("GET", PATH, load::GZIP), Expect::Hit);
    let mut loads = Vec::new();
    for (contender, server, hit) in [
        (Contender::Gateway, own, hit),
        (Contender::GatewayKey, &managed.server, managed.hit()),
    ] {
        let mut load = Load::connect(server, CONNECTIONS, hit)?;
        load.fetch()?;
        load.run(options.warm_up)?;
        loads.push((contender, load));
    }
    closed_loop(round, options, loads)
}

/// Measures the client's p99 of each slice, with and without the flood.
fn flood(
    managed: &Managed,
    (quiet, flooded): (&mut Vec<f64>, &mut Vec<f64>),
) -> Result<(), Failure> {
    let unknown = ClientKey::generate()?;
    let request = load::request_of(unknown.reveal(), "GET", PATH, "");
    let unknown = Question {
        body: body_of(&managed.server, &request)?,
        request,
        status: UNKNOWN,
        expect: Expect::Anything,
    };
    let mut hits = OpenLoop::connect(&managed.server, managed.hit())?;
    let mut flood = OpenLoop::connect(&managed.server, unknown)?;
    for _ in 0..SLICES {
        quiet.push(hits.run(HITS)?.micros(99));
        flooded.push(hits.run_while(HITS, (&mut flood, FLOOD))?.micros(99));
    }
    Ok(())
}

/// Asks once, and returns the body of the answer.
fn body_of(server: &Server, request: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut some = [0; 4096];
    loop {
        let read = stream.read(&mut some)?;
        answer.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let lines = head.lines();
        let mut lengths = lines.filter_map(|line| line.strip_prefix("content-length: "));
        let length: usize = lengths.next().ok_or("no length")?.parse()?;
        if body.len() >= length {
            return Ok(body.as_bytes().to_vec());
        }
    }
}
