//! The log and the runtime of a command that serves.

use super::output::Failure;
use crate::app::AppError;
use crate::config::Loaded;
use crate::telemetry::{self, LogHandle};
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// Starts the log, and runs what serves until it ends.
pub(super) fn run<F>(
    loaded: &Loaded,
    serve: impl FnOnce(Arc<LogHandle>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), AppError>>,
{
    let log = &loaded.config.log;
    let log = telemetry::start(log.format, log.level)
        .map_err(|error| format!("cannot start the log: {error}"))?;
    let log = Arc::new(log);
    let runtime = runtime(&mut Builder::new_multi_thread())?;
    // `serve` is called within the runtime, which handles signals from that moment on.
    let ended = runtime.block_on(async { serve(log.clone()).await });
    runtime.shutdown_background();
    // The last lines stand before the reason of a failure, which is written directly.
    log.flush();
    Ok(ended?)
}

/// Builds a runtime.
pub(super) fn runtime(builder: &mut Builder) -> Result<Runtime, Failure> {
    let runtime = builder.enable_all().build();
    Ok(runtime.map_err(|error| format!("cannot start the runtime: {error}"))?)
}
