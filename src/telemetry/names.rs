//! The names of credentials in the lines of the log.
//!
//! A line has the hash of a credential in the field `credential`. If the configuration names the
//! hash, the field `credential_name` follows. It is added to the finished line: so every line with
//! a hash has the name, in both formats, and no place that logs has to know of names.
//!
//! Invariant: a line stays one line, and nothing but the name is added. Names have no character
//! that either format escapes.

use super::output::{LineWriter, LogOutput};
use crate::config::LogFormat;
use crate::credential::CredentialNames;
use crate::credential::names::SHOWN_HASH;
use crate::swap::Swap;
use std::io::{self, Write};
use std::sync::Arc;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// What stands around a hash in a format, and around the name behind it.
#[derive(Clone, Copy, Debug)]
struct Notation {
    before: &'static str,
    after: &'static str,
    opens: &'static str,
    closes: &'static str,
}

const TEXT: Notation = Notation {
    before: " credential=",
    after: "",
    opens: " credential_name=\"",
    closes: "\"",
};
/// A value cannot contain this: in one, quotes have a backslash in front.
const JSON: Notation = Notation {
    before: "\"credential\":\"",
    after: "\"",
    opens: ",\"credential_name\":\"",
    closes: "\"",
};

/// The output of the log, with names added to its lines.
pub(super) struct NamedLines {
    output: LogOutput,
    names: Arc<Swap<CredentialNames>>,
    notation: Notation,
}

impl NamedLines {
    /// Creates the output of lines in this format. `names` may be replaced at any time.
    pub(super) fn new(
        output: LogOutput,
        names: Arc<Swap<CredentialNames>>,
        format: LogFormat,
    ) -> Self {
        let notation = match format {
            LogFormat::Text => TEXT,
            LogFormat::Json => JSON,
        };
        Self {
            output,
            names,
            notation,
        }
    }

    fn around<'a>(&'a self, line: LineWriter<'a>) -> NamedLine<'a> {
        NamedLine {
            line,
            names: self.names.get(),
            notation: self.notation,
        }
    }
}

impl<'a> MakeWriter<'a> for NamedLines {
    type Writer = NamedLine<'a>;

    fn make_writer(&'a self) -> NamedLine<'a> {
        self.around(self.output.make_writer())
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> NamedLine<'a> {
        self.around(self.output.make_writer_for(meta))
    }
}

/// Takes one line, in one piece.
pub(super) struct NamedLine<'a> {
    line: LineWriter<'a>,
    names: Arc<CredentialNames>,
    notation: Notation,
}

impl Write for NamedLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match named(line, self.notation, &self.names) {
            Some(named) => self.line.write_all(named.as_bytes())?,
            None => self.line.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.line.flush()
    }
}

