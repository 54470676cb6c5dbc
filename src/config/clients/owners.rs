//! Pure. What stands for a client, and therefore for one client only: keys, and names in
//! certificates.

use super::definition::KeyDef;
use super::keys::KeyList;
use super::names::{CERTIFICATE, is_certificate_name};
use super::values::{Words, entry, placed, shown, texts};
use crate::clients::{KeyDigest, KeyId};
use crate::config::read::Section;
use std::collections::HashMap;
use std::sync::Arc;

/// All that has been read, each with the client that has it.
#[derive(Default)]
pub struct KeyOwners {
    ids: HashMap<KeyId, Arc<str>>,
    digests: HashMap<KeyDigest, Arc<str>>,
    certificates: HashMap<Box<str>, Arc<str>>,
}

impl KeyOwners {
    /// Reads the names in certificates that stand for a client.
    pub fn certificates(&mut self, client: &Arc<str>, section: &mut Section<'_>) -> Vec<Box<str>> {
        let mut words = Words::default();
        section.key("certificates", &mut words);
        for word in &words.0 {
            if !is_certificate_name(&word.text) {
                let wrong = entry(word, shown(&word.text), CERTIFICATE);
                section.wrong_entry("certificates", wrong);
            }
            let others = &mut self.certificates;
            if let Some(other) = others.insert(word.text.clone(), client.clone()) {
                let found = format!("a name that client `{other}` has");
                let wrong = entry(word, found, "each name once");
                section.wrong_entry("certificates", wrong);
            }
        }
        texts(&words)
    }

    /// Reads the keys of a client. Wrong ones are left out.
    pub fn keys(&mut self, client: &Arc<str>, section: &mut Section<'_>) -> Vec<KeyDef> {
        let mut keys = KeyList::default();
        section.key("keys", &mut keys);
        for key in &keys.0 {
            let (id, digest) = (key.def.id, key.def.digest);
            if let Some(other) = self.ids.insert(id, client.clone()) {
                let found = format!("the id `{id}`, which a key of client `{other}` has");
                let expected = "an id of its own for each key";
                section.wrong_entry("keys", placed(&key.id, found, expected));
            }
            if let Some(other) = self.digests.insert(digest, client.clone()) {
                let found = format!("a hash that a key of client `{other}` has");
                let expected = "a key of its own for each client";
                section.wrong_entry("keys", placed(&key.digest, found, expected));
            }
        }
        keys.0.into_iter().map(|key| key.def).collect()
    }
}
