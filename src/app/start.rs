//! The start: opens what the last process left, and builds a gateway that respects it.
//!
//! What was sent before is never assumed to be nothing: without a ledger the budgets start as on a
//! new node, and writes of the last process may still take effect. Only a sandbox that starts with
//! this process has an empty past.

use super::assembly::{Assembly, client};
use super::audit_log::open_audit_log;
use super::held_tokens::TokenFiles;
use super::keeping::Keeping;
use super::preflight::open_secrets;
use super::start_error::{AppError, failed};
use crate::clock::Clock;
use crate::config::{Config, Loaded, Mode};
use crate::credential::Hasher;
use crate::gateway::Gateway;
use crate::limit::ledger::{Ledger, LedgerSpec, Left, Opened, PastUsage};
use crate::state::{self, StateDirectory};
use crate::write::decision::RETRY_FOR;
use crate::write::durable::Recovered;
use std::sync::Arc;

/// What was sent to the API before this process started, where no ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlierTraffic {
    /// Nothing: the API is a sandbox that has just been started.
    Empty,
    /// Anything.
    Unknown,
}

/// A gateway that is built and not yet served.
pub(super) struct Started {
    /// Holds the lock of the directory: another process may have it once this is dropped.
    pub(super) state: Option<StateDirectory>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) tokens: Arc<TokenFiles>,
    /// Writes of the last process that may still take effect; `None` if unknown.
    pub(super) left: Option<Vec<Left>>,
}

/// Opens the state and assembles the gateway.
pub(super) async fn start(
    loaded: &Loaded,
    scale: u32,
    past: EarlierTraffic,
    clock: Clock,
) -> Result<Started, AppError> {
    let config = &loaded.config;
    let client = client(config, &clock)?;
    let table = loaded.table(scale).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        AppError(lines.join("\n"))
    })?;
    let directory = config.state.directory.as_deref();
    let in_directory = |error| AppError(loaded.at("state.directory", error));
    let state = directory
        .map(StateDirectory::open)
        .transpose()
        .map_err(|error| in_directory(failed(error)))?;
    for warning in open_secrets(loaded) {
        tracing::warn!("{warning}");
    }
    let key = match (&config.credentials.key_file, &state) {
        (Some(path), _) => state::key_file(path),
        (None, Some(state)) => state.key(),
        (None, None) => state::random_key(),
    };
    let hasher = Hasher::new(&key.map_err(failed)?);
    // Before the ledger: a start that a journal of another key ends has changed nothing.
    let keeping = Keeping::open(config, state.as_ref(), &hasher).await;
    let keeping = keeping.map_err(in_directory)?;
    let none = || (Ledger::none(clock.clone()), None, Some(Vec::new()));
    let (ledger, history, left) = match &state {
        Some(state) if config.mode == Mode::Shadow => {
            // What is forwarded is not recorded: the next process that enforces limits must not
            // believe that it knows all that was sent.
            state.forget_ledger().map_err(failed)?;
            state.mark_used().map_err(failed)?;
            none()
        }
        Some(state) => {
            let opened = open_ledger(config, state, &hasher, &clock).map_err(in_directory)?;
            state.mark_used().map_err(failed)?;
            (opened.ledger, opened.history, opened.left)
        }
        None if past == EarlierTraffic::Empty => (
            Ledger::none(clock.clone()),
            Some(PastUsage::new()),
            Some(Vec::new()),
        ),
        None => none(),
    };
    let clients = loaded.clients.registry(config.callers.credentials, &table);
    let assembly = Assembly {
        keeping: Keeping {
            // A simulated API ends with the process as well.
            outlasts: state.is_some() || past == EarlierTraffic::Empty,
            ..keeping
        },
        config: config.clone(),
        table,
        client,
        ledger,
        history,
        hasher,
        audit: open_audit_log(config, &clock).map_err(AppError)?,
        clock: clock.clone(),
    };
    let gateway = assembly.gateway()?;
    gateway
        .keep_revocations(clients, state.as_ref().map(StateDirectory::revoked))
        .map_err(failed)?;
    let remembered = state.as_ref().map(StateDirectory::tokens);
    let tokens = TokenFiles::open(&gateway, remembered)?;
    Ok(Started {
        state,
        gateway,
        tokens: Arc::new(tokens),
        left,
    })
}

/// Continues the durable writes of the last process.
pub(super) async fn recover(gateway: &Arc<Gateway>, left: Option<&[Left]>) -> Result<(), AppError> {
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

/// Opens the ledger of the state directory.
fn open_ledger(
    config: &Config,
    state: &StateDirectory,
    hasher: &Hasher,
    clock: &Clock,
) -> Result<Opened, AppError> {
    let path = state.ledger();
    let spec = LedgerSpec {
        key_check: hasher.hash(&[b"ledger"]),
        keep: config.budget.late_arrival.max(RETRY_FOR),
        expected: state.was_used(),
    };
    let opened = Ledger::open(&path, spec, clock.clone()).map_err(|error| {
        AppError(format!(
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
