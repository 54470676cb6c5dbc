//! Writing at most one warning or error of a kind in ten seconds.
//!
//! A full disk or an API that is away makes each request log the same line. The formatter in this
//! file writes what [`limiter`](super::limiter) lets through, and adds the number of lines that
//! were left out. Whatever logs a warning need not know of this.
//!
//! Lines below a warning pass, and so do records ([`AUDIT`]) and those of the start, the reload and
//! the stop, which name one mistake each from one place in the source.

use super::LineTime;
use super::fields::EscapedLine;
use super::limiter::{LineDecision, LineLimiter, SuppressedLines, WINDOW};
use crate::audit::AUDIT;
use crate::clock::Clock;
use crate::config::LogFormat;
use parking_lot::Mutex;
use serde_json::json;
use std::fmt::{self, Debug, Write as _};
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The modules whose lines no request causes.
const OF_THE_PROCESS: [&str; 2] = ["segment_gateway::app", "segment_gateway::cli"];

/// The counts of what was left out. Shared by the formatter and whoever writes the last counts.
#[derive(Debug)]
pub(super) struct Suppression {
    limiter: Mutex<LineLimiter>,
    format: LogFormat,
    clock: Clock,
}

impl Suppression {
    /// Creates one for lines in this format.
    pub(super) fn new(format: LogFormat, clock: Clock) -> Self {
        Self {
            limiter: Mutex::default(),
            format,
            clock,
        }
    }

    /// Returns the lines with the counts that no further line has brought along.
    pub(super) fn overdue(&self) -> Vec<String> {
        let overdue = self.limiter.lock().overdue(self.clock.now());
        overdue.iter().map(|lines| self.line(lines)).collect()
    }

    /// Returns the lines with all counts.
    pub(super) fn finish(&self) -> Vec<String> {
        let rest = self.limiter.lock().finish();
        rest.iter().map(|lines| self.line(lines)).collect()
    }

    fn decide(&self, event: &Event<'_>) -> LineDecision {
        let about = event.metadata();
        let message = || {
            let mut message = MessageVisitor(String::new());
            event.record(&mut message);
            message.0
        };
        // The name of an event is its file and line.
        let (place, now) = (about.name(), self.clock.now());
        let mut limiter = self.limiter.lock();
        limiter.decide(place, *about.level(), message, now)
    }

    /// Returns the line that has only a count.
    fn line(&self, lines: &SuppressedLines) -> String {
        let mut time = String::new();
        let time_format = LineTime(self.clock.clone());
        // Writing to a string cannot fail.
        let _ = time_format.format_time(&mut Writer::new(&mut time));
        let mut line = match self.format {
            LogFormat::Text => {
                let mut line = format!("{time} {:>5} ", lines.level.as_str());
                let _ = EscapedLine::new(Writer::new(&mut line)).write_str(&lines.message);
                line
            }
            LogFormat::Json => json!({
                "timestamp": time,
                "level": lines.level.as_str(),
                "message": lines.message,
            })
            .to_string(),
        };
        line.push('\n');
        self.add_count(&mut line, lines.count);
        line
    }

    /// Adds the number of the lines that were left out to a line.
    fn add_count(&self, line: &mut String, suppressed: u64) {
        // Neither a line nor an object is empty, so there is something before its end.
        let end = match self.format {
            LogFormat::Text => "\n",
            LogFormat::Json => "}\n",
        };
        let Some(whole) = line.strip_suffix(end) else {
            return;
        };
        line.truncate(whole.len());
        let _ = match self.format {
            LogFormat::Text => {
                let seconds = WINDOW.as_secs();
                write!(line, " ({suppressed} more in the last {seconds} s)")
            }
            LogFormat::Json => write!(line, ",\"suppressed\":{suppressed}"),
        };
        line.push_str(end);
    }
}

/// Returns whether lines like this one are limited.
fn is_limited(about: &Metadata<'_>) -> bool {
    let target = about.target();
    *about.level() <= Level::WARN
        && target != AUDIT
        && !OF_THE_PROCESS.iter().any(|of| target.starts_with(of))
}

/// A formatter of lines that leaves some out. The layer writes nothing for an event without text.
#[derive(Debug)]
pub(super) struct LimitedFormat<F> {
    inner: F,
    suppression: Arc<Suppression>,
}

impl<F> LimitedFormat<F> {
    /// Wraps the formatter `inner`.
    pub(super) fn new(inner: F, suppression: Arc<Suppression>) -> Self {
        Self { inner, suppression }
    }
}

