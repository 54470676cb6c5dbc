//! The signals of the process: SIGHUP reloads, SIGTERM and SIGINT stop.

use crate::tasks;
use crate::telemetry::LogHandle;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Returns a message for each SIGHUP; several at once are one.
pub(super) fn reload_signals() -> mpsc::Receiver<()> {
    let (reload, reloads) = mpsc::channel(1);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Handled from now on: until then it would end the process.
        match signal(SignalKind::hangup()) {
            Ok(mut hangups) => drop(tasks::detached(async move {
                while hangups.recv().await.is_some() {
                    let _ = reload.try_send(());
                }
            })),
            Err(error) => tracing::error!(%error, "cannot handle SIGHUP: it will end this process"),
        }
    }
    #[cfg(not(unix))]
    drop(reload);
    reloads
}

/// Returns a future that ends at SIGTERM or SIGINT, for a program that serves. A second one is
/// logged and ends the process at once.
pub(super) fn stop_signal(log: Arc<LogHandle>) -> impl Future<Output = ()> + Send {
    first_of_two(move || {
        tracing::warn!("second signal: stopping immediately");
        log.flush();
    })
}

/// Returns a future that ends at SIGTERM or SIGINT. Signals are handled from the call on, not only
/// once the future is polled: until then a signal would end the process without a drain. A second
/// one calls `last` and ends the process at once.
pub(super) fn first_of_two(
    last: impl FnOnce() + Send + 'static,
) -> impl Future<Output = ()> + Send {
    let (stop, stopped) = oneshot::channel();
    let mut signals = StopSignals::new();
    tasks::detached(async move {
        signals.recv().await;
        let _ = stop.send(());
        signals.recv().await;
        last();
        std::process::exit(1);
    });
    async move {
        if stopped.await.is_err() {
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
