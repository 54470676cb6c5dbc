//! Clients with keys of their own, and tokens that a gateway holds for them.

use super::World;
use http::HeaderValue;
use segment_gateway::clients::tokens::HeldToken;
use segment_gateway::clients::{ClientKey, KeyEntry, NamedClient, OperationIndex, Rights};
use segment_gateway::credential::Credential;
use std::sync::Arc;
use std::time::SystemTime;

/// A client that uses this token and may use these operations.
pub fn client(world: &World, name: &str, token: &str, may: &[&str]) -> Arc<NamedClient> {
    let index = OperationIndex::of(&world.gateway.router().table.get());
    let mut rights = Rights::none(&index);
    for operation in may {
        rights.grant(index.position(operation).unwrap());
    }
    Arc::new(NamedClient {
        name: name.into(),
        token: Some(token.into()),
        rights,
        rate: None,
        share: 1,
        certificates: Vec::new(),
    })
}

/// The entry of a client's key.
pub fn entry(key: &ClientKey, client: &Arc<NamedClient>, expires: Option<SystemTime>) -> KeyEntry {
    KeyEntry {
        id: key.id(),
        digest: key.digest(),
        expires,
        client: client.clone(),
    }
}

/// The key of a client as the file of clients has it.
pub fn key_block(client: &str, key: &ClientKey) -> String {
    let (id, digest) = (key.id(), key.digest());
    format!("[[clients.{client}.keys]]\nid = '{id}'\nsha256 = '{digest}'\n")
}

pub fn bearer(token: &str) -> HeaderValue {
    format!("Bearer {token}").parse().unwrap()
}

/// The credential of a token.
pub fn credential(world: &World, token: &str) -> Credential {
    let hasher = &world.gateway.router().hasher;
    hasher.credential_of(Some(&bearer(token)))
}

/// A held token whose first token was `first`. Without a `token` there is none that may be used.
pub fn held(world: &World, name: &str, first: &str, token: Option<&str>) -> Arc<HeldToken> {
    Arc::new(HeldToken::new(
        name.into(),
        credential(world, first),
        credential(world, token.unwrap_or("another")),
        token.map(bearer),
    ))
}
