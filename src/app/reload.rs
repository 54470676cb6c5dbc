//! SIGHUP: the configuration is read again while the gateway runs.
//!
//! Everything is checked before anything is applied: a bad file changes nothing. Budgets, queues,
//! durable writes and connections keep their state. What a reload does not apply is named in the
//! log and waits for a restart.
//!
//! Which keys a reload applies stands in `config/keys.rs`; `gateway/reload.rs` replaces the parts.
//! Reloads come one after the other; several signals during one are one more.

use super::assembly;
use super::certificates::Certificates;
use super::held_tokens::TokenFiles;
use super::operators::access;
use crate::admin::Access;
use crate::audit::{AUDIT, AuditEvent};
use crate::clients::Clients;
use crate::config::{self, ClientsFile, Config, ConfigChange, ConfigProblem, Loaded};
use crate::gateway::Gateway;
use crate::gateway::reload::Replacement;
use crate::route::{OperationDef, Table};
use crate::swap::Swap;
use crate::telemetry::LogHandle;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The entry for the operations of the route table among the keys that wait for a restart.
const OPERATIONS: &str = "the operations of the route table (added, removed, moved, or with other \
    tags, order, budgets or windows)";

/// How long reading may take before the log reports it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the configuration that holds without what only this start knows.
pub type ConfigSource = Arc<dyn Fn() -> Result<Loaded, Vec<ConfigProblem>> + Send + Sync>;

/// The source of configurations after the first one.
pub struct Reloads {
    /// A message for each reload.
    pub asked: mpsc::Receiver<()>,
    /// Reads it.
    pub source: ConfigSource,
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloads")
    }
}

/// The configuration in effect: that of the start, with the values that reloads applied.
#[derive(Debug)]
struct Present {
    /// Values as they are applied: with times of the API already divided by the scale.
    config: Config,
    /// The operations of the table in use. Those of a table that waits for a restart are not here,
    /// so that the next reload finds them changed again.
    operations: Vec<OperationDef>,
    /// The clients in use.
    clients: ClientsFile,
}

/// The parts to which a new configuration is applied.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) gateway: Arc<Gateway>,
    pub(super) access: Arc<Swap<Access>>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) tokens: Arc<TokenFiles>,
    pub(super) log: Arc<LogHandle>,
    /// Whether the API is simulated inside, whatever `upstream.url` says.
    pub(super) simulated: bool,
    /// The divisor of times that belong to the API.
    pub(super) scale: u32,
}

/// Applies new configurations.
#[derive(Debug)]
pub(super) struct Reloader {
    /// Fixed for the life of the process.
    targets: Targets,
    /// Locked for the whole of a reload, and for a moment at a stop.
    present: Mutex<Present>,
}

impl Reloader {
    /// Creates the reloader of a gateway that runs with `loaded`.
    pub(super) fn new(targets: Targets, loaded: Loaded) -> Self {
        let gateway = &targets.gateway;
        gateway.metrics().configured(gateway.clock().wall());
        Self {
            targets,
            present: Mutex::new(Present {
                config: loaded.config,
                operations: loaded.operations,
                clients: loaded.clients,
            }),
        }
    }

    /// Returns how long requests may go on after the signal to stop, as the last reload has it.
    pub(super) fn drain_time(&self) -> Duration {
        self.present.lock().config.shutdown.drain
    }

    /// Applies what is asked for, as long as it is polled.
    pub(super) async fn follow(self: Arc<Self>, mut reloads: Reloads) {
        while reloads.asked.recv().await.is_some() {
            let (source, reloader) = (reloads.source.clone(), self.clone());
            // Blocking: reading a file may take any time.
            let mut read = tokio::task::spawn_blocking(move || reloader.apply(source()));
            // A read that hangs is reported once, then waited for: two must not run at a time.
            let read = match tokio::time::timeout(PATIENCE, &mut read).await {
                Ok(read) => read,
                Err(_) => {
                    self.failed(&[
                        "a file of it is still being read; is it a pipe, or on a disk \
                        that does not answer?"
                            .to_owned(),
                    ]);
                    read.await
                }
            };
            if read.is_err() {
                self.failed(&["reading it panicked".to_owned()]);
            }
        }
    }

