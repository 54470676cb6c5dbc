//! Bench: a cache hit, end to end over loopback, beside a bare hyper server that answers the same
//! bytes with the same headers. What the gateway costs is the difference.
//!
//! ```sh
//! cargo bench --bench hit                 # five interleaved runs of each, about two minutes
//! cargo bench --bench hit -- --quick      # to see that it works; the figures are rough
//! cargo bench --bench hit -- --gateway target/release/segment-gateway   # another build
//! ```
//!
//! What is measured is the program itself, `segment-gateway serve` with default settings: only its
//! addresses and its upstream are given. Its log goes to a file. A third server is the same
//! program with `log.access = "all"`. Cargo builds the program for a bench with the features that
//! the tests want of its libraries; `--gateway` measures a build without them.
//!
//! - Every run has a new process, so that the luck of one process (addresses of memory, seeds of
//!   hashes) is not taken for a result. Its one fetch comes before the warm-up and lives for 60 s,
//!   which outlasts the run.
//! - The runs of one round are interleaved in slices: a virtual machine changes its speed by a third
//!   from one second to the next, and so all of them have their share of the good times and the bad.
//!   A server whose turn it is not has nothing to do.
//! - All servers run on one core and use the same runtime: tokio's with several threads, which is
//!   one worker thread on one core. The load runs on another core; see its module for why it does
//!   not get in the way. Pinning needs `taskset` (util-linux); without it this is said.
//! - Every answer is checked: status, length, body, and that it was a hit.
//! - The upstream counts what it is asked: once by each gateway.
//!
//! The exit status tells whether it could measure, not whether the goal is met.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench has no task that stopping waits for"
)]
#![allow(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

mod bare;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/machine.rs"]
mod machine;
mod report;
#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/upstream.rs"]
mod upstream;

use load::{Load, Question, Run};
use machine::Cores;
use servers::Servers;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use upstream::{Answer, Upstream};

/// Any reason why it cannot go on.
type Failure = Box<dyn Error + Send + Sync>;

/// The goal: requests per second in proportion to the bare server's.
const GOAL: f64 = 0.80;
/// What a user with a few permissions looks like.
const BODY_BYTES: usize = 2_253;
const PATH: &str = "/users/user-00001";
const CONNECTIONS: usize = 64;
/// How long each has its turn: much longer than it takes to get going again, much shorter than the
/// machine keeps one speed.
const SLICE: Duration = Duration::from_millis(200);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gateway,
    Bare,
    GatewayLogsAll,
}

impl Kind {
    /// In the order of the first round, in which the gateway shows what the bare one shall answer.
    const ALL: [Self; 3] = [Self::Gateway, Self::Bare, Self::GatewayLogsAll];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare hyper",
            Self::Gateway => "gateway",
            Self::GatewayLogsAll => "gateway, log.access = \"all\"",
        }
    }
}

/// What was asked for on the command line.
struct Options {
    rounds: usize,
    warm_up: Duration,
    /// What one run adds up to.
    measured: Duration,
    gateway: PathBuf,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            rounds: 5,
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(5),
            gateway: PathBuf::from(env!("CARGO_BIN_EXE_segment-gateway")),
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // Cargo says so to every bench.
                "--bench" => {}
                "--quick" => {
                    options.rounds = 1;
                    options.warm_up = Duration::from_millis(300);
                    options.measured = Duration::from_secs(1);
                }
                "--gateway" => {
                    let path = arguments.next().ok_or("--gateway needs a path")?;
                    // The servers run in a directory of their own.
                    options.gateway = std::fs::canonicalize(&path)
                        .map_err(|error| format!("--gateway {path}: {error}"))?;
                }
                other => {
                    return Err(format!("{other}: expected --quick or --gateway PATH").into());
                }
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let ended = match arguments.next_if(|first| first == bare::COMMAND) {
        Some(_) => bare::main(arguments.next().as_deref().map(Path::new)),
        None => Options::read(arguments).and_then(|options| compare(&options)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all in turn and prints what came of it.
fn compare(options: &Options) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        println!("WARNING: a debug build, these figures mean nothing; use `cargo bench`");
    }
    // Before any other thread begins, so that all of them run where the load runs.
    let cores = Cores::choose();
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start(|_| Answer::plain(upstream::user(BODY_BYTES)))?;
    let servers = Servers {
        cores: &cores,
        folder: folder.path(),
        gateway: &options.gateway,
        upstream: upstream.address(),
    };
    println!(
        "a cache hit over loopback: {BODY_BYTES} B body, {CONNECTIONS} keep-alive connections, \
         {} runs of {:.1} s each after {:.1} s of warming up, interleaved by {:.1} s\n{cores}\n",
        options.rounds,
        options.measured.as_secs_f64(),
        options.warm_up.as_secs_f64(),
        SLICE.as_secs_f64(),
    );
    let mut runs: Vec<(Kind, Run)> = Vec::new();
    let mut sample = Vec::new();
    for round in 0..options.rounds {
        for (kind, run) in one_round(round, options, &servers, &upstream, &mut sample)? {
            report::line(round, kind.name(), &run);
            runs.push((kind, run));
        }
    }
    report::summary(&runs);
    Ok(())
}

/// One run of each: new processes, their warm-up, their measurement in turn.
fn one_round(
    round: usize,
    options: &Options,
    servers: &Servers<'_>,
    upstream: &Upstream,
    sample: &mut Vec<u8>,
) -> Result<Vec<(Kind, Run)>, Failure> {
    let mut under_way = Vec::new();
    for kind in Kind::ALL {
        let asked_before = upstream.asked();
        let server = match kind {
            Kind::Gateway => servers.gateway("default", &[])?,
            Kind::GatewayLogsAll => {
                servers.gateway("all", &[("SEGMENT_GATEWAY__LOG__ACCESS", "all")])?
            }
            Kind::Bare => bare::start(servers, sample)?,
        };
        let question = Question {
            request: load::request(PATH, load::GZIP),
            status: load::OK,
            body: upstream::user(BODY_BYTES),
        };
        let mut load = Load::connect(server.address, CONNECTIONS, question)?;
        // The only fetch; all that follow are hits.
        load.fetch()?;
        let warmed = load.run(options.warm_up, server.id())?;
        if sample.is_empty() {
            sample.clone_from(&warmed.sample);
            report::answer(sample, BODY_BYTES);
        }
        let asked = upstream.asked() - asked_before;
        let expected = u64::from(kind != Kind::Bare);
        if asked != expected {
            return Err(format!(
                "{}: the upstream was asked {asked} times instead of {expected}",
                kind.name()
            )
            .into());
        }
        under_way.push((kind, server, load, Run::default()));
    }
    let asked_before = upstream.asked();
    // What comes first or last is not always the same one.
    under_way.rotate_left(round % Kind::ALL.len());
    while under_way
        .iter()
        .any(|(.., run)| run.lasted < options.measured)
    {
        for (_, server, load, run) in &mut under_way {
            run.add(load.run(SLICE, server.id())?);
        }
        under_way.rotate_left(1);
    }
    if upstream.asked() != asked_before {
        return Err("the upstream was asked while all should have been hits".into());
    }
    let runs = under_way.into_iter().map(|(kind, .., run)| (kind, run));
    Ok(runs.collect())
}
