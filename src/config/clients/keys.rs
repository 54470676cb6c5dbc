//! Pure. The keys of a client as they are written: tables of an id, a hash and an expiry.
//!
//! What was written in place of a hash or an id is never shown: it may be a key.

use super::definition::KeyDef;
use super::expiry::{EXPIRES, instant};
use super::values::shown;
use crate::clients::{ClientKey, KeyDigest, KeyId};
use crate::config::read::nearest;
use crate::config::value::{ConfigValue, Raw, WrongEntry};
use std::ops::Range;
use std::time::SystemTime;
use toml::de::{DeTable, DeValue};

/// The form of the keys of a client, for messages.
const KEYS: &str = "tables `[[clients.NAME.keys]]`, as `segment-gateway key new` prints them";

/// A key with the places of its parts.
#[derive(Clone, Debug)]
pub struct WrittenKey {
    /// The key.
    pub def: KeyDef,
    /// Where its id is written.
    pub id: Range<usize>,
    /// Where its hash is written.
    pub digest: Range<usize>,
}

/// The keys of a client.
#[derive(Clone, Debug, Default)]
pub struct KeyList(pub Vec<WrittenKey>);

impl ConfigValue for KeyList {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        match read_keys(raw) {
            (keys, wrong) if wrong.is_empty() => Ok(Self(keys)),
            _ => Err(KEYS.to_owned()),
        }
    }

    fn show(&self) -> String {
        format!("{} keys", self.0.len())
    }

    fn wrong_entries(raw: Raw<'_>) -> Vec<WrongEntry> {
        read_keys(raw).1
    }
}

/// Reads all keys that are right. The second value has what is wrong.
fn read_keys(raw: Raw<'_>) -> (Vec<WrittenKey>, Vec<WrongEntry>) {
    let (mut keys, mut wrong) = (Vec::new(), Vec::new());
    let problem = |span, found: &str| WrongEntry {
        name: None,
        span,
        found: found.to_owned(),
        expected: KEYS.to_owned(),
    };
    let Raw::Toml(DeValue::Array(elements)) = raw else {
        return (
            keys,
            vec![problem(None, "a value that is no list of tables")],
        );
    };
    for element in elements {
        match element.get_ref() {
            DeValue::Table(table) => {
                let mut reader = KeyReader {
                    table,
                    span: element.span(),
                    wrong: &mut wrong,
                };
                keys.extend(reader.read());
            }
            _ => wrong.push(problem(Some(element.span()), "an element that is no table")),
        }
    }
    (keys, wrong)
}

/// Reads one table of a key.
struct KeyReader<'r> {
    table: &'r DeTable<'r>,
    span: Range<usize>,
    wrong: &'r mut Vec<WrongEntry>,
}

impl KeyReader<'_> {
    const NAMES: [&'static str; 3] = ["id", "sha256", "expires"];

    fn read(&mut self) -> Option<WrittenKey> {
        self.unknown();
        // All three, so that every mistake is reported.
        let id = self.text(
            "id",
            "the id that the key contains",
            KeyId::parse,
            KeyId::FORM,
        );
        let hash = "the hash of the key, as `segment-gateway key hash` prints it";
        let digest = self.text("sha256", hash, KeyDigest::parse, KeyDigest::FORM);
        let expires = self.expires();
        let ((id, id_span), (digest, digest_span)) = (id?, digest?);
        Some(WrittenKey {
            def: KeyDef {
                id,
                digest,
                expires: expires.ok()?,
            },
            id: id_span,
            digest: digest_span,
        })
    }

    /// Reads a text that must be there.
    fn text<T>(
        &mut self,
        name: &'static str,
        what: &str,
        parse: fn(&str) -> Option<T>,
        form: &str,
    ) -> Option<(T, Range<usize>)> {
        let Some(value) = self.table.get(name) else {
            let span = self.span.clone();
            self.add(name, span, "nothing", format!("{what}, which is required"));
            return None;
        };
        let found = match value.get_ref() {
            DeValue::String(text) => match parse(text) {
                Some(parsed) => return Some((parsed, value.span())),
                None if ClientKey::parse(text.as_bytes()).is_ok() => "a whole key, which is now \
                    exposed and must be replaced"
                    .to_owned(),
                None => format!("a text of {} characters", text.chars().count()),
            },
            _ => "a value that is not text".to_owned(),
        };
        self.add(name, value.span(), &found, format!("{what}: {form}"));
        None
    }

    /// Reads the expiry, if there is one.
    fn expires(&mut self) -> Result<Option<SystemTime>, ()> {
        let Some(value) = self.table.get("expires") else {
            return Ok(None);
        };
        let found = match value.get_ref() {
            DeValue::Datetime(written) => match instant(written) {
                Some(instant) => return Ok(Some(instant)),
                None => written.to_string(),
            },
            DeValue::String(text) => shown(text),
            _ => "a value that is no date".to_owned(),
        };
        self.add("expires", value.span(), &found, EXPIRES.to_owned());
        Err(())
    }

    /// Reports entries of another name.
    fn unknown(&mut self) {
        let table = self.table;
        let names = table.iter().map(|(name, _)| (name.get_ref(), name.span()));
        for (name, span) in names.filter(|(name, _)| !Self::NAMES.contains(&name.as_ref())) {
            let expected = match nearest(name, Self::NAMES.into_iter()) {
                Some(known) => format!("`{known}` (the nearest)"),
                None => "one of `id`, `sha256`, `expires`".to_owned(),
            };
            self.wrong.push(WrongEntry {
                name: None,
                span: Some(span),
                found: format!("an unknown key {}", shown(name)),
                expected,
            });
        }
    }

    fn add(&mut self, name: &str, span: Range<usize>, found: &str, expected: String) {
        self.wrong.push(WrongEntry {
            name: Some(name.to_owned()),
            span: Some(span),
            found: found.to_owned(),
            expected,
        });
    }
}
