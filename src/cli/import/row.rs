//! Pure. A row of an import: the request that it stands for, and the key of that request.
//!
//! Invariant: the key follows from what is asked for alone. Neither the name of the file nor the
//! place of the row is part of it, so that a second run of the same or of a longer file sends
//! nothing twice.

use crate::cli::admin::encoded;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// What an import brings in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImportKind {
    /// Invites to the workspace.
    Invites,
    /// Members of groups.
    Members,
}

impl ImportKind {
    /// Returns a number of rows in words.
    pub(super) fn counted(self, rows: usize) -> String {
        let word = match self {
            Self::Invites => "invite",
            Self::Members => "membership",
        };
        let plural = if rows == 1 { "" } else { "s" };
        format!("{rows} {word}{plural}")
    }
}

/// One row of a file that was found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImportRow {
    /// The line of the file on which it begins, from 1.
    pub(super) line: usize,
    /// The address of the person, as the file has it.
    pub(super) email: String,
    /// The group that the person joins; `None` for an invite.
    pub(super) group: Option<String>,
    /// The body of the request.
    pub(super) body: String,
}

impl ImportRow {
    /// Returns the row of an invite, with its permissions as the API has them.
    pub(super) fn invite(line: usize, email: &str, permissions: Vec<Value>) -> Self {
        let mut invite = json!({ "email": email });
        if !permissions.is_empty() {
            invite["permissions"] = permissions.into();
        }
        Self {
            line,
            email: email.to_owned(),
            group: None,
            body: json!({ "invites": [invite] }).to_string(),
        }
    }

    /// Returns the row of a member.
    pub(super) fn member(line: usize, email: &str, group: &str) -> Self {
        Self {
            line,
            email: email.to_owned(),
            group: Some(group.to_owned()),
            body: json!({ "emails": [email] }).to_string(),
        }
    }

    /// Returns the path of the request, whose method is POST.
    pub(super) fn path(&self) -> String {
        match &self.group {
            None => "/invites".to_owned(),
            Some(group) => format!("/groups/{}/users", encoded(group)),
        }
    }

    /// Returns the `Idempotency-Key` of the request: `import-`, and in hexadecimal the SHA-256 of
    /// the name of the run, the path and the body, each with its length in front.
    pub(super) fn key(&self, run: &str) -> String {
        let mut hash = Sha256::new();
        for part in [run, &self.path(), &self.body] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut key = "import-".to_owned();
        for byte in hash.finalize() {
            let _ = write!(key, "{byte:02x}");
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_row_asks_for_what_the_api_documents() {
        let plain = ImportRow::invite(2, "a@b.example", Vec::new());
        assert_eq!(plain.path(), "/invites");
        assert_eq!(plain.body, r#"{"invites":[{"email":"a@b.example"}]}"#);
        let permission = json!({
            "roleId": "source-admin", "resources": [{ "id": "s1", "type": "SOURCE" }],
        });
        let with = ImportRow::invite(2, "a@b.example", vec![permission]);
        let body: Value = serde_json::from_str(&with.body).unwrap();
        let expected = json!({ "invites": [{
            "email": "a@b.example",
            "permissions": [{ "roleId": "source-admin", "resources": [{ "id": "s1", "type": "SOURCE" }] }],
        }] });
        assert_eq!(body, expected);
        let member = ImportRow::member(3, "a@b.example", "g/1");
        assert_eq!(member.path(), "/groups/g%2F1/users");
        assert_eq!(member.body, r#"{"emails":["a@b.example"]}"#);
    }

    #[test]
    fn the_key_follows_from_what_is_asked_for() {
        let row = ImportRow::invite(2, "a@b.example", Vec::new());
        let key = row.key("");
        assert_eq!(key.len(), "import-".len() + 64);
        assert_eq!(key, ImportRow::invite(7, "a@b.example", Vec::new()).key(""));
        let permission = json!({ "roleId": "r", "resources": [] });
        for other in [
            row.key("again"),
            ImportRow::invite(2, "b@b.example", Vec::new()).key(""),
            ImportRow::invite(2, "a@b.example", vec![permission]).key(""),
            ImportRow::member(2, "a@b.example", "g").key(""),
        ] {
            assert_ne!(key, other);
        }
    }

    proptest! {
        /// Rows of other groups, addresses or runs never share a key, however they are cut.
        #[test]
        fn keys_differ_where_rows_do(
            a in ("[a-c]{0,2}", "[a-c/]{1,3}", "[a-c@.]{1,4}"),
            b in ("[a-c]{0,2}", "[a-c/]{1,3}", "[a-c@.]{1,4}"),
        ) {
            let key = |(run, group, email): &(String, String, String)| {
                ImportRow::member(1, email, group).key(run)
            };
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }
}
