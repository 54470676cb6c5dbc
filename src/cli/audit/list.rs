//! `segment-gateway audit list`: the records, for people or as they are.

use super::log::LogFiles;
use crate::audit::verify::{AuditFault, for_each_line};
use crate::cli::output::{Failure, say};
use crate::config::AuditSubjects;
use clap::Args;
use serde_json::Value;
use std::time::SystemTime;

#[derive(Args, Debug)]
pub(super) struct List {
    #[command(flatten)]
    log: LogFiles,
    /// Only records of this client.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Only writes that act on this, e.g. person:a@example.com or user:42. Every subject that ends
    /// with the text counts, so an e-mail address is enough; with hashed subjects give it whole.
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// Only records from this time on, e.g. 2027-03-31 or 2027-03-31T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<SystemTime>,
    /// Print the records as they are, one JSON object in a line.
    #[arg(long)]
    json: bool,
}

/// Prints the records that are asked for.
pub(super) fn list(command: &List) -> Result<(), Failure> {
    let log = command.log.open()?;
    let subject = match (&command.subject, log.subjects) {
        (Some(subject), AuditSubjects::Hashed) => Some(log.key()?.pseudonym(subject)),
        (subject, _) => subject.clone(),
    };
    let shows = |record: &Value| {
        let client = command.client.as_deref();
        let is_since = |since: &SystemTime| {
            let time = record["time"].as_str().unwrap_or_default();
            humantime::parse_rfc3339(time).is_ok_and(|time| time >= *since)
        };
        client.is_none_or(|client| record["client"] == client)
            && subject
                .as_deref()
                .is_none_or(|subject| acts_on(record, subject))
            && command.since.as_ref().is_none_or(is_since)
    };
    for_each_line(&log.files, |file, line, text| {
        let record: Value = serde_json::from_slice(text).map_err(|_| AuditFault {
            file: file.to_owned(),
            line,
            what: "this is not a record of an audit log".to_owned(),
        })?;
        if shows(&record) {
            match command.json {
                true => say(&String::from_utf8_lossy(text)),
                false => say(&in_words(&record)),
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// Returns the instant of a time, or the beginning of a day in UTC.
fn time(text: &str) -> Result<SystemTime, String> {
    let day = format!("{text}T00:00:00Z");
    let time = humantime::parse_rfc3339(text).or_else(|_| humantime::parse_rfc3339(&day));
    time.map_err(|_| "expected a date or a time, e.g. 2027-03-31T08:00:00Z".to_owned())
}

/// Returns whether a record is of a write that acts on this.
fn acts_on(record: &Value, subject: &str) -> bool {
    let subjects = record["subjects"].as_array();
    let mut subjects = subjects.into_iter().flatten().filter_map(Value::as_str);
    subjects.any(|one| {
        let rest = one.strip_suffix(subject);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(':'))
    })
}

/// Returns a record as a line for people: the time, the kind, and the fields that it has.
fn in_words(record: &Value) -> String {
    const LEFT_OUT: [&str; 7] = [
        "seq",
        "time",
        "kind",
        "prev",
        "mac",
        "body_sha256",
        "subject_count",
    ];
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => {
            let all: Vec<String> = all
                .iter()
                .map(|one| one.as_str().unwrap_or_default().to_owned())
                .collect();
            all.join(",")
        }
        other => other.to_string(),
    };
    let fields = record.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
    let fields: Vec<String> = fields
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    format!(
        "{:>7}  {}  {:8}  {}",
        record["seq"],
        text(&record["time"]),
        text(&record["kind"]),
        fields.join(" ")
    )
}
