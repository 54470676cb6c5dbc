//! The log of the process: destination, form and level of its lines.
//!
//! Lines are formatted by the thread that logs, and written to standard error by a thread of their
//! own (`telemetry/output.rs`). An end of the process that this program can see, a panic included,
//! waits for the lines before it.
//!
//! A warning or an error of one kind is written once in ten seconds, with the number of those that
//! were left out (`telemetry/suppression.rs`). The line about a request is always written.

mod fields;
mod limiter;
mod line_time;
mod names;
mod output;
mod suppression;

use crate::audit::AUDIT;
use crate::clock::Clock;
use crate::config::{LogFormat, LogLevel};
use crate::credential::CredentialNames;
use crate::swap::Swap;
use fields::TextFields;
use line_time::LineTime;
use names::NamedLines;
use output::{LogOutput, PAUSE};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io, panic};
use suppression::{LimitedFormat, Suppression};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// The longest time that the end of the process waits for its last lines. Only a reader that takes
/// nothing needs it.
const LAST_LINES: Duration = Duration::from_secs(1);
/// The same at a panic, which other requests may survive.
const BEFORE_PANIC: Duration = Duration::from_millis(100);

/// The log of this process, whose level can be changed while it runs.
pub struct LogHandle {
    level: Mutex<LogLevel>,
    apply: Box<dyn Fn(Targets) -> bool + Send + Sync>,
    output: LogOutput,
    names: Arc<Swap<CredentialNames>>,
    suppression: Arc<Suppression>,
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

    /// Writes these names behind the hashes of credentials in further lines.
    pub fn set_names(&self, names: CredentialNames) {
        self.names.set(names);
    }

    /// Returns the number of lines that were dropped because standard error did not take them.
    pub fn dropped(&self) -> u64 {
        self.output.dropped()
    }

    /// Writes how many warnings and errors were left out in troubles that are over. Call this on a
    /// timer, about once a second.
    pub fn write_suppressed(&self) {
        self.append(self.suppression.overdue());
    }

    /// Writes what was left out so far, and waits for all lines to be written. Called before the
    /// process ends; a reader that takes nothing delays that by a second.
    pub fn flush(&self) {
        self.append(self.suppression.finish());
        self.output.flush(LAST_LINES);
    }

    fn append(&self, lines: Vec<String>) {
        for line in lines {
            self.output.append(line.as_bytes(), true);
        }
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
/// If the process has a log already, or cannot start a thread.
pub fn start(format: LogFormat, level: LogLevel) -> io::Result<LogHandle> {
    let output = LogOutput::start(io::stderr(), PAUSE, |lines| {
        // Each of these has a number of its own.
        tracing::warn!(
            target: AUDIT,
            lines,
            "log lines dropped: standard error did not take them in time"
        );
    })?;
    let names = Arc::new(Swap::new(CredentialNames::default()));
    let (targets, handle) = reload::Layer::new(targets(filter(level)));
    let clock = Clock::system();
    let suppression = Arc::new(Suppression::new(format, clock.clone()));
    let limits = suppression.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(NamedLines::new(output.clone(), names.clone(), format))
        .with_timer(LineTime(clock))
        .with_target(false);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Text => registry
            .with(
                lines
                    .with_ansi(false)
                    .fmt_fields(TextFields)
                    .map_event_format(|inner| LimitedFormat::new(inner, limits))
                    .with_filter(targets),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(
                lines
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false)
                    .map_event_format(|inner| LimitedFormat::new(inner, limits))
                    .with_filter(targets),
            )
            .try_init(),
    }
    .map_err(io::Error::other)?;
    write_before_panics(output.clone());
    Ok(LogHandle {
        level: Mutex::new(level),
        apply: Box::new(move |targets| handle.reload(targets).is_ok()),
        output,
        names,
        suppression,
    })
}

/// Writes the lines before a panic ahead of its message, which goes to standard error directly. A
/// panic that ends the process at once loses none of them.
fn write_before_panics(output: LogOutput) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        output.flush(BEFORE_PANIC);
        report(panic);
    }));
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

/// Returns the levels by crate. Records are written at any level. HTTP libraries log whole requests
/// below `warn`, tokens included, so those lines are never written, whatever the configuration
/// says.
fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("segment_gateway", level)
        .with_target(AUDIT, level.max(LevelFilter::INFO))
        .with_target("tower_http", level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;
    use tracing_subscriber::fmt::MakeWriter;

    /// Keeps lines in memory.
    #[derive(Clone, Default)]
    pub(super) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Kept {
        /// The lines so far.
        pub(super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

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

    #[test]
    fn records_are_written_at_any_level() {
        for level in ["error", "warn", "info", "debug"] {
            let targets = targets(filter(LogLevel::named(level).unwrap()));
            assert!(targets.would_enable(AUDIT, &Level::INFO), "{level}");
            let other = targets.would_enable("segment_gateway::admin", &Level::INFO);
            assert_eq!(other, matches!(level, "info" | "debug"), "{level}");
        }
    }
}
