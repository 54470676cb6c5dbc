//! Pure. Names that operators give to the hashes of credentials, so that people see who a hash is.
//!
//! Invariant: a name stands for one hash and a hash has one name. A name never looks like a hash,
//! so a text that may be either is never ambiguous.
//!
//! A name is for people and changes nothing: no key, budget, lane or metric depends on it. The hash
//! stays beside it wherever it is shown, because a search goes by the hash.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The characters of a hash as it is shown: 64 bits in hexadecimal.
pub const SHOWN_HASH: usize = 16;
/// The most characters of a name.
const LONGEST_NAME: usize = 32;
/// The most names. Far more than there are tokens in a workspace.
const MOST_NAMES: usize = 1000;

/// The form of a hash, for messages.
pub const HASH_FORM: &str =
    "16 hexadecimal digits in lower case, as `segment-gateway credential hash` prints them";
/// The form of a name, for messages.
pub const NAME_FORM: &str = "a name of 1 to 32 lower-case letters, digits, `-` and `_` that begins with a letter and \
     does not look like a hash";

/// The names of credentials. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialNames(Arc<BTreeMap<Box<str>, Box<str>>>);

/// Why an entry is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError<'e> {
    /// The name does not have the form of one.
    Name,
    /// The hash does not have the form of one. It may be a token by mistake, so it is never shown.
    Hash {
        /// Its number of characters.
        length: usize,
    },
    /// The name stands for another hash already.
    NameTaken,
    /// The hash has another name already.
    HashTaken(&'e str),
    /// There are too many.
    TooMany,
}

impl CredentialNames {
    /// Returns the name of a hash as logs and lists show it.
    pub fn of(&self, hash: &str) -> Option<&str> {
        self.0.get(hash).map(AsRef::as_ref)
    }

    /// Returns the hash that a text from an operator stands for: that of the name, or else the text
    /// itself.
    pub fn resolve<'t>(&'t self, name_or_hash: &'t str) -> &'t str {
        let mut named = self.0.iter();
        let found = named.find(|(_, name)| ***name == *name_or_hash);
        found.map_or(name_or_hash, |(hash, _)| hash)
    }

    /// Returns whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names with their hashes, in the order of the names.
    pub fn entries(&self) -> Vec<(&str, &str)> {
        let entries = self.0.iter();
        let mut entries: Vec<_> = entries.map(|(hash, name)| (&**name, &**hash)).collect();
        entries.sort_unstable();
        entries
    }

    /// Adds a name.
    ///
    /// # Errors
    /// If the name or the hash is malformed or taken, or there are too many.
    pub fn add(&mut self, name: &str, hash: &str) -> Result<(), NameError<'_>> {
        if !is_name(name) {
            return Err(NameError::Name);
        }
        if !is_hash(hash) {
            let length = hash.chars().count();
            return Err(NameError::Hash { length });
        }
        if self.0.values().any(|taken| **taken == *name) {
            return Err(NameError::NameTaken);
        }
        if self.0.len() >= MOST_NAMES {
            return Err(NameError::TooMany);
        }
        if self.0.contains_key(hash) {
            return Err(NameError::HashTaken(self.of(hash).unwrap_or_default()));
        }
        Arc::make_mut(&mut self.0).insert(hash.into(), name.into());
        Ok(())
    }
}

impl fmt::Display for NameError<'_> {
    /// Writes the finding, to be followed by what is expected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("a name of another form"),
            Self::Hash { length } => write!(f, "a value of {length} characters that is no hash"),
            Self::NameTaken => f.write_str("this name a second time"),
            Self::HashTaken(name) => write!(f, "the hash that `{name}` stands for"),
            Self::TooMany => write!(f, "more than {MOST_NAMES} names"),
        }
    }
}

