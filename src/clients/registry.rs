//! All clients, found by key or certificate.
//!
//! A registry is immutable. A reload replaces it as a whole, and the new one has a generation that
//! no other has had. It judges nothing: an expired key is found like any other.

use super::client::{KeyEntry, NamedClient};
use super::key::KeyId;
use foldhash::{HashMap, HashMapExt};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// The number of registries that were made.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// Whose tokens requests are sent with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialMode {
    /// Callers send their own tokens. There are no clients.
    #[default]
    Own,
    /// Callers send their own tokens or keys.
    Both,
    /// Callers send keys, and the gateway holds all tokens.
    Managed,
}

impl CredentialMode {
    /// Returns the word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Both => "both",
            Self::Managed => "managed",
        }
    }
}

/// A token that the gateway holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile {
    /// The name, for people.
    pub name: Arc<str>,
    /// The file that contains the token alone.
    pub path: PathBuf,
}

/// The clients of a gateway.
#[derive(Debug)]
pub struct Clients {
    mode: CredentialMode,
    generation: u64,
    clients: Vec<Arc<NamedClient>>,
    keys: HashMap<KeyId, KeyEntry>,
    /// Keys that are accepted no longer. They are kept so that a use of one is known for what it
    /// is.
    revoked: HashMap<KeyId, KeyEntry>,
    certificates: HashMap<Box<str>, Arc<NamedClient>>,
    tokens: Vec<TokenFile>,
}

impl Default for Clients {
    /// Returns a gateway's that has none: callers send their own tokens.
    fn default() -> Self {
        Self::new(CredentialMode::Own, Vec::new(), Vec::new(), Vec::new())
    }
}

impl Clients {
    /// Returns a registry of these clients and keys. An id of a key, and a name in certificates,
    /// must stand for one client; if there are two, the first one has it.
    pub fn new(
        mode: CredentialMode,
        clients: Vec<Arc<NamedClient>>,
        keys: Vec<KeyEntry>,
        tokens: Vec<TokenFile>,
    ) -> Self {
        let mut certificates = HashMap::new();
        for client in &clients {
            for name in &client.certificates {
                let entry = certificates.entry(name.clone());
                entry.or_insert_with(|| client.clone());
            }
        }
        let mut by_id = HashMap::with_capacity(keys.len());
        for key in keys {
            by_id.entry(key.id).or_insert(key);
        }
        Self {
            mode,
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            clients,
            keys: by_id,
            revoked: HashMap::new(),
            certificates,
            tokens,
        }
    }

    /// Returns whose tokens requests are sent with.
    pub fn mode(&self) -> CredentialMode {
        self.mode
    }

    /// Returns a number that no other registry of this process has. What was decided with one is
    /// not valid for another.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the key with this id.
    pub fn key(&self, id: KeyId) -> Option<&KeyEntry> {
        self.keys.get(&id)
    }

    /// Returns the revoked key with this id.
    pub fn revoked_key(&self, id: KeyId) -> Option<&KeyEntry> {
        self.revoked.get(&id)
    }

    /// Returns the client that a name in a certificate stands for.
    pub fn by_certificate(&self, name: &str) -> Option<&Arc<NamedClient>> {
        self.certificates.get(name)
    }

    /// Returns whether a client is known by this key, or without one by a certificate. Its key may
    /// have expired.
    pub fn knows(&self, client: &str, key: Option<KeyId>) -> bool {
        match key {
            Some(id) => self.key(id).is_some_and(|key| *key.client.name == *client),
            None => self
                .certificates
                .values()
                .any(|named| *named.name == *client),
        }
    }

    /// Returns the clients in the order of the file.
    pub fn clients(&self) -> &[Arc<NamedClient>] {
        &self.clients
    }

    /// Returns all keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &KeyEntry> {
        self.keys.values()
    }

    /// Returns each key that expires: its client, its id and the instant.
    pub fn expiries(&self) -> impl Iterator<Item = (&str, &str, SystemTime)> {
        let expiring = self.keys.values();
        expiring.filter_map(|key| Some((&*key.client.name, key.id.as_str(), key.expires?)))
    }

    /// Returns whether a key has this id, or a certificate this name.
    pub fn has_name(&self, name: &str) -> bool {
        let mut ids = self.keys.keys();
        self.certificates.contains_key(name) || ids.any(|id| id.as_str() == name)
    }

    /// Returns the ids of a client's keys, and its names in certificates.
    pub fn names_of(&self, client: &str) -> Vec<Box<str>> {
        let keys = self.keys.values().filter(|key| *key.client.name == *client);
        let ids = keys.map(|key| Box::from(key.id.as_str()));
        let certificates = self.certificates.iter();
        let own = certificates.filter(|(_, of)| *of.name == *client);
        ids.chain(own.map(|(name, _)| name.clone())).collect()
    }

    /// Returns the same clients without these keys and certificate names.
    pub fn without(&self, names: &BTreeSet<Box<str>>) -> Self {
        let clients = self.clients.iter().map(|client| {
            let mut client = client.clone();
            if client.certificates.iter().any(|name| names.contains(name)) {
                let certificates = &mut Arc::make_mut(&mut client).certificates;
                certificates.retain(|name| !names.contains(name));
            }
            client
        });
        let is_revoked = |key: &KeyEntry| names.contains(key.id.as_str());
        let (revoked, keys): (Vec<_>, Vec<_>) = self.keys.values().cloned().partition(is_revoked);
        let before = self.revoked.values().cloned();
        let revoked = before.chain(revoked).map(|key| (key.id, key)).collect();
        Self {
            revoked,
            ..Self::new(self.mode, clients.collect(), keys, self.tokens.clone())
        }
    }

    /// Returns the tokens that the gateway holds.
    pub fn tokens(&self) -> &[TokenFile] {
        &self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_registries_have_one_generation() {
        let (a, b) = (Clients::default(), Clients::default());
        assert_ne!(a.generation(), b.generation());
        assert_eq!(a.mode(), CredentialMode::Own);
    }
}