/// Returns the line with the name behind each hash that has one; `None` if no hash in it has.
fn named(line: &[u8], notation: Notation, names: &CredentialNames) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let line = str::from_utf8(line).ok()?;
    let (mut out, mut copied) = (String::new(), 0);
    for (at, before) in line.match_indices(notation.before) {
        let start = at + before.len();
        let end = start + SHOWN_HASH;
        let name = line.get(start..end).and_then(|hash| names.of(hash));
        let is_whole = line
            .get(end..)
            .is_some_and(|rest| rest.starts_with(notation.after));
        let Some(name) = name.filter(|_| is_whole) else {
            continue;
        };
        let end = end + notation.after.len();
        for part in [&line[copied..end], notation.opens, name, notation.closes] {
            out.push_str(part);
        }
        copied = end;
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&line[copied..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::fields::TextFields;
    use super::*;
    use parking_lot::Mutex;
    use serde_json::Value;
    use std::time::Duration;
    use tracing_subscriber::layer::SubscriberExt;

    const HASH: &str = "5773d8e37a48758f";

    fn names() -> CredentialNames {
        let mut names = CredentialNames::default();
        names.add("terraform", HASH).unwrap();
        names.add("ci", "00000000000000ff").unwrap();
        names
    }

    /// Keeps lines in memory.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what is logged in a format, as the log of the process is set up.
    fn logged(format: LogFormat, events: impl FnOnce()) -> String {
        let kept = Kept::default();
        let output = LogOutput::start(kept.clone(), Duration::ZERO, |_| {}).unwrap();
        let names = Arc::new(Swap::new(names()));
        let lines = tracing_subscriber::fmt::layer().without_time();
        let lines = lines.with_writer(NamedLines::new(output.clone(), names, format));
        let registry = tracing_subscriber::registry();
        match format {
            LogFormat::Text => {
                let lines = lines.with_ansi(false).fmt_fields(TextFields);
                tracing::subscriber::with_default(registry.with(lines), events);
            }
            LogFormat::Json => {
                let lines = lines.json().flatten_event(true);
                tracing::subscriber::with_default(registry.with(lines), events);
            }
        }
        output.flush(Duration::from_secs(60));
        String::from_utf8(kept.0.lock().clone()).unwrap()
    }

    #[test]
    fn the_name_stands_behind_the_hash_in_both_formats() {
        let hostile = format!("\",\"credential\":\"{HASH}");
        let events = || {
            tracing::info!(credential = %HASH, caller = hostile, "request");
            tracing::warn!(credential = %"0000000000000001", "request");
        };
        let text = logged(LogFormat::Text, events);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let named = " credential=5773d8e37a48758f credential_name=\"terraform\" caller=";
        assert!(lines[0].contains(named), "{text}");
        assert!(lines[1].ends_with("credential=0000000000000001"), "{text}");

        let json = logged(LogFormat::Json, events);
        let lines = json
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines[0]["credential"], HASH);
        assert_eq!(lines[0]["credential_name"], "terraform");
        assert_eq!(lines[0]["caller"], hostile);
        assert_eq!(lines[1]["credential_name"], Value::Null);
    }

    #[test]
    fn a_table_of_lines() {
        let text = |line: &str| named(line.as_bytes(), TEXT, &names());
        let json = |line: &str| named(line.as_bytes(), JSON, &names());
        for (line, expected) in [
            (
                "INFO request credential=5773d8e37a48758f peer=127.0.0.1\n",
                "INFO request credential=5773d8e37a48758f credential_name=\"terraform\" peer=127.0.0.1\n",
            ),
            (
                "INFO x credential=5773d8e37a48758f\n",
                "INFO x credential=5773d8e37a48758f credential_name=\"terraform\"\n",
            ),
            (
                "INFO x credential=00000000000000ff credential=5773d8e37a48758f\n",
                "INFO x credential=00000000000000ff credential_name=\"ci\" credential=5773d8e37a48758f \
                 credential_name=\"terraform\"\n",
            ),
        ] {
            assert_eq!(text(line).as_deref(), Some(expected), "{line}");
        }
        let line = r#"{"message":"é","credential":"5773d8e37a48758f","peer":"::1"}"#;
        let expected = r#"{"message":"é","credential":"5773d8e37a48758f","credential_name":"terraform","peer":"::1"}"#;
        assert_eq!(json(line).as_deref(), Some(expected));
        for line in [
            "INFO request credential=5773d8e37a48758e peer=1\n",
            "INFO request credential=5773d8e3\n",
            "INFO request credential=\n",
            "INFO 5773d8e37a48758f\n",
            "INFO x credential=5773d8e37a48758é\n",
            "",
        ] {
            assert_eq!(text(line), None, "{line}");
        }
        for line in [
            r#"{"caller":"\"credential\":\"5773d8e37a48758f\""}"#,
            r#"{"credential":"5773d8e37a48758f0"}"#,
            r#"{"credential":"5773d8e37a48758f"#,
            r#"{"credential":null}"#,
        ] {
            assert_eq!(json(line), None, "{line}");
        }
        let none = CredentialNames::default();
        let line = format!("INFO x credential={HASH}\n");
        assert_eq!(named(line.as_bytes(), TEXT, &none), None);
        assert_eq!(
            named(b"\xff credential=5773d8e37a48758f", TEXT, &names()),
            None
        );
    }
}
