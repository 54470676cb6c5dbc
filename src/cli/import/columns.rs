//! Pure. The columns of a file: what its first line says, and where a row has what.
//!
//! Invariant: every column of the file is known and there once. A misspelt column must not be
//! ignored, because its values would be missing without a word.

use super::row::ImportKind;
use super::values::quoted;
use csv::StringRecord;

/// What follows `role` and `resources` in the names of the columns of each permission.
pub(super) const PERMISSIONS: [&str; 9] = ["", "2", "3", "4", "5", "6", "7", "8", "9"];

/// The names of a file's columns in lower case, from left to right.
#[derive(Debug)]
pub(super) struct ImportHeader(Vec<String>);

impl ImportHeader {
    /// Reads the names of the columns. `has_group` says that the group of all rows is given
    /// elsewhere.
    ///
    /// # Errors
    /// Every mistake in the line: a column that is unknown, missing or there twice. If everything
    /// stands in one column, the delimiter is the only mistake.
    pub(super) fn read(
        record: &StringRecord,
        kind: ImportKind,
        has_group: bool,
    ) -> Result<Self, Vec<String>> {
        let all = record.as_slice();
        if record.len() == 1
            && let Some(found) = all.chars().find(|c| matches!(c, ';' | '\t' | '|'))
        {
            return Err(vec![format!(
                "the columns are separated by {found:?}: say --delimiter {found:?}"
            )]);
        }
        let mut mistakes = Vec::new();
        let mut columns: Vec<String> = Vec::new();
        for name in record {
            let column = name.to_lowercase();
            if !is_known(&column, kind) {
                let expected = expected(kind);
                mistakes.push(format!(
                    "unknown column {}; expected {expected}",
                    quoted(name)
                ));
            } else if columns.contains(&column) {
                mistakes.push(format!("the column {column} is there twice"));
            }
            columns.push(column);
        }
        let has = |name: &str| columns.iter().any(|column| column == name);
        let mut required = vec!["email".to_owned()];
        if kind == ImportKind::Members && !has_group {
            required.push("group".to_owned());
        }
        let listed = PERMISSIONS.iter().filter(|n| has(&format!("resources{n}")));
        required.extend(listed.map(|n| format!("role{n}")));
        let missing = required.iter().filter(|name| !has(name));
        mistakes.extend(missing.map(|name| format!("there is no column {name}")));
        if has_group && has("group") {
            mistakes.push("the column group and --group exclude each other".to_owned());
        }
        match mistakes.is_empty() {
            true => Ok(Self(columns)),
            false => Err(mistakes),
        }
    }

    /// Returns the number of columns.
    pub(super) fn width(&self) -> usize {
        self.0.len()
    }

    /// Returns the value of a row in a column; empty if the file has no such column.
    pub(super) fn value<'r>(&self, record: &'r StringRecord, column: &str) -> &'r str {
        let at = self.0.iter().position(|one| one == column);
        at.and_then(|at| record.get(at)).unwrap_or_default()
    }
}

/// Returns whether a file can have a column of this name.
fn is_known(column: &str, kind: ImportKind) -> bool {
    let number = column
        .strip_prefix("role")
        .or_else(|| column.strip_prefix("resources"));
    match kind {
        ImportKind::Invites => {
            column == "email" || number.is_some_and(|number| PERMISSIONS.contains(&number))
        }
        ImportKind::Members => column == "email" || column == "group",
    }
}

/// Returns the columns that a file can have, for a message.
fn expected(kind: ImportKind) -> &'static str {
    match kind {
        ImportKind::Invites => "email, role, resources, and role2, resources2 up to 9",
        ImportKind::Members => "email, group",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        names: &[&str],
        kind: ImportKind,
        has_group: bool,
    ) -> Result<ImportHeader, Vec<String>> {
        ImportHeader::read(&StringRecord::from(names.to_vec()), kind, has_group)
    }

    #[test]
    fn a_value_is_found_by_the_name_of_its_column() {
        let names = ["Role2", "resources2", "EMAIL", "role", "Resources"];
        let header = read(&names, ImportKind::Invites, false).unwrap();
        let row = StringRecord::from(vec!["r2", "S:2", "a@b.c", "r1", "S:1"]);
        let value = |column: &str| header.value(&row, column);
        assert_eq!(value("email"), "a@b.c");
        assert_eq!(value("role"), "r1");
        assert_eq!(value("resources2"), "S:2");
        assert_eq!(value("role3"), "");
        assert_eq!(header.width(), 5);
    }

    #[test]
    fn a_wrong_first_line_is_explained() {
        let (invites, members) = (ImportKind::Invites, ImportKind::Members);
        for (names, kind, has_group, mistakes) in [
            (
                &["mail"][..],
                invites,
                false,
                &[
                    "unknown column \"mail\"; expected email, role",
                    "no column email",
                ][..],
            ),
            (
                &["email", "group"],
                invites,
                false,
                &["unknown column \"group\""],
            ),
            (
                &["email", "email"],
                invites,
                false,
                &["email is there twice"],
            ),
            (&["email", "resources"], invites, false, &["no column role"]),
            (
                &["email", "role1"],
                invites,
                false,
                &["unknown column \"role1\""],
            ),
            (
                &["email", "role10"],
                invites,
                false,
                &["unknown column \"role10\""],
            ),
            (
                &["email", "role+2"],
                invites,
                false,
                &["unknown column \"role+2\""],
            ),
            (&["email", ""], invites, false, &["unknown column \"\""]),
            (
                &["email;role"],
                invites,
                false,
                &["separated by ';': say --delimiter ';'"],
            ),
            (&["email"], members, false, &["no column group"]),
            (&["email", "group"], members, true, &["exclude each other"]),
            (
                &["email", "role"],
                members,
                true,
                &["unknown column \"role\"; expected email, group"],
            ),
        ] {
            let found = read(names, kind, has_group).unwrap_err();
            assert_eq!(found.len(), mistakes.len(), "{found:?}");
            for (found, part) in found.iter().zip(mistakes) {
                assert!(found.contains(part), "{found}");
            }
        }
        assert!(read(&["email"], members, true).is_ok());
    }
}
