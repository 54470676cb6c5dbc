//! `segment-gateway writes list`: a page of writes, one per line.
//!
//! Standard output has writes alone, so that a script may read every line. What is paused and how
//! to get the next page is for people, and on standard error. With `--json` the whole answer of the
//! gateway is one document on standard output, `next` and `paused` included.
//!
//! Comments on the fields of the argument types are the help of the command line, so explanations
//! of the code there are plain comments.

use super::super::output::{note, say};
use crate::journal::{State, WriteId};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::Value;

/// The most writes of a page.
const LONGEST_PAGE: u64 = 1000;
/// The writes of a page without `--limit`.
const PAGE: u64 = 50;

/// The flags of the command.
#[derive(Args, Debug)]
pub(super) struct ListCommand {
    /// Only writes of this credential: its hash or name, as lists and logs show it.
    #[arg(long, value_name = "HASH")]
    credential: Option<String>,
    /// Only writes of this operation, e.g. createInvites.
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Only writes in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(State::ALL.map(State::as_str)))]
    state: Option<String>,
    /// Only writes after this id.
    #[arg(long, value_name = "ID", value_parser = write_id)]
    after: Option<WriteId>,
    /// Maximum number of lines.
    #[arg(
        long,
        value_name = "N",
        default_value_t = PAGE,
        value_parser = clap::value_parser!(u64).range(1..=LONGEST_PAGE)
    )]
    limit: u64,
}

/// Reads the id of a write.
pub(super) fn write_id(text: &str) -> Result<WriteId, String> {
    let id = text.parse();
    id.map_err(|_| {
        "expected the id of a write, 36 characters as `writes list` shows it first".to_owned()
    })
}

impl ListCommand {
    /// Returns the parameters of the query.
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let after = self.after.map(|id| id.to_string());
        let mut parameters = self.selection();
        parameters.push(("limit", self.limit.to_string()));
        parameters.extend(after.map(|after| ("after", after)));
        parameters
    }

    /// Returns the parameters that select writes, whatever the page.
    fn selection(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("credential", &self.credential),
            ("operation", &self.operation),
            ("state", &self.state),
        ];
        let given = given.into_iter();
        given
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect()
    }

    /// Returns the command for the writes after this one. `target` are the flags that find the
    /// gateway.
    fn next_command(&self, next: &str, target: &[String]) -> String {
        let mut arguments: Vec<String> = ["segment-gateway", "writes", "list"]
            .map(str::to_owned)
            .to_vec();
        for (name, value) in self.selection() {
            arguments.extend([format!("--{name}"), value]);
        }
        if self.limit != PAGE {
            arguments.extend(["--limit".to_owned(), self.limit.to_string()]);
        }
        arguments.extend(["--after".to_owned(), next.to_owned()]);
        arguments.extend(target.iter().cloned());
        let quoted: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
        quoted.join(" ")
    }

    /// Prints a page of writes, then notes what is paused and how to get the next page.
    pub(super) fn print(&self, page: &Value, target: &[String]) {
        for line in lines(page) {
            say(&line);
        }
        for paused in page["paused"].as_array().into_iter().flatten() {
            note(&pause_note(paused, target));
        }
        if let Some(next) = page["next"].as_str() {
            let command = self.next_command(next, target);
            note(&format!("there are more; the next page: {command}"));
        }
    }
}

/// Returns a line for each write of a page.
fn lines(page: &Value) -> Vec<String> {
    let writes = || page["writes"].as_array().into_iter().flatten();
    let names = writes().filter_map(|write| write["credentialName"].as_str());
    let width = names.map(str::len).max().unwrap_or(1);
    let line = |write: &Value| {
        // `-` keeps the columns where a field is absent.
        let field = |name: &str| write[name].as_str().unwrap_or("-").to_owned();
        format!(
            "{}  {:<10}  {}  {:<width$}  {}  {}  {} {}",
            field("id"),
            field("state"),
            field("credential"),
            field("credentialName"),
            field("acceptedAt"),
            field("operation"),
            field("method"),
            field("path"),
        )
    };
    writes().map(line).collect()
}

