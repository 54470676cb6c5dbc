//! `segment-gateway sandbox`, and the flags of the simulated API that `serve --sandbox` shares.

use super::output::Failure;
use super::process;
use super::signals::stop_signal;
use crate::app::{self, Inside};
use crate::config::{self, units};
use crate::sandbox::{Delay, Faults, ListMode, MOST_TOKENS_NAMED, SandboxSpec, WindowKind};
use clap::{Arg, Args};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Args, Debug)]
pub(super) struct SandboxCommand {
    /// Address of the simulated API.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8089", value_parser = address)]
    listen: SocketAddr,
    #[command(flatten)]
    options: SandboxOptions,
}

/// The heading of the flags that mean nothing without a simulated API.
const SIMULATED: &str = "Simulated API";

/// Makes a flag of the simulated API depend on `--sandbox`. The command `sandbox` has the same
/// flags and is always one, so they do not say it themselves.
pub(super) fn only_with_sandbox(argument: Arg) -> Arg {
    if argument.get_help_heading() == Some(SIMULATED) {
        argument.requires("sandbox")
    } else {
        argument
    }
}

/// How the simulated API behaves.
#[derive(Args, Debug)]
#[command(next_help_heading = SIMULATED)]
pub(super) struct SandboxOptions {
    /// Kind of limit: fixed (from the first request), aligned, rolling, token-bucket.
    #[arg(long, default_value = "fixed", value_parser = parse::<WindowKind>)]
    window: WindowKind,
    /// Factor by which windows and latencies are shorter, here and in the gateway.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    time_scale: u32,
    /// Time from a request to its answer.
    #[arg(long, default_value = "50ms", value_parser = duration)]
    latency: Duration,
    /// Random addition to the latency.
    #[arg(long, default_value = "0ms", value_parser = duration)]
    jitter: Duration,
    /// Share of requests answered 429 below the limit.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    throttle: f64,
    /// Share of requests answered 5xx.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    server_error: f64,
    /// Share of requests that take effect without a response.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    lost_reply: f64,
    /// Age of the state that reads see.
    #[arg(long, default_value = "0ms", value_parser = duration)]
    replication_lag: Duration,
    /// Requests per minute by other programs with the same token, per operation in use.
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = rate)]
    other_users: f64,
    /// Treatment of a list with a wrong element: whole (rejected) or partly (applied up to it).
    #[arg(long, default_value = "whole", value_parser = parse::<ListMode>)]
    lists: ListMode,
    /// Reads have an ETag and honour If-None-Match.
    #[arg(long)]
    validators: bool,
    /// Reads are compressed if the client accepts it.
    #[arg(long)]
    gzip: bool,
    /// Seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Initial number of users, at most 20000.
    #[arg(long, default_value_t = 250, value_parser = at_most::<20_000>)]
    users: usize,
    /// Initial number of groups, at most 2000.
    #[arg(long, default_value_t = 10, value_parser = at_most::<2_000>)]
    groups: usize,
    /// File with the accepted tokens, one per line. All others get 401. Without it, any token is
    /// accepted.
    #[arg(long, value_name = "FILE", value_parser = token_file)]
    tokens: Option<TokenFile>,
}

impl SandboxOptions {
    /// Returns the simulated API that the flags describe.
    pub(super) fn spec(&self) -> SandboxSpec {
        let half = |whole: Duration, jitter: Duration| Delay {
            base: whole / 2,
            jitter: jitter / 2,
        };
        SandboxSpec {
            seed: self.seed,
            window: self.window,
            time_scale: self.time_scale,
            arrive: half(self.latency, self.jitter),
            reply: half(self.latency, self.jitter),
            faults: Faults {
                throttle: self.throttle,
                server_error: self.server_error,
                lost_reply: self.lost_reply,
                ..Faults::default()
            },
            replication_lag: self.replication_lag,
            other_users: self.other_users,
            lists: self.lists,
            validators: self.validators,
            gzip: self.gzip,
            users: self.users,
            groups: self.groups,
            tokens: self.tokens.clone().map(|file| file.0),
            ..SandboxSpec::default()
        }
    }
}

/// The tokens in a file.
#[derive(Clone)]
struct TokenFile(Vec<String>);

// Written by hand, so that no token is ever printed.
impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenFile({} tokens)", self.0.len())
    }
}

/// Reads a file of tokens. Blank lines and blanks around a token do not count.
fn token_file(path: &str) -> Result<TokenFile, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"))?;
    let tokens = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let tokens: Vec<String> = tokens.map(ToOwned::to_owned).collect();
    match tokens.len() {
        0 => Err("no token in it; write one per line".to_owned()),
        1..=MOST_TOKENS_NAMED => Ok(TokenFile(tokens)),
        more => Err(format!(
            "{more} tokens in it; at most {MOST_TOKENS_NAMED} are accepted"
        )),
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().ok();
    address.ok_or_else(|| {
        "expected an IP address and a port, such as 127.0.0.1:8080, or 0.0.0.0:8080 for all addresses \
         of this machine"
            .to_owned()
    })
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1e6).contains(rate));
    rate.ok_or_else(|| "expected a number from 0 to 1000000".to_owned())
}

fn at_most<const MOST: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number <= MOST);
    number.ok_or_else(|| format!("expected a number from 0 to {MOST}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text)
        .ok_or_else(|| "expected a number with its unit, e.g. 250ms, 30s, 5m".to_owned())
}

/// Runs `sandbox`.
pub(super) fn run(command: &SandboxCommand) -> Result<(), Failure> {
    let loaded = config::load(None, std::iter::empty())?;
    let inside = Inside {
        listen: command.listen,
        spec: command.options.spec(),
    };
    process::run(&loaded, |log| {
        app::sandbox(inside.clone(), stop_signal(log))
    })
}
