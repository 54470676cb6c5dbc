//! Builds every part from the configuration, wires them, and starts and stops them in order.

mod assembly;
mod keeping;
mod operators;
mod preflight;
mod reload;

pub use assembly::{Assembly, client, collector, server_bounds, stack_bounds, upstream_spec};

pub use keeping::{Keeping, rekey};
pub use operators::admin_token;
pub use preflight::preflight;
pub use reload::{Reloads, Source};

use crate::admin::Admin;
use crate::clock::Clock;
use crate::config::{Config, Loaded, Mode};
use crate::credential::Hasher;
use crate::gateway::Gateway;
use crate::gateway::connection::ConnectionServices;
use crate::limit::ledger::{Ledger, LedgerSpec, Left, Opened, PastUsage};
use crate::sandbox::{Sandbox, SandboxSpec};
use crate::server;
use crate::state::{self, State};
use crate::swap::Swap;
use crate::tasks;
use crate::telemetry::Log;
use crate::version::{COMMIT, VERSION};
use crate::write::decision::RETRY_FOR;
use crate::write::durable::Recovered;
use operators::{Operators, access};
use reload::{Reloader, Targets};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often idle callers are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How long a driver that ended stays away, so that one that ends at once does not fill the log.
const DRIVER_PAUSE: Duration = Duration::from_secs(1);
/// How often the log says how far the drain has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How long the collector has to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// How long connections are left after the drain to close by themselves.
const LAST_GRACE: Duration = Duration::from_millis(500);

/// Why the program does not start; one line that says what to do.
#[derive(Debug)]
pub struct StartError(pub String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

fn failed(error: impl std::error::Error) -> StartError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    StartError(text)
}

/// A sandbox that is started inside.
#[derive(Clone, Debug)]
pub struct Inside {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How it behaves.
    pub spec: SandboxSpec,
}

/// Runs the gateway until `stop`, then drains. `time_scale` divides all windows, for a sandbox
/// that does the same.
///
/// # Errors
/// If it cannot start.
pub async fn serve(
    mut loaded: Loaded,
    inside: Option<Inside>,
    log: Arc<Log>,
    reloads: Reloads,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    let clock = Clock::system();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let (stopping, stopped) = watch::channel(false);
    // The simulated API outlasts the drain, as the real one does.
    let (sandbox_stopping, sandbox_stopped) = watch::channel(false);
    let past = if inside.is_some() {
        Past::Empty
    } else {
        Past::Unknown
    };
    let scale = inside
        .as_ref()
        .map_or(1, |inside| inside.spec.time_scale.max(1));
    scale_times(&mut loaded.config, scale);
    if let Some(inside) = inside {
        let url = start_inside(inside, clock.clone(), until(sandbox_stopped)).await?;
        loaded.config.upstream.url = url;
    }
    let config = loaded.config.clone();
    let proxy_listener = bind(config.listen, "listen").await?;
    let admin_listener = bind(config.admin.listen, "admin.listen").await?;
    // What port 0 has become.
    let listen = proxy_listener.local_addr().map_err(failed)?;
    let admin_listen = admin_listener.local_addr().map_err(failed)?;
    // Held until the end: the lock is on it.
    let (state, gateway, left) = start(&loaded, scale, past, clock).await?;
    go_on(&gateway, left.as_deref()).await?;
    // They end with this.
    let _drivers = drivers(&gateway);
    let (admin_stopping, admin_stopped) = watch::channel(false);
    let access = Arc::new(Swap::new(access(&config)?));
    let targets = Targets {
        gateway: gateway.clone(),
        access: access.clone(),
        log: log.clone(),
        simulated: past == Past::Empty,
        scale,
    };
    let reloader = Arc::new(Reloader::new(targets, loaded));
    let admin = Admin::new(gateway.clone(), access.clone(), &config.upstream.url).with_log(log);
    let operators = Operators::start(
        admin,
        &config,
        admin_listener,
        state.as_ref(),
        admin_stopped,
    )?;
    tracing::info!(
        %listen,
        admin = %admin_listen,
        upstream = %config.upstream.url,
        version = VERSION,
        commit = COMMIT,
        "gateway listening"
    );
    operators.tell(&access.get(), &config);
    let front = ConnectionServices::new(gateway.clone(), stack_bounds(&config));
    let serving = tasks::detached(server::serve(
        proxy_listener,
        move |peer| front.connected(peer),
        server_bounds(&config),
        gateway.metrics().connections().clone(),
        until(stopped),
    ));
    let following = tasks::detached(reloader.clone().follow(reloads));
    stop.await;
    following.abort();
    drain(&gateway, reloader.drain_time(), &stopping, serving).await;
    hand_over_spans(&gateway).await;
    let _ = admin_stopping.send(true);
    let _ = sandbox_stopping.send(true);
    operators.end();
    Ok(())
}

