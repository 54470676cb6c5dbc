//! Pure. The keys of the configuration: their sections, kinds and bounds, one line for each.

use super::read::{Document, Environment, Findings, Section};
use super::{Config, Size, units};
use std::time::Duration;

/// No wait is zero, and none outlives the age that an instant can be added to.
const MOMENT: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(366 * 86_400);
/// Far more than a machine has, far less than arithmetic bears.
const MANY: usize = 10_000_000;
const LARGE: Size = Size(1 << 40);
/// What the HTTP library needs to read a head at all.
const SMALLEST_HEAD: Size = Size::kib(8);

/// Reads a configuration over the defaults. What is wrong stands in the findings, and the value in
/// question is then the default.
pub fn read<'a>(
    document: Option<&'a Document<'a>>,
    environment: &'a Environment,
    findings: &'a mut Findings,
) -> Config {
    let mut config = Config::default();
    Section::root(document, environment, findings, |root| {
        root.key("mode", &mut config.mode);
        root.key("listen", &mut config.listen);
        bytes_out(root, &mut config);
        storage(root, &mut config);
        waiting(root, &mut config);
        bytes_in(root, &mut config);
    });
    config
}

fn bytes_out(root: &mut Section<'_>, config: &mut Config) {
    root.section("upstream", |section| {
        let upstream = &mut config.upstream;
        section.key("url", &mut upstream.url);
        section.key("allow_plain_http", &mut upstream.allow_plain_http);
        section.key("ca_file", &mut upstream.ca_file);
        section.within(
            "connect_timeout",
            &mut upstream.connect_timeout,
            MOMENT..=DAY,
        );
        section.within("head_timeout", &mut upstream.head_timeout, MOMENT..=DAY);
        section.within(
            "idle_body_timeout",
            &mut upstream.idle_body_timeout,
            MOMENT..=DAY,
        );
        section.within("total_timeout", &mut upstream.total_timeout, MOMENT..=DAY);
        section.within(
            "connection_lifetime",
            &mut upstream.connection_lifetime,
            MOMENT..=DAY,
        );
        section.within(
            "connection_idle",
            &mut upstream.connection_idle,
            MOMENT..=DAY,
        );
        section.key("http2", &mut upstream.http2);
    });
    root.section("routes", |section| {
        section.key("file", &mut config.routes.file);
        section.key("undocumented_reads", &mut config.routes.undocumented_reads);
        section.key(
            "undocumented_writes",
            &mut config.routes.undocumented_writes,
        );
    });
    root.section("budget", |section| {
        let budget = &mut config.budget;
        section.within("guard", &mut budget.guard, MOMENT..=DAY);
        section.within("late_arrival", &mut budget.late_arrival, MOMENT..=DAY);
        section.within("unknown_slots", &mut budget.unknown_slots, 1..=1_000_000);
        section.within("writes_at_once", &mut budget.writes_at_once, 1..=MANY);
        section.within("reads_at_once", &mut budget.reads_at_once, 1..=MANY);
    });
}

fn storage(root: &mut Section<'_>, config: &mut Config) {
    root.section("state", |section| {
        section.key("directory", &mut config.state.directory)
    });
    root.section("journal", |section| {
        let journal = &mut config.journal;
        section.key("key_file", &mut journal.key_file);
        section.within("keep", &mut journal.keep, MOMENT..=YEAR);
        section.within("writes", &mut journal.writes, 1..=MANY);
        section.within("bytes", &mut journal.bytes, Size(1)..=LARGE);
        section.within("ended_writes", &mut journal.ended_writes, 1..=MANY);
        section.within("ended_bytes", &mut journal.ended_bytes, Size(1)..=LARGE);
        section.key("workspaces", &mut journal.workspaces);
    });
    root.section("credentials", |section| {
        section.key("key_file", &mut config.credentials.key_file)
    });
    root.section("cache", |section| {
        let cache = &mut config.cache;
        section.within("bytes", &mut cache.bytes, Size(1)..=LARGE);
        section.within("largest_body", &mut cache.largest_body, Size(1)..=LARGE);
        section.within("fetches", &mut cache.fetches, 1..=MANY);
        section.within("marks", &mut cache.marks, 1..=MANY);
        section.within("settling", &mut cache.settling, Duration::ZERO..=DAY);
    });
}

fn waiting(root: &mut Section<'_>, config: &mut Config) {
    root.section("write", |section| {
        section.within("max_wait", &mut config.write.max_wait, MOMENT..=DAY);
    });
    root.section("read", |section| {
        section.within("max_wait", &mut config.read.max_wait, MOMENT..=DAY);
    });
    root.section("wait", |section| {
        section.within("cap", &mut config.wait.cap, MOMENT..=DAY);
        section.within(
            "caller_timeout",
            &mut config.wait.caller_timeout,
            None..=Some(DAY),
        );
    });
    root.section("queue", |section| {
        let queue = &mut config.queue;
        section.within("per_budget", &mut queue.per_budget, 1..=MANY);
        section.within("total", &mut queue.total, 1..=MANY);
        section.within("bytes", &mut queue.bytes, Size(1)..=LARGE);
    });
}

fn bytes_in(root: &mut Section<'_>, config: &mut Config) {
    root.section("admin", |section| {
        section.key("listen", &mut config.admin.listen);
        section.key("public", &mut config.admin.public);
        section.key("open", &mut config.admin.open);
        section.key("token_file", &mut config.admin.token_file);
        section.key("hosts", &mut config.admin.hosts);
    });
    root.section("callers", |section| {
        let callers = &mut config.callers;
        section.key("rate", &mut callers.rate);
        section.within("burst", &mut callers.burst, 1..=1_000_000_000);
        section.within("tracked", &mut callers.tracked, 1..=MANY);
        section.key("trust_header_from", &mut callers.trust_header_from);
    });
    root.section("server", |section| {
        let server = &mut config.server;
        section.within("header_timeout", &mut server.header_timeout, MOMENT..=DAY);
        section.within("idle_timeout", &mut server.idle_timeout, MOMENT..=DAY);
        section.within("connections", &mut server.connections, 2..=MANY);
        section.within(
            "header_bytes",
            &mut server.header_bytes,
            SMALLEST_HEAD..=Size::mib(16),
        );
        section.within(
            "body_bytes",
            &mut server.body_bytes,
            Size(1)..=Size::mib(1024),
        );
        section.within("bodies_bytes", &mut server.bodies_bytes, Size(1)..=LARGE);
        section.within("body_timeout", &mut server.body_timeout, MOMENT..=DAY);
        section.within("write_timeout", &mut server.write_timeout, MOMENT..=DAY);
        section.within(
            "response_timeout",
            &mut server.response_timeout,
            MOMENT..=DAY,
        );
    });
    root.section("shutdown", |section| {
        section.within(
            "drain",
            &mut config.shutdown.drain,
            Duration::ZERO..=units::LONGEST,
        );
    });
    root.section("log", |section| {
        section.key("format", &mut config.log.format);
        section.key("level", &mut config.log.level);
        section.key("access", &mut config.log.access);
    });
    root.section("tracing", |section| {
        let tracing = &mut config.tracing;
        section.key("otlp_endpoint", &mut tracing.otlp_endpoint);
        section.key("ca_file", &mut tracing.ca_file);
        section.within("sample_percent", &mut tracing.sample_percent, 0..=100);
        section.key("service_name", &mut tracing.service_name);
    });
}

#[cfg(test)]
mod tests;
