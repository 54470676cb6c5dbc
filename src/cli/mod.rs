//! The command line: what was typed, and what it means.

mod admin;
mod cache;
mod journal;
mod log;
mod unusable;
mod writes;

use crate::app::{self, Inside, Reloads};
use crate::config::{self, Config, Loaded, Place, Problem, units};
use crate::sandbox::{Delay, Faults, ListMode, SandboxSpec, WindowKind};
use crate::server::descriptors;
use crate::tasks;
use crate::telemetry::{self, Log};
use crate::version;
use clap::{Arg, Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use unusable::unusable_values;

/// A configuration or a command line that cannot be used.
const UNUSABLE: u8 = 2;

/// A caching, rate-budgeting gateway in front of the Segment Public API.
///
/// Use it as the base URL of an SDK: reads come from a cache that is never older than the last
/// write, and writes are sent exactly as fast as the API allows.
#[derive(Debug, Parser)]
#[command(name = "segment-gateway", version = version::of_this_build())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(Box<Serve>),
    /// Check a configuration. Exit status 2 names every mistake with its place and remedy.
    Check(Check),
    /// Print the effective route table.
    Routes(Routes),
    /// Run only the simulated Segment API.
    Sandbox(SandboxCommand),
    /// Manage the durable writes of a running gateway.
    Writes(writes::Writes),
    /// Inspect and purge the cache of a running gateway.
    Cache(cache::CacheCommand),
    /// Manage the journal of durable writes while no gateway runs.
    Journal(journal::JournalCommand),
    /// Show or change the log level of a running gateway.
    Log(log::LogCommand),
    /// Print the completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, for man(1).
    Man,
}

#[derive(Args, Debug)]
struct ConfigFile {
    /// Configuration file. Without it the defaults apply. Environment variables
    /// SEGMENT_GATEWAY__SECTION__KEY override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Do not check whether addresses and state directory can be used here: the gateway runs on
    /// another machine or as another user.
    #[arg(long)]
    elsewhere: bool,
}

#[derive(Args, Debug)]
struct Routes {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the embedded table as TOML, to edit and name in routes.file.
    #[arg(long, conflicts_with = "config")]
    toml: bool,
}

#[derive(Args, Debug)]
#[command(mut_args(only_with_sandbox))]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// Base URL of the API, e.g. https://api.segmentapis.com or https://eu1.api.segmentapis.com.
    #[arg(long, value_name = "URL", conflicts_with = "sandbox")]
    upstream: Option<String>,
    /// Address for callers [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Address for operators [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDR", value_parser = address)]
    admin_listen: Option<SocketAddr>,
    /// Shadow mode: forward every request at once and report what the gateway would have done.
    /// Limits are NOT enforced.
    #[arg(long)]
    shadow: bool,
    /// Start a simulated API inside the gateway and use it instead of the real one. Keeps no state
    /// unless state.directory is configured.
    #[arg(long)]
    sandbox: bool,
    /// Address of the simulated API.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8089",
        value_parser = address,
        requires = "sandbox"
    )]
    sandbox_listen: SocketAddr,
    #[command(flatten)]
    options: SandboxOptions,
}

#[derive(Args, Debug)]
struct SandboxCommand {
    /// Address of the simulated API.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8089", value_parser = address)]
    listen: SocketAddr,
    #[command(flatten)]
    options: SandboxOptions,
}

/// Heads the flags that mean nothing without a simulated API.
const SIMULATED: &str = "Simulated API";

/// The same flags belong to a command that is always a simulated API, so it is said here.
fn only_with_sandbox(argument: Arg) -> Arg {
    if argument.get_help_heading() == Some(SIMULATED) {
        argument.requires("sandbox")
    } else {
        argument
    }
}

/// How the simulated API behaves.
#[derive(Args, Debug)]
#[command(next_help_heading = SIMULATED)]
struct SandboxOptions {
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
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn address(text: &str) -> Result<SocketAddr, String> {
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

impl SandboxOptions {
    fn spec(&self) -> SandboxSpec {
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
            ..SandboxSpec::default()
        }
    }
}

/// Runs the command. Errors go to standard error.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(serve) => serve_command(*serve),
        Command::Check(command) => check(&command),
        Command::Routes(command) => routes(&command),
        Command::Sandbox(sandbox) => sandbox_command(&sandbox),
        Command::Writes(writes) => writes::run(&writes),
        Command::Cache(command) => cache::run(&command),
        Command::Journal(command) => journal::run(&command),
        Command::Log(command) => log::run(&command),
        Command::Completions { shell } => completions(shell),
        Command::Man => manual(),
    }
}