/// What goes on beside the requests.
fn drivers(gateway: &Arc<Gateway>) -> JoinSet<()> {
    let mut drivers = JoinSet::new();
    let (budgets, writes) = (gateway.budgets().clone(), gateway.writes().clone());
    drivers.spawn(keep_running("budgets", move || budgets.clone().drive()));
    drivers.spawn(keep_running("deferred writes", move || {
        writes.clone().drive_deferred()
    }));
    drivers.spawn(sweep(gateway.clone()));
    drivers
}

/// Not ready, no new connections; what can be carried out in time is, the rest is refused at once.
async fn drain(
    gateway: &Arc<Gateway>,
    within: Duration,
    stopping: &watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
) {
    tracing::info!(
        within_s = within.as_secs_f64(),
        waiting = gateway.budgets().waiting(),
        "draining: no new connections are accepted, requests in flight continue"
    );
    gateway.drain(within);
    let _ = stopping.send(true);
    let ended = async {
        let _ = serving.await;
        gateway.tasks().idle().await;
    };
    tokio::pin!(ended);
    let told = tell_progress(gateway, gateway.clock().now() + within);
    let mut in_time = tokio::select! {
        biased;
        () = &mut ended => true,
        () = told => false,
    };
    if !in_time {
        // Whoever waits has not been sent, and hears so; the others have a last moment.
        gateway.budgets().end();
        in_time = tokio::time::timeout(LAST_GRACE, ended).await.is_ok();
    }
    if !in_time {
        tracing::warn!(
            tasks = gateway.tasks().under_way(),
            waiting = gateway.budgets().waiting(),
            "drain deadline reached with requests in flight; writes that were sent but not \
             answered may have taken effect"
        );
    } else {
        tracing::info!("drained: no request is in flight");
    }
}

async fn hand_over_spans(gateway: &Arc<Gateway>) {
    if let Some(tracer) = gateway.tracer().cloned() {
        // It waits for a thread that waits for the collector.
        let handing_over = tokio::task::spawn_blocking(move || tracer.finish(LAST_SPANS));
        let _ = handing_over.await;
    }
}

/// Tells in the log how far the drain has come, until its deadline.
async fn tell_progress(gateway: &Arc<Gateway>, deadline: Instant) {
    loop {
        let now = gateway.clock().now();
        if now >= deadline {
            return;
        }
        let next = deadline.min(now + PROGRESS_EVERY);
        tokio::time::sleep_until(next.into()).await;
        if next < deadline {
            tracing::info!(
                connections = gateway.metrics().connections().open(),
                tasks = gateway.tasks().under_way(),
                waiting = gateway.budgets().waiting(),
                left_s = deadline
                    .saturating_duration_since(next)
                    .as_secs_f64()
                    .round(),
                "draining: requests are still in flight"
            );
        }
    }
}

/// What was sent to the API before this process started, as far as no ledger tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    /// Nothing: the API is a sandbox that has just been started.
    Empty,
    /// Nobody knows.
    Unknown,
}

/// Goes on with the writes that the last process left.
async fn go_on(gateway: &Arc<Gateway>, left: Option<&[Left]>) -> Result<(), StartError> {
    let recovered = gateway.writes().recover(left).await.map_err(failed)?;
    if recovered != Recovered::default() {
        tracing::warn!(
            queued = recovered.queued,
            repeated = recovered.repeated,
            unknown = recovered.unknown,
            "recovered durable writes of the previous process: unsent writes are queued, sent \
             writes are retried where a retry is safe, the outcome of the others is unknown"
        );
    }
    Ok(())
}

/// Opens the state and assembles the gateway; also what writes of the last process may still do.
async fn start(
    loaded: &Loaded,
    scale: u32,
    past: Past,
    clock: Clock,
) -> Result<(Option<State>, Arc<Gateway>, Option<Vec<Left>>), StartError> {
    let config = &loaded.config;
    let client = client(config, &clock)?;
    let table = loaded.table(scale).map_err(|problems| {
        StartError(
            problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        )
    })?;
    let directory = config.state.directory.as_deref();
    let state = directory.map(State::open).transpose().map_err(failed)?;
    for warning in open_secrets(config) {
        tracing::warn!("{warning}");
    }
    let key = match (&config.credentials.key_file, &state) {
        (Some(path), _) => state::key_file(path),
        (None, Some(state)) => state.key(),
        (None, None) => state::random_key(),
    };
    let hasher = Hasher::new(&key.map_err(failed)?);
    // Before the ledger: a start that a journal of another key ends has changed nothing.
    let keeping = Keeping::open(config, state.as_ref(), &hasher).await?;
    let none = || (Ledger::none(clock.clone()), None, Some(Vec::new()));
    let (ledger, history, left) = match &state {
        Some(state) if config.mode == Mode::Shadow => {
            // What is forwarded is not recorded: whoever enforces limits next must not believe that
            // it knows all that was sent.
            state.forget_ledger().map_err(failed)?;
            state.mark_used().map_err(failed)?;
            none()
        }
        Some(state) => {
            let opened = open_ledger(config, state, &hasher, &clock)?;
            state.mark_used().map_err(failed)?;
            (opened.ledger, opened.history, opened.left)
        }
        None if past == Past::Empty => (
            Ledger::none(clock.clone()),
            Some(PastUsage::new()),
            Some(Vec::new()),
        ),
        None => none(),
    };
    let assembly = Assembly {
        keeping: Keeping {
            // A simulated API ends with the process as well.
            outlasts: state.is_some() || past == Past::Empty,
            ..keeping
        },
        config: config.clone(),
        table,
        client,
        ledger,
        history,
        hasher,
        clock: clock.clone(),
    };
    Ok((state, assembly.gateway()?, left))
}

