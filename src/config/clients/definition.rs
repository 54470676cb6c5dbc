//! Pure. The file of clients as it is written, after every check.
//!
//! It is plain data without a connection to a running gateway. [`ClientsFile::registry`] makes of
//! it what a gateway looks requests up in, for one route table.

use super::groups::OperationGroups;
use crate::clients::{
    Clients, CredentialMode, KeyDigest, KeyEntry, KeyId, NamedClient, OperationIndex, Rights,
    TokenFile,
};
use crate::route::{Rate, Table};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// The contents of the file of clients, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientsFile {
    /// The tokens that the gateway holds.
    pub tokens: Vec<TokenFile>,
    /// The groups of operations: names of operations and of groups.
    pub groups: BTreeMap<Box<str>, Vec<Box<str>>>,
    /// The clients.
    pub clients: Vec<ClientDef>,
}

/// A client as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientDef {
    /// The name.
    pub name: Arc<str>,
    /// The name of its token.
    pub token: Option<Arc<str>>,
    /// The operations and groups that it may use.
    pub may: Vec<Box<str>>,
    /// Its quota.
    pub rate: Option<Rate>,
    /// The weight of its turns.
    pub share: u8,
    /// The names in certificates that stand for it.
    pub certificates: Vec<Box<str>>,
    /// Its keys.
    pub keys: Vec<KeyDef>,
}

/// A key as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDef {
    /// The id.
    pub id: KeyId,
    /// The SHA-256 of the key.
    pub digest: KeyDigest,
    /// The instant from which the key is no longer accepted.
    pub expires: Option<SystemTime>,
}

impl ClientsFile {
    /// Returns the clients as requests are looked up in them. An operation that the table does not
    /// have is nobody's right.
    pub fn registry(&self, mode: CredentialMode, table: &Table) -> Clients {
        let index = OperationIndex::of(table);
        let groups = OperationGroups::new(table, &self.groups);
        let mut clients = Vec::with_capacity(self.clients.len());
        let mut keys = Vec::new();
        for def in &self.clients {
            let named = groups.expand(&def.may);
            let mut rights = Rights::none(&index);
            for operation in table.operations() {
                if named.contains(&*operation.name) {
                    rights.grant(operation.index);
                }
            }
            let client = Arc::new(NamedClient {
                name: def.name.clone(),
                token: def.token.clone(),
                rights,
                rate: def.rate,
                share: def.share,
                certificates: def.certificates.clone(),
            });
            keys.extend(def.keys.iter().map(|key| KeyEntry {
                id: key.id,
                digest: key.digest,
                expires: key.expires,
                client: client.clone(),
            }));
            clients.push(client);
        }
        Clients::new(mode, clients, keys, self.tokens.clone())
    }
}
