//! The gateway beside nginx, HAProxy and bare hyper, over loopback: how many requests per second,
//! how much processor time for each, how late the answers are.
//!
//! Options: `--quick` (one short round; rough), `--gateway PATH` (another build of the program).
//! Cargo builds the program for a bench with the features that the tests want of its libraries;
//! `--gateway target/release/segment-gateway` measures a build without them.
//!
//! What is measured is the program itself, `segment-gateway serve` with default settings, except
//! that the limits are so high that nothing waits for a budget ([`GATEWAY`]). Durable state is on.
//!
//! - Every round has new processes and new state, so that the luck of one process (addresses of
//!   memory, seeds of hashes) is not taken for a result.
//! - What is compared is measured in turn by short slices (see [`load::interleave`]), and compared
//!   within a round; a verdict is about the median of the rounds' ratios.
//! - All servers run on one core. hyper and the gateway use tokio's runtime with several threads,
//!   which is one worker thread on one core; nginx and HAProxy have one worker. The load runs on
//!   another core, and so does the upstream. Pinning needs `taskset` (util-linux); without it this
//!   is said.
//! - Processor time is what the threads of a server's process ran, in user and in kernel mode, as
//!   Linux counts it in `schedstat`, divided by its answers. It stays comparable when something
//!   else uses the machine, which requests per second do not.
//! - Every answer is checked: status, length and body, and that a hit was one. The first that is
//!   not as it should be ends the bench.
//!
//! The exit status tells whether it could measure, not whether the goals are met.

#![allow(
    clippy::disallowed_methods,
    reason = "a bench has no task that stopping waits for"
)]
#![allow(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

mod bare;
mod hits;
mod keys;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/machine.rs"]
mod machine;
mod open_loop;
mod peers;
mod proxied;
mod report;
mod scraped;
mod secure;
#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/upstream.rs"]
mod upstream;

use load::{Expect, Load, Question, Run};
use machine::Cores;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Any reason why it cannot go on.
type Failure = Box<dyn Error + Send + Sync>;

/// What a user with a few permissions looks like: the length of every body in bytes.
const BODY_BYTES: usize = 2_253;
const CONNECTIONS: usize = 64;

/// The settings of the gateway: no request waits for a budget or for its caller's share.
const GATEWAY: [(&str, &str); 7] = [
    (
        "SEGMENT_GATEWAY__ROUTES__UNDOCUMENTED_READS",
        "1000000 per 1m",
    ),
    (
        "SEGMENT_GATEWAY__ROUTES__UNDOCUMENTED_WRITES",
        "1000000 per 1m",
    ),
    ("SEGMENT_GATEWAY__CALLERS__RATE", "1000000/s"),
    ("SEGMENT_GATEWAY__CALLERS__BURST", "100000000"),
    ("SEGMENT_GATEWAY__BUDGET__UNKNOWN_SLOTS", "1000000"),
    ("SEGMENT_GATEWAY__BUDGET__READS_AT_ONCE", "64"),
    ("SEGMENT_GATEWAY__BUDGET__WRITES_AT_ONCE", "64"),
];

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Gateway,
    /// With a header that the fast path of a hit does not take.
    GatewayLongWay,
    /// With `log.access = "all"`.
    GatewayLogsAll,
    /// With the key of a client, for which the gateway holds a token.
    GatewayKey,
    BareServer,
    BareProxy,
    /// Over TLS, with HTTP/1.1 and with HTTP/2.
    GatewayTls,
    BareTls,
    GatewayHttp2,
    BareHttp2,
    Nginx,
    Haproxy,
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::GatewayLongWay => "gateway, not on the fast path",
            Self::GatewayLogsAll => "gateway, log.access = \"all\"",
            Self::GatewayKey => "gateway, key of a client",
            Self::BareServer => "bare hyper server",
            Self::BareProxy => "bare hyper proxy",
            Self::GatewayTls => "gateway, TLS, HTTP/1.1",
            Self::BareTls => "bare hyper server, TLS, HTTP/1.1",
            Self::GatewayHttp2 => "gateway, TLS, HTTP/2",
            Self::BareHttp2 => "bare hyper server, TLS, HTTP/2",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        }
    }
}

/// What one round showed of each contender that is there.
type Round = Vec<(Contender, Run)>;

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
            measured: Duration::from_secs(3),
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
                    // The servers run in folders of their own.
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

/// Measures, unless this process is to be one of the bare servers.
pub(crate) fn main(only_hits: bool) -> ExitCode {
    let arguments = || std::env::args().skip(1);
    let ended = bare::serve_if_asked(arguments()).unwrap_or_else(|| {
        Options::read(arguments()).and_then(|options| compare(&options, only_hits))
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options, only_hits: bool) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        println!("WARNING: a debug build, these figures mean nothing; use `cargo bench`");
    }
    // Before any other thread begins, so that all of them run where the load runs.
    let cores = Cores::choose();
    println!(
        "over loopback: bodies of {BODY_BYTES} B, {CONNECTIONS} keep-alive connections, {} rounds \
         of {:.1} s of each after {:.1} s of warming up, interleaved by {:.1} s\n{cores}",
        options.rounds,
        options.measured.as_secs_f64(),
        options.warm_up.as_secs_f64(),
        load::SLICE.as_secs_f64(),
    );
    hits::measure(options, &cores)?;
    keys::measure(options, &cores)?;
    secure::measure(options, &cores)?;
    if !only_hits {
        proxied::measure(options, &cores)?;
        scraped::measure(options, &cores)?;
    }
    Ok(())
}

/// What is asked with this request: a success with the body that the upstream has for everything.
fn question(request: Vec<u8>, expect: Expect) -> Question {
    Question {
        request,
        status: load::OK,
        body: upstream::user(BODY_BYTES),
        expect,
    }
}

/// Measures the loads in turn, all as fast as they are answered.
fn closed_loop(
    round: usize,
    options: &Options,
    mut loads: Vec<(Contender, Load)>,
) -> Result<Round, Failure> {
    let runs = load::interleave(round, loads.len(), options.measured, |at| {
        loads[at].1.run(load::SLICE)
    })?;
    Ok(loads
        .into_iter()
        .map(|(contender, _)| contender)
        .zip(runs)
        .collect())
}
