//! The log of the process: destination, form and level of its lines.

use crate::config::{LogFormat, LogLevel};
use parking_lot::Mutex;
use std::fmt;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The log of this process, whose level can be changed while it runs.
pub struct LogHandle {
    level: Mutex<LogLevel>,
    apply: Box<dyn Fn(Targets) -> bool + Send + Sync>,
}

impl LogHandle {
    /// Returns the level from which lines are written.
    pub fn level(&self) -> LogLevel {
        *self.level.lock()
    }

    /// Writes lines from this level on. Returns whether that could be done.
    pub fn set(&self, level: LogLevel) -> bool {
        let mut current = self.level.lock();
        let done = (self.apply)(targets(filter(level)));
        if done {
            *current = level;
        }
        done
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({})", self.level().as_str())
    }
}

/// Starts the log on standard error: libraries from `warn` on, this program from `level` on.
///
/// # Errors
/// If the process has a log already.
pub fn start(format: LogFormat, level: LogLevel) -> Result<LogHandle, TryInitError> {
    let (targets, handle) = reload::Layer::new(targets(filter(level)));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Text => registry
            .with(lines.with_ansi(false).with_filter(targets))
            .try_init(),
        LogFormat::Json => registry
            .with(
                lines
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false)
                    .with_filter(targets),
            )
            .try_init(),
    }?;
    Ok(LogHandle {
        level: Mutex::new(level),
        apply: Box::new(move |targets| handle.reload(targets).is_ok()),
    })
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Returns the levels by crate. HTTP libraries log whole requests below `warn`, tokens included, so
/// those lines are never written, whatever the configuration says.
fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("segment_gateway", level)
        .with_target("tower_http", level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn libraries_that_tell_whole_requests_are_not_listened_to() {
        let targets = targets(LevelFilter::TRACE);
        for library in [
            "hyper::proto::h1::io",
            "h2::codec",
            "hyper_util::client",
            "rustls",
        ] {
            assert!(!targets.would_enable(library, &Level::INFO), "{library}");
            assert!(targets.would_enable(library, &Level::WARN), "{library}");
        }
        assert!(targets.would_enable("segment_gateway::gateway", &Level::TRACE));
    }
}
