//! The fields of a line in the text format: the message, then `name=value` or `name="text"`.
//!
//! The form is that of the library's own formatter. That one takes the general way of `std::fmt`
//! for every field, which for the line about a request costs several times as much.
//!
//! Invariant: a line is one line. Control characters in a value are escaped, whoever chose it.

use std::fmt::{self, Debug, Write};
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// The formatter of the fields of events and spans.
pub(super) struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = FieldWriter {
            line: EscapedLine::new(writer),
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut text);
        text.result
    }
}

/// Writes one field after the other. After an error, further fields are left out.
struct FieldWriter<'w> {
    line: EscapedLine<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl FieldWriter<'_> {
    /// Writes a field with the value that `value` writes.
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut EscapedLine<'_>) -> fmt::Result) {
        self.result = self.result.and_then(|()| {
            let line = &mut self.line;
            if !std::mem::take(&mut self.is_first) {
                line.0.write_char(' ')?;
            }
            let name = field.name();
            if name != "message" {
                line.0.write_str(name.strip_prefix("r#").unwrap_or(name))?;
                line.0.write_char('=')?;
            }
            value(line)
        });
    }
}

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == "message";
        self.field(field, |line| {
            if is_message {
                line.write_str(value)
            } else if is_plain(value) && !value.contains(['"', '\\']) {
                line.0.write_char('"')?;
                line.0.write_str(value)?;
                line.0.write_char('"')
            } else {
                write!(line.0, "{value:?}")
            }
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |line| {
            line.0.write_str(itoa::Buffer::new().format(value))
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |line| {
            line.0.write_str(itoa::Buffer::new().format(value))
        });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, |line| {
            line.0.write_str(zmij::Buffer::new().format(value))
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.field(field, |line| write!(line, "{value:?}"));
    }
}

/// A writer that escapes control characters.
pub(super) struct EscapedLine<'w>(Writer<'w>);

impl<'w> EscapedLine<'w> {
    /// Creates one that writes to `line`.
    pub(super) fn new(line: Writer<'w>) -> Self {
        Self(line)
    }
}

impl Write for EscapedLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if is_plain(text) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|char| match char {
            control if control.is_control() => write!(self.0, "{}", control.escape_default()),
            other => self.0.write_char(other),
        })
    }
}

/// Returns whether the text is printable ASCII, as almost all of it is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::Kept;
    use tracing_subscriber::fmt::format::DefaultFields;
    use tracing_subscriber::layer::SubscriberExt;

    /// Returns the lines that `events` logs with these fields.
    fn lines<F>(fields: F, events: impl FnOnce()) -> String
    where
        F: for<'w> FormatFields<'w> + Send + Sync + 'static,
    {
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer()
            .without_time()
            .with_ansi(false)
            .fmt_fields(fields)
            .with_writer(kept.clone());
        let registry = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(registry, events);
        kept.text()
    }

    #[test]
    fn fields_look_as_the_librarys_own_formatter_writes_them() {
        let events = || {
            tracing::info!("message alone");
            tracing::info!(status = 200_u16, "message {} and fields", 1);
            tracing::warn!(only = "a field");
            tracing::info!(
                operation = "listSources",
                quoted = "a \"b\" \\ c",
                breaks = "a\nb\u{1b}[0m\u{85}",
                umlaut = "ä",
                empty = "",
                absent = None::<&str>,
                shown = %"as it is",
                debugged = ?Some("x"),
                negative = -5_i64,
                large = u64::MAX,
                yes = true,
                r#type = 1,
                "all kinds"
            );
            let span = tracing::info_span!("span", id = "x", n = 1);
            span.in_scope(|| tracing::info!(inside = true, "in a span"));
        };
        let expected = lines(DefaultFields::new(), events);
        assert_eq!(lines(TextFields, events), expected);
        assert_eq!(expected.lines().count(), 5, "{expected}");
    }

    /// Each number of an event, as the two formats write it.
    #[test]
    fn numbers_are_the_same_in_both_formats() {
        let event = || {
            tracing::info!(
                none = 0.0,
                microsecond = 0.001,
                usual = 12.345,
                whole = 250.0,
                long = 600_000.125,
                day = 86_400_000.001,
                third = 1.0 / 3.0,
                large = 1e300,
                count = 18_446_744_073_709_551_615_u64,
                negative = -9_007_199_254_740_993_i64,
                "numbers"
            );
        };
        let text = lines(TextFields, event);
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(kept.clone());
        let registry = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(registry, event);
        let json = kept.text();
        let fields = text
            .trim_end()
            .split(' ')
            .filter_map(|part| part.split_once('='));
        let mut numbers = 0;
        for (name, number) in fields {
            numbers += 1;
            let member = format!("\"{name}\":{number}");
            let at = json.find(&member).map(|at| at + member.len());
            let end = at.and_then(|at| json[at..].chars().next());
            assert!(matches!(end, Some(',' | '}')), "{member} in {json}");
        }
        assert_eq!(numbers, 10, "{text}");
    }

    #[test]
    fn no_value_begins_a_line_of_its_own() {
        let hostile = "x\n2026-11-30T00:00:00Z ERROR forged\u{1b}[2K";
        let text = lines(TextFields, || {
            tracing::info!(error = %hostile, "{hostile}");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r"error=x\n2026-11-30T00:00:00Z ERROR forged\u{1b}[2K"));
    }

    proptest::proptest! {
        #[test]
        fn times_look_as_the_standard_library_writes_them(microseconds in 0..100_000_000_000_u64) {
            let ms = microseconds as f64 / 1e3;
            let mut shown = zmij::Buffer::new();
            proptest::prop_assert_eq!(shown.format(ms), format!("{ms:?}"));
        }
    }
}