impl NameError<'_> {
    /// Returns what is expected in place of the entry.
    pub fn expected(&self) -> String {
        match self {
            Self::Name => NAME_FORM.to_owned(),
            Self::Hash { .. } => HASH_FORM.to_owned(),
            Self::NameTaken => "each name once".to_owned(),
            Self::HashTaken(_) => "one name for each hash".to_owned(),
            Self::TooMany => format!("{MOST_NAMES} names at most"),
        }
    }
}

/// Returns whether a text has the form of a name.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    text.len() <= LONGEST_NAME
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(plain)
        && !is_hash(text)
}

/// Returns whether a text has the form of a hash as logs and lists show it.
pub fn is_hash(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == SHOWN_HASH && text.bytes().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Credential;
    use proptest::prelude::*;

    const HASH: &str = "5773d8e37a48758f";

    #[test]
    fn a_hash_as_it_is_shown_has_the_form_of_one() {
        assert!(is_hash(&Credential::from_bytes([0xab; 16]).to_string()));
    }

    #[test]
    fn a_table_of_entries() {
        let longest = "a".repeat(LONGEST_NAME);
        for (name, hash, expected) in [
            ("terraform", HASH, Ok(())),
            ("a", HASH, Ok(())),
            ("ci-nightly_2", HASH, Ok(())),
            ("ci.nightly", HASH, Err(NameError::Name)),
            (&*longest, HASH, Ok(())),
            (&*format!("{longest}a"), HASH, Err(NameError::Name)),
            ("", HASH, Err(NameError::Name)),
            ("Terraform", HASH, Err(NameError::Name)),
            ("2fast", HASH, Err(NameError::Name)),
            ("-", HASH, Err(NameError::Name)),
            ("with space", HASH, Err(NameError::Name)),
            ("é", HASH, Err(NameError::Name)),
            ("a\"b", HASH, Err(NameError::Name)),
            ("abcdefabcdefabcd", HASH, Err(NameError::Name)),
            ("abcdefabcdefabc", HASH, Ok(())),
            (
                "ci",
                "5773D8E37A48758F",
                Err(NameError::Hash { length: 16 }),
            ),
            ("ci", "5773d8e37a48758", Err(NameError::Hash { length: 15 })),
            (
                "ci",
                "5773d8e37a48758g",
                Err(NameError::Hash { length: 16 }),
            ),
            ("ci", "", Err(NameError::Hash { length: 0 })),
        ] {
            let mut names = CredentialNames::default();
            assert_eq!(names.add(name, hash), expected, "{name:?} {hash:?}");
            assert_eq!(names.of(hash), expected.ok().map(|()| name));
        }
    }

    #[test]
    fn one_name_for_each_hash_and_a_bounded_number() {
        let mut names = CredentialNames::default();
        names.add("terraform", HASH).unwrap();
        let other = "0000000000000000";
        assert_eq!(names.add("terraform", other), Err(NameError::NameTaken));
        assert_eq!(
            names.add("ci", HASH),
            Err(NameError::HashTaken("terraform"))
        );
        for n in 1..MOST_NAMES {
            names.add(&format!("n{n}"), &format!("{n:016x}")).unwrap();
        }
        assert_eq!(names.add("ci", other), Err(NameError::TooMany));
        assert_eq!(names.entries().len(), MOST_NAMES);
        assert_eq!(names.resolve("terraform"), HASH);
        assert_eq!(names.resolve(other), other);
    }

    #[test]
    fn a_token_in_place_of_a_hash_is_not_shown() {
        let token = "sgp_a-token-by-mistake";
        let mut names = CredentialNames::default();
        let error = names.add("ci", token).unwrap_err();
        let shown = format!("{error} {} {error:?}", error.expected());
        assert!(
            !shown.contains(token) && shown.contains("22 characters"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn no_name_is_a_hash(text in "[0-9a-f]{1,20}|[a-z_-]{1,40}") {
            prop_assert!(!(is_name(&text) && is_hash(&text)));
        }
    }
}
