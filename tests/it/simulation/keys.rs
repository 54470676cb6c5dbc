//! One caller in each run has keys in place of tokens: the gateway holds those for it. It shares
//! their cache, budgets and lanes with the callers that send them, so everything that is judged of a
//! token is judged of both.

use super::super::support::World;
use http::HeaderValue;
use segment_gateway::clients::tokens::HeldToken;
use segment_gateway::clients::{
    ClientKey, Clients, CredentialMode, KeyEntry, NamedClient, OperationIndex, Rights,
};
use std::sync::Arc;

/// The peer that sends keys.
const PEER: u8 = 3;
/// The tokens, which are the names of the clients as well.
const TOKENS: [&str; 2] = ["a", "b"];

/// The keys, one for each token. They outlast restarts, as a file of clients does.
pub struct Keys([ClientKey; 2]);

impl Keys {
    pub fn new() -> Self {
        Self(TOKENS.map(|_| ClientKey::generate().unwrap()))
    }

    /// What a peer sends to use this token.
    pub fn shown(&self, peer: u8, token: u8) -> &str {
        let token = usize::from(token);
        match peer {
            PEER => self.0[token].reveal(),
            _ => TOKENS[token],
        }
    }

    /// Gives the clients, and their tokens, to a gateway that has just started.
    pub fn install(&self, world: &World) {
        let router = world.gateway.router();
        let table = router.table.get();
        let index = OperationIndex::of(&table);
        let mut rights = Rights::none(&index);
        for operation in table.operations() {
            rights.grant(operation.index);
        }
        let client = |name: &str| {
            Arc::new(NamedClient {
                name: name.into(),
                token: Some(name.into()),
                rights: rights.clone(),
                rate: None,
                share: 1,
                certificates: Vec::new(),
            })
        };
        let clients = TOKENS.map(client).to_vec();
        let keys = self.0.iter().zip(&clients).map(|(key, client)| KeyEntry {
            id: key.id(),
            digest: key.digest(),
            expires: None,
            client: client.clone(),
        });
        let keys = keys.collect();
        let both = Clients::new(CredentialMode::Both, clients, keys, Vec::new());
        router.clients.set(both);
        let held = TOKENS.map(|name| {
            let authorization = HeaderValue::try_from(format!("Bearer {name}")).unwrap();
            let credential = router.hasher.credential_of(Some(&authorization));
            let token = HeldToken::new(name.into(), credential, credential, Some(authorization));
            Arc::new(token)
        });
        router.tokens.set(held.to_vec());
    }
}
