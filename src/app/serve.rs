//! The life of the process: from a configuration to the last connection.

use super::assembly::{scale_times, server_bounds, stack_bounds};
use super::certificates::Certificates;
use super::drain::{drain, hand_over};
use super::held_tokens::TokenFiles;
use super::listen::{bind_key, until};
use super::operators::{Operators, access};
use super::reload::{Reloader, Reloads, Targets};
use super::sandbox::{Inside, start_inside};
use super::start::{EarlierTraffic, recover, start};
use super::start_error::{AppError, failed};
use crate::admin::Admin;
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::gateway::Gateway;
use crate::gateway::connection::ConnectionServices;
use crate::server;
use crate::swap::Swap;
use crate::tasks;
use crate::telemetry::LogHandle;
use crate::version::{COMMIT, VERSION};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often idle callers and ended writes are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How often the log looks for counts that no line has brought along.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Pause before a driver that ended is started again, so that one that ends at once does not fill
/// the log.
const DRIVER_PAUSE: Duration = Duration::from_secs(1);

/// Runs the gateway until `stop`, then drains. The time scale of `inside` divides all windows, as
/// the sandbox does.
///
/// # Errors
/// If it cannot start.
pub async fn serve(
    mut loaded: Loaded,
    inside: Option<Inside>,
    log: Arc<LogHandle>,
    reloads: Reloads,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), AppError> {
    let clock = Clock::system();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let (stopping, stopped) = watch::channel(false);
    // The simulated API outlasts the drain, as the real one does.
    let (sandbox_stopping, sandbox_stopped) = watch::channel(false);
    let past = earlier_traffic(inside.as_ref());
    let scale = inside.as_ref().map_or(1, Inside::time_scale);
    scale_times(&mut loaded.config, scale);
    if let Some(inside) = inside {
        let url = start_inside(inside, clock.clone(), until(sandbox_stopped)).await?;
        loaded.config.upstream.url = url;
    }
    let config = loaded.config.clone();
    log.set_names(config.credentials.names.clone());
    let proxy_listener = bind_key(&loaded, "listen", config.listen).await?;
    let admin_listener = bind_key(&loaded, "admin.listen", config.admin.listen).await?;
    // What port 0 has become.
    let listen = proxy_listener.local_addr().map_err(failed)?;
    let admin_listen = admin_listener.local_addr().map_err(failed)?;
    // The state is held until the end: the lock of the directory is on it.
    let started = start(&loaded, scale, past, clock).await?;
    let gateway = started.gateway.clone();
    let certificates = Arc::new(open_certificates(&config, &gateway)?);
    recover(&gateway, started.left.as_deref()).await?;
    // Dropping this aborts the drivers.
    let tokens = started.tokens.clone();
    let _drivers = drivers(&gateway, &log, &certificates, &tokens);
    let (admin_stopping, admin_stopped) = watch::channel(false);
    let access = Arc::new(Swap::new(access(&config)?));
    let targets = Targets {
        gateway: gateway.clone(),
        access: access.clone(),
        certificates: certificates.clone(),
        tokens,
        log: log.clone(),
        simulated: past == EarlierTraffic::Empty,
        scale,
    };
    let reloader = Arc::new(Reloader::new(targets, loaded));
    let admin = Admin::new(gateway.clone(), access.clone(), &config.upstream.url).with_log(log);
    let operators = Operators::start(
        admin,
        &config,
        admin_listener,
        certificates.of_admin(),
        started.state.as_ref(),
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
    operators.report(&access.get(), &config);
    let front = ConnectionServices::new(gateway.clone(), stack_bounds(&config));
    let serving = tasks::detached(server::serve(
        proxy_listener,
        certificates.of_callers(),
        move |peer, certificate| front.connected(peer, certificate),
        server_bounds(&config),
        gateway.metrics().connections().clone(),
        until(stopped),
    ));
    let following = tasks::detached(reloader.clone().follow(reloads));
    stop.await;
    following.abort();
    drain(&gateway, reloader.drain_time(), &stopping, serving).await;
    let _ = admin_stopping.send(true);
    let _ = sandbox_stopping.send(true);
    operators.end();
    // After the last act of an operator.
    hand_over(&gateway).await;
    Ok(())
}

/// Returns what was sent before to an API that starts with this process, or to any other.
fn earlier_traffic(inside: Option<&Inside>) -> EarlierTraffic {
    inside.map_or(EarlierTraffic::Unknown, |_| EarlierTraffic::Empty)
}

/// Opens the certificates, which are counted in the gateway's metrics.
fn open_certificates(config: &Config, gateway: &Gateway) -> Result<Certificates, AppError> {
    Certificates::open(config, gateway.metrics(), gateway.clock().clone())
}

/// Starts what runs beside the requests; it ends when the returned set is dropped.
fn drivers(
    gateway: &Arc<Gateway>,
    log: &Arc<LogHandle>,
    certificates: &Arc<Certificates>,
    tokens: &Arc<TokenFiles>,
) -> JoinSet<()> {
    let mut drivers = JoinSet::new();
    let (budgets, writes) = (gateway.budgets().clone(), gateway.writes().clone());
    drivers.spawn(keep_running("budgets", move || budgets.clone().drive()));
    drivers.spawn(keep_running("deferred writes", move || {
        writes.clone().drive_deferred()
    }));
    drivers.spawn(sweep(gateway.clone()));
    drivers.spawn(write_suppressed(log.clone()));
    drivers.spawn(certificates.clone().watch());
    drivers.spawn(tokens.clone().watch(gateway.clone()));
    drivers
}

/// Runs what must never end: without the driver of the budgets no queued request is served, and
/// without that of deferred writes none is queued. One that panics is started again.
async fn keep_running<F>(name: &'static str, driver: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        // A set, so that the driver is aborted with this task.
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

/// Forgets periodically what is no longer needed.
async fn sweep(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        gateway.writes().forget_ended().await;
        gateway.writes().give_up_refused().await;
        gateway.quotas().forget_idle();
        gateway.cache().tidy();
    }
}

/// Writes into the log how many lines of a trouble that is over were left out.
async fn write_suppressed(log: Arc<LogHandle>) {
    loop {
        tokio::time::sleep(LOG_EVERY).await;
        log.write_suppressed();
    }
}
