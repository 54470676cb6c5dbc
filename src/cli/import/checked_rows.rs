//! Pure. The rows of a file, checked one after the other.
//!
//! Invariant: rows leave here only if each is right by itself and none is there twice. A mistake
//! does not end the check, so that one look at a file is enough to mend it.

use super::columns::{ImportColumn, ImportHeader};
use super::mistakes::Mistakes;
use super::row::{ImportKind, ImportRow, InvitePermission};
use super::values::{is_address, is_id, quoted, resources};
use csv::StringRecord;
use std::collections::HashMap;
use std::sync::Arc;

/// The most rows of a file: as many writes of one token as a gateway with the defaults remembers
/// after their end, so that a second run finds them all.
pub(super) const MOST_ROWS: usize = 100_000;
/// The largest row, in bytes.
pub(super) const MOST_ROW_BYTES: usize = 64 * 1024;

/// How a file is to be read.
#[derive(Clone, Debug)]
pub(super) struct ImportRules {
    /// What its rows are.
    pub(super) kind: ImportKind,
    /// The group of all rows, in place of a column.
    pub(super) group: Option<Arc<str>>,
    /// The character between two columns.
    pub(super) delimiter: u8,
}

/// The rows of a file that were read so far, and what is wrong with them.
pub(super) struct CheckedRows<'r> {
    header: ImportHeader,
    rules: &'r ImportRules,
    rows: Vec<ImportRow>,
    /// The line of each person, by address in lower case and group.
    seen: HashMap<(String, Option<Arc<str>>), usize>,
    /// The groups that were named, so that their rows share one text each.
    groups: HashMap<String, Arc<str>>,
    mistakes: Mistakes,
}

impl<'r> CheckedRows<'r> {
    pub(super) fn new(header: ImportHeader, rules: &'r ImportRules) -> Self {
        Self {
            header,
            rules,
            rows: Vec::new(),
            seen: HashMap::new(),
            groups: HashMap::new(),
            mistakes: Mistakes::default(),
        }
    }

    /// Checks a row. Its mistakes are kept for the end.
    ///
    /// # Errors
    /// If the file has too many rows: the rest need not be read.
    pub(super) fn add(&mut self, line: usize, record: &StringRecord) -> Result<(), Vec<String>> {
        // Spreadsheets leave such lines behind the last row.
        if record.iter().all(str::is_empty) {
            return Ok(());
        }
        if self.rows.len() == MOST_ROWS {
            return Err(vec![format!(
                "line {line}: more than {MOST_ROWS} rows; split the file"
            )]);
        }
        let (width, expected) = (record.len(), self.header.width());
        if record.as_slice().len() > MOST_ROW_BYTES {
            let most = MOST_ROW_BYTES / 1024;
            let text = format!("the row is larger than {most} KiB; is a quote not closed?");
            self.mistakes.add(line, &text);
        } else if width != expected {
            let text = format!("{width} columns; the first line has {expected}");
            self.mistakes.add(line, &text);
        } else {
            self.check(line, record);
        }
        Ok(())
    }

    /// Checks the values of a row. One row may have several mistakes.
    fn check(&mut self, line: usize, record: &StringRecord) {
        let email = self.header.value(record, ImportColumn::Email);
        let is_right = is_address(email);
        if !is_right {
            let text = format!("{} is not an email address", quoted(email));
            self.mistakes.add(line, &text);
        }
        let row = match self.rules.kind {
            ImportKind::Invites => {
                let permissions = self.permissions(line, record);
                ImportRow::invite(line, email, &permissions)
            }
            ImportKind::Members => {
                let group = self.group(line, record);
                ImportRow::member(line, email, group)
            }
        };
        let person = (email.to_lowercase(), row.group.clone());
        let first = *self.seen.entry(person).or_insert(line);
        // A wrong address that is there twice is one kind of mistake and not two.
        if is_right && first != line {
            let within = match &row.group {
                Some(group) => format!(" with the group {}", quoted(group)),
                None => String::new(),
            };
            let text = format!("{} is on line {first} too{within}", quoted(email));
            self.mistakes.add(line, &text);
        }
        self.rows.push(row);
    }

    /// Returns the permissions of a row.
    fn permissions(&mut self, line: usize, record: &StringRecord) -> Vec<InvitePermission> {
        let mut found = Vec::new();
        for n in self.header.permissions() {
            let role = self.header.value(record, ImportColumn::Role(n));
            let column = ImportColumn::Resources(n);
            let listed = resources(self.header.value(record, column));
            let listed = listed.unwrap_or_else(|text| {
                self.mistakes.add(line, &text);
                Vec::new()
            });
            match (role, listed.is_empty()) {
                ("", true) => {}
                ("", false) => {
                    let text = format!("{column} without {}", ImportColumn::Role(n));
                    self.mistakes.add(line, &text);
                }
                (role, _) if !is_id(role) => {
                    let text = format!(
                        "{} is not the id of a role, which has no spaces; GET /roles lists the ids",
                        quoted(role)
                    );
                    self.mistakes.add(line, &text);
                }
                (role, _) => found.push(InvitePermission {
                    role: role.to_owned(),
                    resources: listed,
                }),
            }
        }
        found
    }

    /// Returns the group of a row.
    fn group(&mut self, line: usize, record: &StringRecord) -> Arc<str> {
        if let Some(group) = &self.rules.group {
            return group.clone();
        }
        let group = self.header.value(record, ImportColumn::Group);
        if let Some(known) = self.groups.get(group) {
            return known.clone();
        }
        if !is_id(group) {
            let text = format!(
                "{} is not the id of a group, which has no spaces; GET /groups lists the ids",
                quoted(group)
            );
            self.mistakes.add(line, &text);
            return group.into();
        }
        let shared: Arc<str> = group.into();
        self.groups.insert(group.to_owned(), shared.clone());
        shared
    }

    /// Returns the rows, if there are some and all are right.
    pub(super) fn finish(self) -> Result<Vec<ImportRow>, Vec<String>> {
        let mistakes = self.mistakes.into_lines();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        if self.rows.is_empty() {
            return Err(vec![
                "the file has no rows below the names of the columns".into(),
            ]);
        }
        Ok(self.rows)
    }
}