    /// Applies what was read, or reports why it cannot be.
    fn apply(&self, loaded: Result<Loaded, Vec<ConfigProblem>>) {
        let taken = loaded.map_err(|problems| texts(&problems));
        let taken = taken.and_then(|loaded| self.take_over(loaded));
        match taken {
            Ok(waiting) => {
                // After the configuration, which was checked with these files. They may have
                // changed since; a mistake leaves the certificate before in use.
                self.targets.certificates.refresh();
                self.targets.tokens.look_soon();
                let gateway = &self.targets.gateway;
                gateway.metrics().reloaded(gateway.clock().wall(), waiting);
            }
            Err(problems) => self.failed(&problems),
        }
    }

    /// Reports a configuration that is not applied: each problem in the log, once in the metrics.
    fn failed(&self, problems: &[String]) {
        for problem in problems {
            tracing::error!(%problem, "configuration cannot be used");
        }
        tracing::error!(
            problems = problems.len(),
            "configuration reload failed: the previous configuration stays in effect"
        );
        let gateway = &self.targets.gateway;
        gateway.metrics().reload_failed();
        // What is wrong stands in the log. A problem may quote the file, so the audit log has only
        // their number.
        gateway.audit().record(AuditEvent::Reload {
            problems: problems.len(),
            changed: Vec::new(),
            keys_added: Vec::new(),
            keys_removed: Vec::new(),
            clients: 0,
        });
    }

    /// Applies what a reload can, and returns how many keys wait for a restart. Everything that can
    /// fail comes first.
    fn take_over(&self, mut loaded: Loaded) -> Result<usize, Vec<String>> {
        // Before the lock: reading the token file may take any time. It is read at each reload,
        // because the file may have another token under the same name.
        let access = access(&loaded.config).map_err(|why| vec![why.0])?;
        assembly::scale_times(&mut loaded.config, self.targets.scale);
        // Held until the end: two reloads never mix.
        let mut present = self.present.lock();
        // The address of a simulated API is this process's own, whatever the file says.
        if self.targets.simulated {
            let url = &present.config.upstream.url;
            // Otherwise the key would count as changed and wait for a restart that changes nothing.
            loaded.config.upstream.url.clone_from(url);
        }
        // `change.config` is what will be in effect: new values where a reload applies them, old
        // ones elsewhere. Everything below reads that, and not `loaded.config`.
        let mut change = ConfigChange::of(&present.config, &loaded.config);
        let table = self.table(&present, &loaded, &change)?;
        let running = self.targets.gateway.router().table.get();
        // Only a table with the same operations, order and budgets is replaced while requests are
        // in flight. Any other waits for a restart, together with all keys of its section.
        let is_same = |table: &Table| Replacement::is_same(&running, table);
        if table.as_ref().is_some_and(|table| !is_same(table)) {
            let routes = present.config.routes.clone();
            change.hold_back("routes.", |config| config.routes = routes);
            change.waiting.push(OPERATIONS);
        }
        let table = table.filter(is_same);
        // The last check. Nothing below this line fails.
        agree(&change)?;
        warn(&loaded, &change);
        // For the audit log, which names the keys that come and go.
        let keys_before = keys(&present.clients);
        // With rights over the table that holds from now on, whichever of the two that is. Its
        // operations are the same in any case.
        let clients = clients(
            &mut present,
            &loaded,
            &mut change,
            table.as_ref().unwrap_or(&running),
        );
        let has_table = table.is_some();
        if has_table {
            present.operations = loaded.operations;
        }
        let quotas = assembly::allowed(&change.config);
        // New quotas start with nothing used, so unchanged ones are kept.
        let has_quotas = quotas != assembly::allowed(&present.config);
        self.targets.gateway.replace(Replacement {
            table,
            clients,
            settings: assembly::settings(&change.config),
            quotas: has_quotas.then_some(quotas),
            lines: assembly::line_bounds(&change.config),
        });
        // If a key of the section waits, so does the token: access is one decision.
        if change.config.admin == loaded.config.admin {
            if access.token != self.targets.access.get().token {
                change.applied.push("the admin token");
            }
            self.targets.access.set(access);
        }
        let names = &change.config.credentials.names;
        self.targets.log.set_names(names.clone());
        let level = change.config.log.level;
        // Compared, so that a level set through `/log` survives a reload that does not change it.
        if level != present.config.log.level {
            self.targets.gateway.set_debug(level.tells_of_requests());
            let from = self.targets.log.level();
            let is_set = self.targets.log.set(level);
            // An operator may have set it to that level before.
            if is_set && from != level {
                // A record, so that a lower level does not hide why the log has less.
                tracing::info!(
                    target: AUDIT,
                    from = from.as_str(),
                    to = level.as_str(),
                    "log level changed by the configuration"
                );
            }
        }
        tracing::info!(
            changed = change.applied.join(", "),
            operations = has_table,
            "configuration reloaded"
        );
        self.record(&change, &keys_before, &present.clients);
        if !change.waiting.is_empty() {
            tracing::warn!(
                keys = change.waiting.join(", "),
                "changed keys take effect at the next restart"
            );
        }
        present.config = change.config;
        Ok(change.waiting.len())
    }