/// A flag that stands for a key of the configuration.
#[derive(Clone, Copy)]
struct Flag {
    name: &'static str,
    variable: &'static str,
}

const UPSTREAM: Flag = Flag {
    name: "--upstream",
    variable: "SEGMENT_GATEWAY__UPSTREAM__URL",
};
const LISTEN: Flag = Flag {
    name: "--listen",
    variable: "SEGMENT_GATEWAY__LISTEN",
};
const ADMIN_LISTEN: Flag = Flag {
    name: "--admin-listen",
    variable: "SEGMENT_GATEWAY__ADMIN__LISTEN",
};

const SHADOW: Flag = Flag {
    name: "--shadow",
    variable: "SEGMENT_GATEWAY__MODE",
};

fn serve_command(serve: Serve) -> ExitCode {
    let loaded = match configured(&serve) {
        Ok(loaded) => loaded,
        Err(problems) => return unusable(&problems),
    };
    let inside = serve.sandbox.then(|| Inside {
        listen: serve.sandbox_listen,
        spec: serve.options.spec(),
    });
    begin(&loaded, |log| {
        if let Some(warning) = descriptors::make_room(loaded.config.server.connections) {
            tracing::warn!("{warning}");
        }
        let reloads = Reloads {
            asked: reload_signals(),
            source: Arc::new(move || configured(&serve)),
        };
        app::serve(loaded.clone(), inside, log, reloads, stop_signal())
    })
}

/// The configuration of `serve`: the file's, over it the environment's, over that the flags'.
fn configured(serve: &Serve) -> Result<Loaded, Vec<Problem>> {
    let flags = [
        (UPSTREAM, serve.upstream.clone()),
        (LISTEN, serve.listen.map(|address| address.to_string())),
        (
            ADMIN_LISTEN,
            serve.admin_listen.map(|address| address.to_string()),
        ),
        (SHADOW, serve.shadow.then(|| "shadow".to_owned())),
    ];
    let given: Vec<_> = flags
        .into_iter()
        .filter_map(|(flag, value)| Some((flag, value?)))
        .collect();
    let values = given
        .iter()
        .map(|(flag, value)| (flag.variable.to_owned(), value.clone()));
    let mut loaded = config::load_usable(
        serve.file.config.as_deref(),
        config::environment().chain(values),
        unusable_values,
    )
    .map_err(|mut problems| {
        for problem in &mut problems {
            let flag = given
                .iter()
                .find(|(flag, _)| problem.place == Some(Place::Variable(flag.variable.to_owned())));
            if let Some((flag, _)) = flag {
                problem.place = Some(Place::Flag(flag.name));
            }
        }
        problems
    })?;
    let usual = Config::default().state.directory;
    if serve.sandbox && loaded.config.state.directory == usual {
        // What a simulated API of an earlier run has counted says nothing of this one.
        loaded.config.state.directory = None;
    }
    Ok(loaded)
}

fn sandbox_command(sandbox: &SandboxCommand) -> ExitCode {
    let loaded = match config::load(None, std::iter::empty()) {
        Ok(loaded) => loaded,
        Err(problems) => return unusable(&problems),
    };
    let inside = Inside {
        listen: sandbox.listen,
        spec: sandbox.options.spec(),
    };
    begin(&loaded, |_| app::sandbox(inside.clone(), stop_signal()))
}