impl<S, N, F> FormatEvent<S, N> for LimitedFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // First of all the level: the line about a request passes here.
        if !is_limited(event.metadata()) {
            return self.inner.format_event(context, writer, event);
        }
        match self.suppression.decide(event) {
            LineDecision::Suppress => Ok(()),
            LineDecision::Write { suppressed: 0 } => {
                self.inner.format_event(context, writer, event)
            }
            LineDecision::Write { suppressed } => {
                let mut line = String::new();
                self.inner
                    .format_event(context, Writer::new(&mut line), event)?;
                self.suppression.add_count(&mut line, suppressed);
                writer.write_str(&line)
            }
        }
    }
}

/// The message of an event, without its fields.
struct MessageVisitor(String);

impl Visit for MessageVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _ = write!(self.0, "{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.push_str(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fields::TextFields;
    use crate::telemetry::tests::Kept;
    use std::time::{Duration, SystemTime};
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

    /// The log of `events` in a format, with the counts that are due at the end.
    async fn log(format: LogFormat, events: impl AsyncFnOnce()) -> Vec<String> {
        let clock = Clock::simulated(SystemTime::UNIX_EPOCH, Duration::ZERO);
        let suppression = Arc::new(Suppression::new(format, clock.clone()));
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer::<Registry>()
            .with_timer(LineTime(clock))
            .with_target(false)
            .with_ansi(false)
            .with_writer(kept.clone());
        let limits = suppression.clone();
        let layer = match format {
            LogFormat::Text => layer
                .fmt_fields(TextFields)
                .map_event_format(|inner| LimitedFormat::new(inner, limits))
                .boxed(),
            LogFormat::Json => layer
                .json()
                .flatten_event(true)
                .map_event_format(|inner| LimitedFormat::new(inner, limits))
                .boxed(),
        };
        let registry = tracing_subscriber::registry().with(layer);
        let guard = tracing::subscriber::set_default(registry);
        events().await;
        drop(guard);
        let lines = kept.text().lines().map(str::to_owned).collect::<Vec<_>>();
        let rest = suppression.overdue();
        let rest = rest.iter().map(|line| line.trim_end().to_owned());
        lines.into_iter().chain(rest).collect()
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    /// A trouble of 10 seconds and a bit, with requests meanwhile.
    async fn trouble() {
        let fail = |n: u64| tracing::error!(n, "the disk is \"full\"");
        for n in 0..215 {
            fail(n);
            tracing::info!(n, "request");
        }
        pass(10).await;
        fail(215);
        fail(216);
        pass(11).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_is_told_once_in_ten_seconds_with_the_number_of_the_others() {
        let lines = log(LogFormat::Text, trouble).await;
        let (requests, other): (Vec<&String>, Vec<_>) =
            lines.iter().partition(|line| line.contains("request"));
        assert_eq!(requests.len(), 215);
        assert_eq!(
            other,
            [
                "1970-01-01T00:00:00.000000Z ERROR the disk is \"full\" n=0",
                "1970-01-01T00:00:10.000000Z ERROR the disk is \"full\" n=215 \
                 (214 more in the last 10 s)",
                "1970-01-01T00:00:21.000000Z ERROR the disk is \"full\" \
                 (1 more in the last 10 s)",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn in_json_the_number_is_a_field() {
        let lines = log(LogFormat::Json, trouble).await;
        let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> = lines.collect();
        let errors = lines.iter().filter(|line| line["level"] == "ERROR");
        let shown: Vec<_> = errors
            .map(|line| {
                assert_eq!(line["message"], "the disk is \"full\"");
                let time = line["timestamp"].as_str().unwrap();
                (
                    &time[17..19],
                    line["n"].as_u64(),
                    line["suppressed"].as_u64(),
                )
            })
            .collect();
        let expected = [
            ("00", Some(0), None),
            ("10", Some(215), Some(214)),
            ("21", None, Some(1)),
        ];
        assert_eq!(shown, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn records_and_lines_of_the_process_are_all_written() {
        let lines = log(LogFormat::Text, async || {
            for n in 0..3 {
                tracing::warn!(target: AUDIT, n, "outcome unknown");
                tracing::warn!(target: "segment_gateway::app::start", n, "a mistake");
                tracing::warn!(target: "hyper::client", n, "of a library");
                tracing::info!(n, "below a warning");
            }
            pass(11).await;
        })
        .await;
        for (message, written) in [
            ("outcome unknown n=", 3),
            ("a mistake n=", 3),
            ("below a warning n=", 3),
            ("of a library n=", 1),
            ("of a library (2 more in the last 10 s)", 1),
        ] {
            let count = lines.iter().filter(|line| line.contains(message)).count();
            assert_eq!(count, written, "{message}: {lines:#?}");
        }
        assert_eq!(lines.len(), 11);
    }
}
