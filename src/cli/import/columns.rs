//! Pure. The columns of a file: what its first line says, and where a row has what.
//!
//! Invariant: every column of the file is known and there once. A misspelt column must not be
//! ignored, because its values would be missing without a word.

use super::row::ImportKind;
use super::values::quoted;
use csv::StringRecord;
use std::fmt;

/// The most permissions of one invite.
const MOST_PERMISSIONS: usize = 9;

/// A column of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImportColumn {
    /// The address of the person.
    Email,
    /// The group that a member joins.
    Group,
    /// The role of the permission with this number, from 1.
    Role(usize),
    /// The resources of that permission.
    Resources(usize),
}

impl fmt::Display for ImportColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Email => f.write_str("email"),
            Self::Group => f.write_str("group"),
            Self::Role(1) => f.write_str("role"),
            Self::Role(n) => write!(f, "role{n}"),
            Self::Resources(1) => f.write_str("resources"),
            Self::Resources(n) => write!(f, "resources{n}"),
        }
    }
}

impl ImportColumn {
    /// Returns the column with this name, without regard to case.
    fn named(name: &str, kind: ImportKind) -> Option<Self> {
        let name = name.to_lowercase();
        let all = match kind {
            ImportKind::Invites => {
                let pairs =
                    (1..=MOST_PERMISSIONS).flat_map(|n| [Self::Role(n), Self::Resources(n)]);
                std::iter::once(Self::Email).chain(pairs).collect()
            }
            ImportKind::Members => vec![Self::Email, Self::Group],
        };
        all.into_iter().find(|column| column.to_string() == name)
    }
}

/// Returns the columns that a file can have, for a message.
fn expected(kind: ImportKind) -> &'static str {
    match kind {
        ImportKind::Invites => "email, role, resources, and role2, resources2 up to 9",
        ImportKind::Members => "email, group",
    }
}

/// The columns of a file, from left to right.
#[derive(Debug)]
pub(super) struct ImportHeader(Vec<ImportColumn>);

impl ImportHeader {
    /// Reads the names of the columns. `has_group` says that the group of all rows is given
    /// elsewhere.
    ///
    /// # Errors
    /// Every mistake in the line: a column that is unknown, missing or there twice.
    pub(super) fn read(
        record: &StringRecord,
        kind: ImportKind,
        has_group: bool,
    ) -> Result<Self, Vec<String>> {
        let (mut columns, mut mistakes) = (Vec::new(), Vec::new());
        for name in record {
            match ImportColumn::named(name, kind) {
                None => mistakes.push(format!(
                    "unknown column {}; expected {}",
                    quoted(name),
                    expected(kind)
                )),
                Some(column) if columns.contains(&column) => {
                    mistakes.push(format!("the column {column} is there twice"));
                }
                Some(column) => columns.push(column),
            }
        }
        // Often the only mistake, so it is said first: everything stands in one column.
        if let [only] = &*record.iter().collect::<Vec<_>>()
            && let Some(separator) = only.chars().find(|c| matches!(c, ';' | '\t' | '|'))
        {
            mistakes.insert(
                0,
                format!(
                    "the columns are separated by {separator:?}: say --delimiter {separator:?}"
                ),
            );
        }
        let mut require = |column| {
            if !columns.contains(&column) {
                mistakes.push(format!("there is no column {column}"));
            }
        };
        require(ImportColumn::Email);
        if kind == ImportKind::Members && !has_group {
            require(ImportColumn::Group);
        }
        for n in 1..=MOST_PERMISSIONS {
            if columns.contains(&ImportColumn::Resources(n)) {
                require(ImportColumn::Role(n));
            }
        }
        if has_group && columns.contains(&ImportColumn::Group) {
            mistakes.push("the column group and --group exclude each other".to_owned());
        }
        match mistakes.is_empty() {
            true => Ok(Self(columns)),
            false => Err(mistakes),
        }
    }

    /// The number of columns.
    pub(super) fn width(&self) -> usize {
        self.0.len()
    }

    /// Returns the value of a row in a column; empty if the file has no such column.
    pub(super) fn value<'r>(&self, record: &'r StringRecord, column: ImportColumn) -> &'r str {
        let at = self.0.iter().position(|one| *one == column);
        at.and_then(|at| record.get(at)).unwrap_or_default()
    }

    /// Returns the numbers of the permissions that the file has columns for.
    pub(super) fn permissions(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|column| match column {
            ImportColumn::Role(n) => Some(*n),
            _ => None,
        })
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
        let value = |column| header.value(&row, column);
        assert_eq!(value(ImportColumn::Email), "a@b.c");
        assert_eq!(value(ImportColumn::Role(1)), "r1");
        assert_eq!(value(ImportColumn::Resources(2)), "S:2");
        assert_eq!(value(ImportColumn::Role(3)), "");
        assert_eq!(Vec::from_iter(header.permissions()), [2, 1]);
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
                &["say --delimiter ';'", "unknown column", "no column email"],
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