fn begin<F>(loaded: &Loaded, run: impl FnOnce(Arc<Log>) -> F) -> ExitCode
where
    F: Future<Output = Result<(), app::StartError>>,
{
    let log = match telemetry::start(loaded.config.log.format, loaded.config.log.level) {
        Ok(log) => Arc::new(log),
        Err(error) => {
            complain(&format!("cannot start the log: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // Within the runtime: signals are listened to from the first moment on.
    let ended = runtime.block_on(async { run(log).await });
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn check(command: &Check) -> ExitCode {
    let file = &command.file;
    let probe = |config: &Config| {
        let mut found = unusable_values(config);
        if !command.elsewhere {
            found.extend(app::preflight(config));
        }
        found
    };
    let loaded = match config::load_usable(file.config.as_deref(), config::environment(), probe) {
        Ok(loaded) => loaded,
        Err(problems) => return unusable(&problems),
    };
    let open_secrets = match command.elsewhere {
        true => Vec::new(),
        false => app::open_secrets(&loaded.config),
    };
    for warning in loaded.warnings.iter().chain(&open_secrets) {
        say(&format!("warning: {warning}"));
    }
    let name = file
        .config
        .as_ref()
        .map_or("the defaults".into(), |path| path.display().to_string());
    say(&format!(
        "{name}: no problems; {} operations, upstream {}",
        loaded.operations.len(),
        loaded.config.upstream.url
    ));
    ExitCode::SUCCESS
}

fn completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    let name = env!("CARGO_PKG_NAME");
    clap_complete::generate(shell, &mut Cli::command(), name, &mut text);
    say(String::from_utf8_lossy(&text).trim_end());
    ExitCode::SUCCESS
}

/// One page: the program's, and behind it that of each command.
fn manual() -> ExitCode {
    let mut text = Vec::new();
    let mut program = Cli::command();
    program.build();
    let mut write =
        |command: &clap::Command| clap_mangen::Man::new(command.clone()).render(&mut text);
    let mut written = write(&program);
    for command in program
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        written = written.and_then(|()| write(command));
    }
    if let Err(error) = written {
        complain(&format!("cannot write the manual page: {error}"));
        return ExitCode::FAILURE;
    }
    say(String::from_utf8_lossy(&text).trim_end());
    ExitCode::SUCCESS
}

fn routes(command: &Routes) -> ExitCode {
    if command.toml {
        say(config::EMBEDDED_ROUTES.trim_end());
        return ExitCode::SUCCESS;
    }
    let loaded = match config::load(command.file.config.as_deref(), config::environment()) {
        Ok(loaded) => loaded,
        Err(problems) => return unusable(&problems),
    };
    match loaded.table(1) {
        Ok(table) => {
            say(config::render_routes(&table).trim_end());
            ExitCode::SUCCESS
        }
        Err(problems) => unusable(&problems),
    }
}

fn unusable(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        complain(&problem.to_string());
    }
    ExitCode::from(UNUSABLE)
}

fn say(line: &str) {
    // A reader that has closed the pipe wants no more.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "segment-gateway: {line}");
}

/// A message for each SIGHUP; several that come at once are one.
fn reload_signals() -> mpsc::Receiver<()> {
    let (tell, told) = mpsc::channel(1);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Listened to from now on: until then it would end the process.
        match signal(SignalKind::hangup()) {
            Ok(mut hangups) => drop(tasks::detached(async move {
                while hangups.recv().await.is_some() {
                    let _ = tell.try_send(());
                }
            })),
            Err(error) => tracing::error!(%error, "cannot handle SIGHUP: it will end this process"),
        }
    }
    #[cfg(not(unix))]
    drop(tell);
    told
}

/// Waits for SIGTERM or SIGINT. Signals are handled from the call on, not only once the future is
/// polled: until then a signal would end the process without a drain. A second one ends the process
/// at once.
fn stop_signal() -> impl Future<Output = ()> + Send {
    let (tell, told) = oneshot::channel();
    let mut signals = StopSignals::new();
    tasks::detached(async move {
        signals.recv().await;
        let _ = tell.send(());
        signals.recv().await;
        tracing::warn!("second signal: stopping immediately");
        std::process::exit(1);
    });
    async move {
        if told.await.is_err() {
            std::future::pending().await
        }
    }
}

/// SIGTERM and SIGINT; none if they cannot be handled.
#[cfg(unix)]
struct StopSignals(Option<[tokio::signal::unix::Signal; 2]>);

#[cfg(unix)]
impl StopSignals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let signals = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        );
        let (Ok(terminate), Ok(interrupt)) = signals else {
            tracing::error!("cannot handle signals: only SIGKILL will stop this process");
            return Self(None);
        };
        Self(Some([terminate, interrupt]))
    }

    async fn recv(&mut self) {
        let Some([terminate, interrupt]) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct StopSignals;

#[cfg(not(unix))]
impl StopSignals {
    fn new() -> Self {
        Self
    }

    async fn recv(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
