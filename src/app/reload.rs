//! SIGHUP: the configuration is read anew while the gateway runs.
//!
//! All of it is checked before any of it holds: a bad file changes nothing. Budgets, queues, durable
//! writes and connections keep their state. What cannot be taken over is named and waits for a
//! restart.

use super::{StartError, access, assembly, scale_times};
use crate::admin::Access;
use crate::config::{Change, Config, Loaded, Problem};
use crate::gateway::{Gateway, Replacement};
use crate::route::{OperationDef, Table};
use crate::swap::Swap;
use crate::telemetry::Log;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Stands for the operations of the route table among the keys that wait for a restart.
const OPERATIONS: &str = "routes.file (operations were added, removed, moved or ordered otherwise)";

/// Reads the configuration that holds without what only this start knows.
pub type Source = Box<dyn Fn() -> Result<Loaded, Vec<Problem>> + Send + Sync>;

/// Where configurations come from after the first one.
pub struct Reloads {
    /// A message for each time that it is to be read anew.
    pub asked: mpsc::Receiver<()>,
    /// Reads it.
    pub source: Source,
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloads")
    }
}

/// What holds at present.
#[derive(Debug)]
struct Present {
    config: Config,
    operations: Vec<OperationDef>,
}

/// What a new configuration is applied to.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) gateway: Gateway,
    pub(super) access: Arc<Swap<Access>>,
    pub(super) log: Arc<Log>,
    /// The API is simulated inside, wherever the configuration says that it is.
    pub(super) simulated: bool,
    /// Divides what belongs to the API's time.
    pub(super) scale: u32,
}

/// Takes over new configurations.
#[derive(Debug)]
pub(super) struct Reloader {
    targets: Targets,
    present: Mutex<Present>,
}

impl Reloader {
    /// For a gateway that runs with `loaded`.
    pub(super) fn new(targets: Targets, loaded: Loaded) -> Self {
        let gateway = &targets.gateway;
        gateway.metrics.configured(gateway.clock.wall());
        Self {
            targets,
            present: Mutex::new(Present {
                config: loaded.config,
                operations: loaded.operations,
            }),
        }
    }

    /// How long requests may go on after the signal to stop.
    pub(super) fn drain_time(&self) -> Duration {
        self.present.lock().config.shutdown.drain
    }

    /// Takes over what comes, for as long as it is polled.
    pub(super) async fn follow(self: Arc<Self>, mut reloads: Reloads) {
        while reloads.asked.recv().await.is_some() {
            let source = reloads.source;
            // It reads files.
            let read = tokio::task::spawn_blocking(move || (source(), source));
            let Ok((loaded, again)) = read.await else {
                tracing::error!("the configuration cannot be read anew until the next start");
                return;
            };
            reloads.source = again;
            self.came(loaded);
        }
    }

    fn came(&self, loaded: Result<Loaded, Vec<Problem>>) {
        let told = loaded
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
            .and_then(|loaded| self.take_over(loaded).map_err(|why| vec![why.0]));
        match told {
            Ok(waiting) => self
                .targets
                .gateway
                .metrics
                .reconfigured(self.targets.gateway.clock.wall(), waiting),
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(%problem, "the new configuration cannot be used");
                }
                tracing::error!(
                    problems = problems.len(),
                    "the configuration was not reloaded: nothing has changed"
                );
                self.targets.gateway.metrics.not_reconfigured();
            }
        }
    }

    /// Takes over what can be; how many keys wait for a restart.
    fn take_over(&self, mut loaded: Loaded) -> Result<usize, StartError> {
        let mut present = self.present.lock();
        scale_times(&mut loaded.config, self.targets.scale);
        if self.targets.simulated {
            let url = &present.config.upstream.url;
            loaded.config.upstream.url.clone_from(url);
        }
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let mut change = Change::of(&present.config, &loaded.config);
        // Everything that can fail comes first. A file may have another token under the same name.
        let access = access(&change.config)?;
        let table = self.table(&present, &loaded, &change)?;
        let running = self.targets.gateway.table.get();
        let is_same = table
            .as_ref()
            .is_none_or(|table| Replacement::is_same(&running, table));
        if !is_same {
            change.waiting.push(OPERATIONS);
            change.applied.retain(|key| !key.starts_with("routes."));
            change.config.routes = present.config.routes.clone();
        }
        let table = table.filter(|_| is_same);
        if table.is_some() {
            present.operations = loaded.operations;
        }
        let has_table = table.is_some();
        let has_quotas = change.config.callers != present.config.callers;
        self.targets.gateway.replace(Replacement {
            table,
            settings: assembly::settings(&change.config),
            quotas: has_quotas.then(|| assembly::allowed(&change.config)),
            lines: assembly::line_bounds(&change.config),
        });
        self.targets.access.set(access);
        if change.config.log.level != present.config.log.level {
            let level = change.config.log.level;
            self.targets.gateway.set_debug(level.tells_of_requests());
            let _ = self.targets.log.set(level);
        }
        present.config = change.config;
        tracing::info!(
            changed = change.applied.join(", "),
            operations = has_table,
            "the configuration was reloaded"
        );
        if !change.waiting.is_empty() {
            tracing::warn!(
                keys = change.waiting.join(", "),
                "these keys have new values that wait for a restart"
            );
        }
        Ok(change.waiting.len())
    }

    /// The new route table, if there is one.
    fn table(
        &self,
        present: &Present,
        loaded: &Loaded,
        change: &Change,
    ) -> Result<Option<Table>, StartError> {
        let is_new = loaded.operations != present.operations
            || change.config.routes != present.config.routes;
        if !is_new {
            return Ok(None);
        }
        let table = loaded.table(self.targets.scale);
        let text = |problems: Vec<Problem>| {
            let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
            StartError(all.join("; "))
        };
        table.map(Some).map_err(text)
    }
}