/// Names the secrets that others on this machine can read; one sentence each.
pub fn open_secrets(config: &Config) -> Vec<String> {
    let configured = [
        ("credentials.key_file", &config.credentials.key_file),
        ("journal.key_file", &config.journal.key_file),
        ("admin.token_file", &config.admin.token_file),
    ];
    let configured = configured
        .into_iter()
        .filter_map(|(key, file)| Some((key, file.clone()?)));
    let directory = config.state.directory.as_deref();
    let own = directory.map(State::key_files).into_iter().flatten();
    let own = own.map(|file| ("state.directory", file));
    let open = configured
        .chain(own)
        .filter(|(_, file)| state::is_readable_by_all(file));
    open.map(|(key, file)| {
        let file = file.display();
        format!("{key}: every user can read {file}; take that away: chmod o-r {file}")
    })
    .collect()
}

/// Opens the ledger of the state directory.
fn open_ledger(
    config: &Config,
    state: &State,
    hasher: &Hasher,
    clock: &Clock,
) -> Result<Opened, StartError> {
    let path = state.ledger();
    let spec = LedgerSpec {
        key_check: hasher.hash(&[b"ledger"]),
        keep: config.budget.late_arrival.max(RETRY_FOR),
        expected: state.was_used(),
    };
    let opened = Ledger::open(&path, spec, clock.clone()).map_err(|error| {
        StartError(format!(
            "cannot use the ledger {}: {error}; let this user write it, or remove it",
            path.display()
        ))
    })?;
    if let Some(note) = &opened.note {
        tracing::error!(
            "{note}; what the previous process sent is unknown: budgets start as on a new node, \
             and any of its writes may still take effect"
        );
    }
    if let Some(why) = &opened.unkept {
        tracing::error!(
            ledger = %path.display(),
            "no ledger is kept: {why}; after a restart the gateway assumes that anything could \
             have been sent. Free disk space, then restart"
        );
    }
    Ok(opened)
}

/// Divides what belongs to the upstream's time by `scale`, as the route table does with windows.
pub fn scale_times(config: &mut Config, scale: u32) {
    config.budget.guard /= scale;
    config.budget.late_arrival /= scale;
    config.cache.settling /= scale;
}

/// Starts a simulated API; its URL.
async fn start_inside(
    inside: Inside,
    clock: Clock,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<String, StartError> {
    let listener = bind(inside.listen, "sandbox").await?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "sandbox listening");
    let sandbox = Sandbox::new(inside.spec, clock);
    tasks::detached(sandbox.serve(listener, stop));
    Ok(format!("http://{address}"))
}

/// Runs the sandbox alone until `stop`.
///
/// # Errors
/// If its address is taken.
pub async fn sandbox(
    inside: Inside,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    let listener = bind(inside.listen, "sandbox").await?;
    tracing::info!(
        address = %listener.local_addr().map_err(failed)?,
        window = %inside.spec.window,
        "sandbox listening"
    );
    Sandbox::new(inside.spec, Clock::system())
        .serve(listener, stop)
        .await;
    Ok(())
}

async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| {
        StartError(format!(
            "cannot listen on {address} ({what}): {error}; stop what uses it or choose another \
             address"
        ))
    })
}

async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Runs what must never end: without the driver of the budgets nobody who waits is served, and
/// nobody else brings deferred writes there. One that panics is replaced.
async fn keep_running<F>(name: &'static str, driver: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        // It is aborted with this task.
        let mut running = JoinSet::new();
        running.spawn(driver());
        let ended = running.join_next().await;
        tracing::error!(
            name,
            ?ended,
            "background task ended unexpectedly and is restarted"
        );
        tokio::time::sleep(DRIVER_PAUSE).await;
    }
}

async fn sweep(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        gateway.writes().forget_ended().await;
        gateway.writes().give_up_refused().await;
        gateway.quotas().forget_idle();
        gateway.cache().tidy();
    }
}
