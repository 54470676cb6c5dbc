//! `/status`: the gateway at this moment.
//!
//! Under the locks of the gateway only numbers are copied; documents are built from the copies, on
//! a thread of their own. Nothing here is decided: [`overview`](super::overview) ranks budgets and
//! [`findings`](super::findings) says what is wrong.

use super::advice::advice;
use super::findings::{Facts, findings};
use super::overview::{MOST_SHOWN, Overview};
use super::writes::{parameters, refused};
use super::{Admin, document};
use crate::credential::CredentialNames;
use crate::exchange::body::OuterBody;
use crate::gateway::recent::RejectionGroup;
use crate::limit::budgets::AccountState;
use crate::metrics::Levels;
use crate::version::{COMMIT, VERSION};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The time over which findings look back.
const MINUTE: Duration = Duration::from_secs(60);

impl Admin {
    /// Returns the levels of this moment, which `/metrics` and `/status` share.
    pub(super) fn levels(&self, accounts: &[AccountState]) -> Levels {
        let gateway = &self.gateway;
        // The store counts lazily; a scrape is often enough to bring it up to date.
        gateway.cache().tidy();
        let cache = gateway.cache().stats();
        Levels {
            cache_entries: cache.entries,
            cache_bytes: cache.bytes,
            cache_evictions: cache.evictions,
            fetches: cache.fetches,
            marks: cache.marks,
            waiting: accounts.iter().map(|account| account.waiting).sum(),
            tasks: gateway.tasks().under_way(),
            panics: gateway.tasks().panicked(),
            callers: gateway.quotas().tracked(),
            broken: gateway.attempts().breaker().lock().is_open(),
            durable: gateway.writes().durable().levels(gateway.clock().wall()),
            ledger: gateway.budgets().has_ledger(),
            ready: self.not_ready().is_empty(),
            log_dropped: self.log.as_ref().map_or(0, |log| log.dropped()),
            uptime: self.uptime().as_secs_f64(),
        }
    }

    /// Returns the reasons for which the gateway takes no requests; none if it is ready.
    fn not_ready(&self) -> Vec<&'static str> {
        let mut why = Vec::new();
        if self.gateway.is_draining() {
            // While requests in flight are finished. A load balancer takes the node out of
            // rotation.
            why.push("stopping: no new requests are taken");
        }
        if !self.gateway.budgets().is_driven() {
            // The task that serves the queues has ended. Stored responses still work, everything
            // else would wait until its deadline.
            why.push("budgets: nobody serves those who wait; the log says why");
        }
        why
    }

    /// Returns 200 or 503, and the reasons.
    pub(super) fn ready(&self) -> Response<OuterBody> {
        let not_ready = self.not_ready();
        let status = if not_ready.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let ready = not_ready.is_empty();
        document(status, &json!({ "ready": ready, "notReady": not_ready }))
    }

    /// Responds to a request for `/status`.
    pub(super) async fn status_page(&self, query: Option<&str>) -> Response<OuterBody> {
        match parameters(query, &["filter"]) {
            Ok(mut given) => {
                let filter = given.remove("filter");
                let build = move |admin: &Self| {
                    let now = admin.gateway.clock().now();
                    let (status, _) = admin.status(now, filter.as_deref());
                    document(StatusCode::OK, &status)
                };
                self.built(build).await
            }
            Err(error) => refused(&error),
        }
    }

    /// Returns the document of `/status`, which the live page shows as well, and the budgets in it.
    pub(super) fn status(&self, now: Instant, filter: Option<&str>) -> (Value, Overview) {
        let accounts = self.accounts();
        let levels = self.levels(&accounts);
        let names = &self.gateway.router().settings.get().names;
        let overview = Overview::of(accounts, MOST_SHOWN, filter, names);
        let rejections = self.gateway.recent_rejections().lock().groups(now);
        let not_ready = self.not_ready();
        let lanes_closed_for = self.gateway.writes().all_lanes_closed_for();
        let minute = self.past.lock().recent(now, MINUTE);
        // With a filter the first one shown may not be the worst of all.
        let worst = overview.shown().first().filter(|_| filter.is_none());
        // Kept for longer, but a finding is about now.
        let mut of_late = rejections
            .iter()
            .filter(|(group, _)| group.age(now) < MINUTE);
        let is_journal = |(group, _): &&(RejectionGroup, u32)| {
            let kinds = ["gateway-journal-full", "gateway-journal-broken"];
            kinds.contains(&group.latest.kind)
        };
        let journal = of_late.clone().find(is_journal);
        let frequent = of_late.next().map(|(group, count)| {
            let latest = &group.latest;
            (latest.operation.as_ref(), latest.kind, *count)
        });
        let found = findings(&Facts {
            not_ready: &not_ready,
            broken: levels.broken,
            lanes_closed_for,
            panics: levels.panics,
            paused: levels.durable.paused - levels.durable.rejected,
            rejected_credentials: levels.durable.rejected,
            minute: &minute,
            rejection: frequent,
            journal: journal.map(|(group, _)| group.latest.kind),
            worst,
        });
        let found: Vec<Value> = found.iter().map(|finding| finding.document()).collect();
        let rejections: Vec<Value> = rejections
            .iter()
            .map(|(group, count)| rejection(group, *count, now, names))
            .collect();
        let status = json!({
            "version": VERSION,
            "commit": COMMIT,
            "mode": self.gateway.mode(),
            "uptimeSeconds": levels.uptime,
            "ready": levels.ready,
            "notReady": not_ready,
            "findings": found,
            "upstream": self.upstream.as_ref(),
            "ledger": levels.ledger,
            "writesWaitForTheApi": levels.broken,
            "lanesClosedSeconds": lanes_closed_for.map(|left| left.as_secs_f64()),
            "queued": levels.waiting,
            "tasksInFlight": levels.tasks,
            "tasksPanicked": levels.panics,
            "callersTracked": levels.callers,
            "durableWrites": {
                "queued": levels.durable.queued,
                "dispatched": levels.durable.dispatched,
                "paused": levels.durable.paused,
                "bytes": levels.durable.bytes,
                "oldestSeconds": levels.durable.oldest,
            },
            "cache": {
                "entries": levels.cache_entries,
                "bytes": levels.cache_bytes,
                "evictions": levels.cache_evictions,
                "fetchesInFlight": levels.fetches,
                "marks": levels.marks,
            },
            "recentRejections": rejections,
            "queue": overview.queue(),
            "budgetSums": overview.sums(),
            "budgets": overview.budgets(names),
        });
        (status, overview)
    }
}

/// Returns a group of rejections, with what to do about it.
fn rejection(group: &RejectionGroup, count: u32, now: Instant, names: &CredentialNames) -> Value {
    let latest = &group.latest;
    let (cause, action) = advice(latest.kind);
    let credential = latest.credential.map(|credential| credential.to_string());
    json!({
        "secondsAgo": group.age(now).as_secs_f64(),
        "operation": latest.operation.as_ref(),
        "type": latest.kind,
        "status": latest.status.as_u16(),
        "count": count,
        "credential": credential,
        "credentialName": credential.as_deref().and_then(|hash| names.of(hash)),
        "client": latest.client.as_deref(),
        "peer": latest.peer.map(|peer| peer.to_string()),
        "cause": cause.as_str(),
        "action": action,
    })
}
