//! The end: requests in flight are carried out in time, the rest is rejected.
//!
//! The order is the promise: the gateway stops being ready and accepts no new connections; what can
//! end before the deadline does; then what waits is rejected, since it was not sent; what was sent
//! gets a last moment. A write that is still unanswered may have taken effect, and the log says so.

use crate::audit::{AUDIT, AuditEvent};
use crate::exchange::timing::millis;
use crate::gateway::Gateway;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the log reports the progress of the drain.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How long connections may close by themselves after the drain.
const LAST_GRACE: Duration = Duration::from_millis(500);
/// How long the collector has to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// How long the disk has to take the last record of the audit log.
const LAST_RECORD: Duration = Duration::from_secs(2);

/// Drains within `within`; `serving` ends when the last connection is closed.
pub(super) async fn drain(
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
    let progress = report_progress(gateway, gateway.clock().now() + within);
    let mut in_time = tokio::select! {
        biased;
        () = &mut ended => true,
        () = progress => false,
    };
    if !in_time {
        // What waits has not been sent and is rejected; the others have a last moment.
        gateway.budgets().end();
        in_time = tokio::time::timeout(LAST_GRACE, ended).await.is_ok();
    }
    gateway.budgets().complete_ledger();
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

/// Hands the last spans to the collector, and the last records to the audit log. Each has a bounded
/// time for it.
pub(super) async fn hand_over(gateway: &Arc<Gateway>) {
    if let Some(tracer) = gateway.tracer().cloned() {
        // Blocking: it waits for a thread that waits for the collector.
        let handing_over = tokio::task::spawn_blocking(move || tracer.finish(LAST_SPANS));
        let _ = handing_over.await;
    }
    let stop = gateway.audit().record_synced(vec![AuditEvent::Stop]);
    let recorded = tokio::time::timeout(LAST_RECORD, stop).await;
    if !matches!(recorded, Ok(Ok(()))) {
        tracing::error!("the stop, and perhaps more, is missing in the audit log");
    }
    if let Some(status) = gateway.audit().status() {
        tracing::info!(target: AUDIT, head = %status.head, "audit log head");
    }
}

/// Reports the progress of the drain in the log, until its deadline.
async fn report_progress(gateway: &Arc<Gateway>, deadline: Instant) {
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
                left_s = millis(deadline.saturating_duration_since(next)).round() / 1e3,
                "draining: requests are still in flight"
            );
        }
    }
}
