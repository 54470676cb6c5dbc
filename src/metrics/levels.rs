//! Levels that are read at each scrape, unlike what is counted as it happens.

use super::families::Families;
use prometheus::IntCounter;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One budget at the time of a scrape, over all credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BudgetGauge {
    /// The limit of the credential that uses the budget most.
    pub limit: u32,
    /// The occupied slots of that credential.
    pub used: u32,
    /// Requests queued, over all credentials.
    pub waiting: usize,
    /// Seconds that the first of them has waited.
    pub oldest: f64,
    /// Seconds until a new request would be sent, for the slowest credential.
    pub next_free: f64,
    /// Credentials that use the budget.
    pub credentials: u32,
    /// Seconds for which a 429 keeps the budget closed, for the slowest credential.
    pub closed: f64,
}

/// The other levels that are read at a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Levels {
    /// Entries of the cache.
    pub cache_entries: u64,
    /// Bytes of the cache.
    pub cache_bytes: u64,
    /// Entries evicted since the start.
    pub cache_evictions: u64,
    /// Shared fetches in flight.
    pub fetches: usize,
    /// Marks of the fence.
    pub marks: usize,
    /// Requests queued for a budget.
    pub waiting: usize,
    /// Running tasks.
    pub tasks: usize,
    /// Tasks that panicked since the start.
    pub panics: usize,
    /// Callers tracked by the quotas.
    pub callers: usize,
    /// Whether attempts are recorded for the next start.
    pub ledger: bool,
    /// Whether the gateway accepts requests.
    pub ready: bool,
    /// Whether writes wait for the API to respond again.
    pub broken: bool,
    /// Durable writes.
    pub durable: DurableGauge,
    /// Log lines dropped since the start.
    pub log_dropped: u64,
    /// Seconds since the start.
    pub uptime: f64,
}

/// Durable writes at the time of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DurableGauge {
    /// Writes waiting for their turn.
    pub queued: usize,
    /// Writes in flight.
    pub dispatched: usize,
    /// Paused credentials and operations.
    pub paused: usize,
    /// The credentials among them that are paused because the API rejects them.
    pub rejected: usize,
    /// Bytes of all their requests.
    pub bytes: usize,
    /// Seconds since the oldest of them was accepted.
    pub oldest: f64,
}

/// The audit log at the time of a scrape.
#[derive(Clone, Copy, Debug)]
pub struct AuditLevels<'a> {
    /// The records since the start, by kind.
    pub records: &'a BTreeMap<&'static str, u64>,
    /// The events that were lost since the start.
    pub lost: u64,
    /// Whether the log could not be written at the last attempt.
    pub failing: bool,
}

/// Shows the present levels.
pub(super) fn set(families: &Families, budgets: &[(Arc<str>, BudgetGauge)], levels: &Levels) {
    for (name, gauge) in budgets {
        set_budget(families, name, gauge);
    }
    families.cache_entries.set(whole(levels.cache_entries));
    families.cache_bytes.set(whole(levels.cache_bytes));
    raise(&families.cache_evictions, levels.cache_evictions);
    families.fetches.set(whole(levels.fetches as u64));
    families.marks.set(whole(levels.marks as u64));
    families.queued.set(whole(levels.waiting as u64));
    families.tasks.set(whole(levels.tasks as u64));
    raise(&families.task_panics, levels.panics as u64);
    families.callers.set(whole(levels.callers as u64));
    families.ledger.set(i64::from(levels.ledger));
    families.ready.set(i64::from(levels.ready));
    families.breaker_open.set(i64::from(levels.broken));
    raise(&families.log_dropped, levels.log_dropped);
    families.uptime.set(levels.uptime);

    let durable = &levels.durable;
    let states = [
        ("queued", durable.queued),
        ("dispatched", durable.dispatched),
    ];
    for (state, writes) in states {
        let gauge = families.durable_writes.with_label_values(&[state]);
        gauge.set(whole(writes as u64));
    }
    families.durable_paused.set(whole(durable.paused as u64));
    families.durable_bytes.set(whole(durable.bytes as u64));
    families.durable_oldest.set(durable.oldest);
}

/// Shows the state of the audit log.
pub(super) fn set_audit(families: &Families, audit: &AuditLevels<'_>) {
    for (kind, records) in audit.records {
        let counter = families.audit_records.with_label_values(&[kind]);
        raise(&counter, *records);
    }
    raise(&families.audit_lost, audit.lost);
    families.audit_failing.set(i64::from(audit.failing));
}

fn set_budget(families: &Families, name: &str, gauge: &BudgetGauge) {
    let integers = [
        (&families.budget_limit, i64::from(gauge.limit)),
        (&families.budget_used, i64::from(gauge.used)),
        (&families.budget_credentials, i64::from(gauge.credentials)),
        (&families.queue_length, whole(gauge.waiting as u64)),
    ];
    for (family, level) in integers {
        family.with_label_values(&[name]).set(level);
    }
    let seconds = [
        (&families.budget_next_slot, gauge.next_free),
        (&families.budget_closed, gauge.closed),
        (&families.queue_oldest, gauge.oldest),
    ];
    for (family, level) in seconds {
        family.with_label_values(&[name]).set(level);
    }
    // Creates the series, so that the first foreign request is an increase.
    families.foreign.with_label_values(&[name]);
}

/// Raises a counter to a total that was counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// Returns the level as a gauge takes it.
pub(super) fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
