//! Pure. A whole file, read and checked before anything of it is sent.
//!
//! Invariant: rows leave here only if each is right by itself and none is there twice. A mistake
//! does not end the check, so that one look at a file is enough to mend it. Memory and time grow
//! with the file alone, which is bounded in bytes and in rows.

use super::columns::{ImportHeader, PERMISSIONS};
use super::records::{decoded, records};
use super::row::{ImportKind, ImportRow};
use super::values::{is_address, is_id, quoted, resources};
use csv::StringRecord;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The largest file, in bytes.
pub(super) const MOST_BYTES: usize = 64 * 1024 * 1024;
/// The most rows of a file: as many writes of one token as a gateway with the defaults remembers
/// after their end, so that a second run finds them all.
const MOST_ROWS: usize = 100_000;
/// The largest row, in bytes.
const MOST_ROW_BYTES: usize = 64 * 1024;
/// The most mistakes that are shown.
const MOST_SHOWN: usize = 20;

/// How a file is to be read.
#[derive(Clone, Debug)]
pub(super) struct ImportRules {
    /// What its rows are.
    pub(super) kind: ImportKind,
    /// The group of all rows, in place of a column.
    pub(super) group: Option<String>,
    /// The character between two columns.
    pub(super) delimiter: u8,
}

/// Reads a file.
///
/// # Errors
/// Its mistakes, each with its line: the first ones, and the number of the others.
pub(super) fn read_table(file: &[u8], rules: &ImportRules) -> Result<Vec<ImportRow>, Vec<String>> {
    let one = |mistake: String| vec![mistake];
    let text = decoded(file).map_err(one)?;
    let mut records = records(&text, rules.delimiter);
    let (line, names) = records.next().ok_or_else(|| {
        one("the file is empty; expected a line with the names of the columns".to_owned())
    })?;
    let header = ImportHeader::read(&names, rules.kind, rules.group.is_some());
    let header = header.map_err(|found| shortened(on_line(line, found)))?;
    let (mut rows, mut mistakes) = (Vec::new(), Vec::new());
    // The line of each person, by address in lower case and group.
    let mut seen = HashMap::new();
    // Spreadsheets leave empty rows behind the last one.
    let records = records.filter(|(_, record)| record.iter().any(|field| !field.is_empty()));
    for (n, (line, record)) in records.enumerate() {
        if n == MOST_ROWS {
            let text = format!("line {line}: more than {MOST_ROWS} rows; split the file");
            return Err(one(text));
        }
        let row = match read_row(line, &record, &header, rules) {
            Ok(row) => row,
            Err(found) => {
                mistakes.extend(on_line(line, found));
                continue;
            }
        };
        let person = (row.email.to_lowercase(), row.group.clone());
        let first = *seen.entry(person).or_insert(line);
        if first != line {
            let group = row.group.as_deref().map(quoted);
            let within = group.map(|group| format!(" with the group {group}"));
            let (email, within) = (quoted(&row.email), within.unwrap_or_default());
            let text = format!("{email} is on line {first} too{within}");
            mistakes.extend(on_line(line, one(text)));
        }
        rows.push(row);
    }
    if !mistakes.is_empty() {
        return Err(shortened(mistakes));
    }
    if rows.is_empty() {
        let text = "the file has no rows below the names of the columns";
        return Err(one(text.to_owned()));
    }
    Ok(rows)
}

/// Returns mistakes with the line on which they are.
fn on_line(line: usize, mistakes: Vec<String>) -> Vec<String> {
    let mistakes = mistakes.into_iter();
    mistakes
        .map(|text| format!("line {line}: {text}"))
        .collect()
}

/// Returns the first mistakes, and the number of the others.
fn shortened(mut mistakes: Vec<String>) -> Vec<String> {
    let more = mistakes.len().saturating_sub(MOST_SHOWN);
    mistakes.truncate(MOST_SHOWN);
    if more > 0 {
        mistakes.push(format!("… and {more} more"));
    }
    mistakes
}

/// Reads the row of this line.
///
/// # Errors
/// Everything that is wrong with it.
fn read_row(
    line: usize,
    record: &StringRecord,
    header: &ImportHeader,
    rules: &ImportRules,
) -> Result<ImportRow, Vec<String>> {
    let (width, expected) = (record.len(), header.width());
    if record.as_slice().len() > MOST_ROW_BYTES {
        let most = MOST_ROW_BYTES / 1024;
        let text = format!("the row is larger than {most} KiB; is a quote not closed?");
        return Err(vec![text]);
    }
    if width != expected {
        let text = format!("{width} columns; the first line has {expected}");
        return Err(vec![text]);
    }
    let mut mistakes = Vec::new();
    let email = header.value(record, "email");
    if !is_address(email) {
        mistakes.push(format!("{} is not an email address", quoted(email)));
    }
    let row = match rules.kind {
        ImportKind::Invites => {
            let permissions = read_permissions(record, header, &mut mistakes);
            ImportRow::invite(line, email, permissions)
        }
        ImportKind::Members => {
            let group = rules.group.as_deref();
            let group = group.unwrap_or_else(|| header.value(record, "group"));
            mistakes.extend(wrong_id("group", group));
            ImportRow::member(line, email, group)
        }
    };
    match mistakes.is_empty() {
        true => Ok(row),
        false => Err(mistakes),
    }
}

/// Returns the permissions of a row, in the order of their numbers.
fn read_permissions(
    record: &StringRecord,
    header: &ImportHeader,
    mistakes: &mut Vec<String>,
) -> Vec<Value> {
    let mut found = Vec::new();
    for n in PERMISSIONS {
        let role = header.value(record, &format!("role{n}"));
        match resources(header.value(record, &format!("resources{n}"))) {
            Err(text) => mistakes.push(text),
            Ok(listed) if !role.is_empty() => {
                mistakes.extend(wrong_id("role", role));
                found.push(json!({ "roleId": role, "resources": listed }));
            }
            Ok(listed) if !listed.is_empty() => {
                mistakes.push(format!("resources{n} without role{n}"));
            }
            Ok(_) => {}
        }
    }
    found
}

/// Returns what is wrong with an id, if something is.
fn wrong_id(of: &str, id: &str) -> Option<String> {
    (!is_id(id)).then(|| {
        let id = quoted(id);
        format!("{id} is not the id of a {of}, which has no spaces; GET /{of}s lists the ids")
    })
}

#[cfg(test)]
mod tests;
