//! Pure. What of a new configuration takes effect while the gateway runs, and what waits for a
//! restart.

use super::Config;

/// What comes of a new configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What holds from now on: the new values where they can be taken over, the old ones elsewhere.
    pub config: Config,
    /// The keys whose new values are in it.
    pub applied: Vec<&'static str>,
    /// The keys whose new values wait for a restart.
    pub waiting: Vec<&'static str>,
}

/// Every key once, under what its change takes.
macro_rules! keys {
    (at_once: [$($($live:ident).+),+ $(,)?], restart: [$($($fixed:ident).+),+ $(,)?]) => {
        /// The keys that are taken over at once.
        const AT_ONCE: &[&str] = &[$(concat_key!($($live).+)),+];
        /// The keys that wait for a restart.
        #[cfg(test)]
        const RESTART: &[&str] = &[$(concat_key!($($fixed).+)),+];

        impl Change {
            /// What comes of `wanted` in the place of `running`.
            pub fn of(running: &Config, wanted: &Config) -> Self {
                let mut config = running.clone();
                let (mut applied, mut waiting) = (Vec::new(), Vec::new());
                $(if config.$($live).+ != wanted.$($live).+ {
                    config.$($live).+ = wanted.$($live).+.clone();
                    applied.push(concat_key!($($live).+));
                })+
                $(if running.$($fixed).+ != wanted.$($fixed).+ {
                    waiting.push(concat_key!($($fixed).+));
                })+
                let mut change = Self { config, applied, waiting };
                if change.waiting.contains(&"admin.listen") {
                    // Who may ask depends on who can reach it.
                    change.hold_back("admin.", |config| config.admin = running.admin.clone());
                }
                change
            }
        }
    };
}

/// Whether a reload applies a new value of this key.
pub(super) fn applies_on_reload(key: &str) -> bool {
    AT_ONCE.contains(&key)
}

impl Change {
    /// Lets all keys that begin so wait as well; `undo` gives them their old values.
    pub fn hold_back(&mut self, prefix: &str, undo: impl FnOnce(&mut Config)) {
        undo(&mut self.config);
        let (back, applied) = std::mem::take(&mut self.applied)
            .into_iter()
            .partition(|key| key.starts_with(prefix));
        self.applied = applied;
        self.waiting.extend::<Vec<_>>(back);
    }
}

macro_rules! concat_key {
    ($one:ident) => {
        stringify!($one)
    };
    ($one:ident . $two:ident) => {
        concat!(stringify!($one), ".", stringify!($two))
    };
}

keys! {
    at_once: [
    admin.public, admin.open, admin.token_file, admin.hosts,
    routes.file, routes.undocumented_reads, routes.undocumented_writes,
    cache.settling,
    write.max_wait, read.max_wait, wait.cap, wait.caller_timeout,
    queue.per_budget, queue.total, queue.bytes,
    callers.rate, callers.burst, callers.trust_header_from,
    server.body_bytes,
    shutdown.drain,
    log.level, log.access,
    ], restart: [
    mode, listen, admin.listen,
    upstream.url, upstream.allow_plain_http, upstream.ca_file, upstream.connect_timeout,
    upstream.head_timeout, upstream.idle_body_timeout, upstream.total_timeout,
    upstream.connection_lifetime, upstream.connection_idle, upstream.http2,
    budget.guard, budget.late_arrival, budget.unknown_slots, budget.writes_at_once,
    budget.reads_at_once,
    state.directory,
    journal.key_file, journal.keep, journal.writes, journal.bytes, journal.ended_writes,
    journal.ended_bytes, journal.workspaces,
    credentials.key_file,
    cache.bytes, cache.largest_body, cache.fetches, cache.marks,
    callers.tracked,
    server.header_timeout, server.idle_timeout, server.connections, server.header_bytes, server.bodies_bytes,
    server.body_timeout, server.write_timeout, server.response_timeout,
    log.format,
    tracing.otlp_endpoint, tracing.ca_file, tracing.sample_percent, tracing.service_name,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::read::{Environment, Findings};
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn every_key_of_the_configuration_is_under_one_of_both() {
        let mut findings = Findings::default();
        let _ = file::read(None, &Environment::default(), &mut findings);
        let known: BTreeSet<&str> = findings.known.iter().map(String::as_str).collect();
        let listed: Vec<&str> = AT_ONCE.iter().chain(RESTART).copied().collect();
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), known);
        assert_eq!(listed.len(), known.len(), "none is there twice");
    }

    #[test]
    fn who_may_ask_changes_together_with_where() {
        let running = Config::default();
        let mut wanted = running.clone();
        wanted.admin.open = true;
        assert_eq!(Change::of(&running, &wanted).applied, ["admin.open"]);
        wanted.admin.listen.set_port(1);
        wanted.log.level = super::super::LogLevel::Debug;
        let change = Change::of(&running, &wanted);
        assert_eq!(change.applied, ["log.level"]);
        assert_eq!(change.waiting, ["admin.listen", "admin.open"]);
        assert_eq!(change.config.admin, running.admin);
    }

    #[test]
    fn what_cannot_be_taken_over_stays_as_it_runs() {
        let running = Config::default();
        let mut wanted = running.clone();
        wanted.write.max_wait = Duration::from_secs(7);
        wanted.log.level = super::super::LogLevel::Debug;
        wanted.listen.set_port(1);
        wanted.cache.bytes = super::super::Size(5);
        let change = Change::of(&running, &wanted);
        assert_eq!(change.applied, ["write.max_wait", "log.level"]);
        assert_eq!(change.waiting, ["listen", "cache.bytes"]);
        assert_eq!(change.config.write, wanted.write);
        assert_eq!(change.config.listen, running.listen);
        // The same again changes nothing more, and still waits.
        let again = Change::of(&change.config, &wanted);
        assert_eq!(again.applied, Vec::<&str>::new());
        assert_eq!(again.waiting, change.waiting);
        assert_eq!(again.config, change.config);
    }
}