    /// Records a reload in the audit log, with the keys that it added and removed.
    ///
    /// An id says which key of a client it was. Values of the configuration are not recorded, only
    /// the names of what has changed.
    fn record(&self, change: &ConfigChange, keys_before: &BTreeSet<String>, clients: &ClientsFile) {
        let keys = keys(clients);
        let of = |keys: &BTreeSet<String>, others| keys.difference(others).cloned().collect();
        // What an operator has to approve afterwards: who got in, and who is out.
        self.targets.gateway.audit().record(AuditEvent::Reload {
            problems: 0,
            changed: change.applied.iter().map(ToString::to_string).collect(),
            keys_added: of(&keys, keys_before),
            keys_removed: of(keys_before, &keys),
            clients: clients.clients.len(),
        });
    }

    /// Returns the new route table, if it differs. It is built even if it will have to wait, so
    /// that its mistakes are reported now.
    fn table(
        &self,
        present: &Present,
        loaded: &Loaded,
        change: &ConfigChange,
    ) -> Result<Option<Table>, Vec<String>> {
        let is_new = loaded.operations != present.operations
            || change.config.routes != present.config.routes;
        if !is_new {
            return Ok(None);
        }
        let table = loaded.table(self.targets.scale);
        table.map(Some).map_err(|problems| texts(&problems))
    }
}

/// Returns the new clients, if they or the mode changed, with rights over the table in effect from
/// now on. An operation that this table does not have, because a restart is to bring it, is
/// nobody's right until then.
fn clients(
    present: &mut Present,
    loaded: &Loaded,
    change: &mut ConfigChange,
    table: &Table,
) -> Option<Clients> {
    let mode = change.config.callers.credentials;
    // An unchanged file keeps the registry, so that connections need not find their senders again.
    let has_others = loaded.clients != present.clients;
    if !has_others && mode == present.config.callers.credentials {
        return None;
    }
    if has_others {
        change.applied.push("the file of clients");
        present.clients.clone_from(&loaded.clients);
    }
    Some(loaded.clients.registry(mode, table))
}

/// Returns the keys of a file of clients, each as the name of its client and its id. An id is no
/// secret; it is in logs as well.
fn keys(file: &ClientsFile) -> BTreeSet<String> {
    let of_all = file.clients.iter().map(|client| {
        let keys = client.keys.iter();
        keys.map(|key| format!("{}/{}", client.name, key.id))
    });
    of_all.flatten().collect()
}

/// Returns each problem as a line of the log.
fn texts(problems: &[ConfigProblem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Checks that new values agree with old ones that wait for a restart. Each configuration was
/// checked as a whole; what is in effect now is a mixture of two.
fn agree(change: &ConfigChange) -> Result<(), Vec<String>> {
    let problems = texts(&config::contradictions(&change.config));
    if problems.is_empty() {
        return Ok(());
    }
    let waiting = change.waiting.join(", ");
    let why = |problem| format!("{problem}; until a restart the old values hold of {waiting}");
    Err(problems.into_iter().map(why).collect())
}

/// Logs the warnings about the configuration in effect from now on.
fn warn(loaded: &Loaded, change: &ConfigChange) {
    // `loaded` has warnings about the file, which may differ from what is in effect: only those of
    // its route table are taken over.
    let warnings = |of: &Config| config::warnings(of, config::has_admin_token(of));
    let of_file = warnings(&loaded.config);
    let of_routes = loaded.warnings.iter();
    let of_routes = of_routes.filter(|warning| !of_file.contains(warning));
    for warning in warnings(&change.config).iter().chain(of_routes) {
        tracing::warn!("{warning}");
    }
}