/// Returns the note about writes that are paused, with the command that resumes them. `target` are
/// the flags that find the gateway.
fn pause_note(paused: &Value, target: &[String]) -> String {
    let mut what = Vec::new();
    let mut command = "segment-gateway writes resume".to_owned();
    if let Some(operation) = paused["operation"].as_str() {
        what.push(operation.to_owned());
        command += &format!(" --operation {}", quoted(operation));
    }
    if let Some(hash) = paused["credential"].as_str() {
        what.push(shown_credential(paused));
        command += &format!(" --credential {}", quoted(hash));
    }
    for argument in target {
        command += &format!(" {}", quoted(argument));
    }
    let why = match paused["refused"] == true {
        true => "the API rejects the token",
        false => "by an operator",
    };
    let since = paused["since"].as_str().unwrap_or("-");
    let what = what.join(" of ");
    format!("paused: {what}, {why}, since {since}; {command}")
}

/// Returns the credential of a document as people know it: the name, if it has one, and the hash.
pub(super) fn shown_credential(document: &Value) -> String {
    let hash = document["credential"].as_str().unwrap_or("-");
    match document["credentialName"].as_str() {
        Some(name) => format!("{name} ({hash})"),
        None => hash.to_owned(),
    }
}

/// Returns an argument as a shell reads it.
fn quoted(argument: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&b);
    match !argument.is_empty() && argument.bytes().all(plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "01a20dd3-1a21-7000-962f-416076a7eb8a";

    #[test]
    fn the_next_page_is_asked_for_as_this_one_was() {
        let mut command = ListCommand {
            credential: None,
            operation: None,
            state: None,
            after: None,
            limit: PAGE,
        };
        let shown = command.next_command(ID, &[]);
        assert_eq!(shown, format!("segment-gateway writes list --after {ID}"));
        command.credential = Some("terraform".to_owned());
        command.operation = Some("a'b c".to_owned());
        command.state = Some("queued".to_owned());
        command.after = Some(ID.parse().unwrap());
        command.limit = 2;
        let target = ["--admin".to_owned(), "./admin.sock".to_owned()];
        let next = ID.replace('8', "9");
        assert_eq!(
            command.next_command(&next, &target),
            format!(
                r"segment-gateway writes list --credential terraform --operation 'a'\''b c' --state queued --limit 2 --after {next} --admin ./admin.sock"
            )
        );
    }

    #[test]
    fn a_line_has_the_same_columns_with_and_without_names() {
        let write = |name: Value| {
            json!({
                "id": ID, "state": "queued", "credential": "5773d8e37a48758f",
                "credentialName": name, "acceptedAt": "2026-11-30T00:00:00Z",
                "operation": "createInvites", "method": "POST", "path": "/invites",
            })
        };
        let page = json!({ "writes": [write(json!("terraform")), write(Value::Null)] });
        let lines = lines(&page);
        let columns = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let (named, unnamed) = (columns(&lines[0]), columns(&lines[1]));
        assert_eq!((named.len(), unnamed.len()), (8, 8));
        assert_eq!((&*named[3], &*unnamed[3]), ("terraform", "-"));
        assert_eq!(lines[0].find("2026"), lines[1].find("2026"));
    }

    #[test]
    fn a_pause_is_noted_with_what_ends_it() {
        let since = "2026-11-30T00:00:00Z";
        for (paused, expected) in [
            (
                json!({ "operation": "createInvites", "credential": null, "since": since }),
                "paused: createInvites, by an operator, since 2026-11-30T00:00:00Z; segment-gateway writes \
                 resume --operation createInvites",
            ),
            (
                json!({
                    "credential": "5773d8e37a48758f", "credentialName": "ci", "refused": true,
                    "since": since,
                }),
                "paused: ci (5773d8e37a48758f), the API rejects the token, since 2026-11-30T00:00:00Z; \
                 segment-gateway writes resume --credential 5773d8e37a48758f",
            ),
            (
                json!({
                    "operation": "createInvites", "credential": "5773d8e37a48758f", "since": since,
                }),
                "paused: createInvites of 5773d8e37a48758f, by an operator, since 2026-11-30T00:00:00Z; \
                 segment-gateway writes resume --operation createInvites --credential 5773d8e37a48758f",
            ),
        ] {
            assert_eq!(pause_note(&paused, &[]), expected);
            let target = ["--admin".to_owned(), "./admin.sock".to_owned()];
            let with_target = format!("{expected} --admin ./admin.sock");
            assert_eq!(pause_note(&paused, &target), with_target);
        }
    }
}
