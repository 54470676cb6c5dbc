//! One caller in each run has keys in place of tokens: the gateway holds those for it. It shares
//! their cache, budgets and lanes with the callers that send them, so everything that is judged of a
//! token is judged of both.

use super::super::support::World;
use super::super::support::clients::{client, entry, held};
use segment_gateway::clients::{ClientKey, Clients, CredentialMode};

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
        let operations = table.operations().iter();
        let every: Vec<&str> = operations.map(|operation| &*operation.name).collect();
        let clients = TOKENS.map(|name| client(world, name, name, &every));
        let keys = self.0.iter().zip(&clients);
        let keys = keys.map(|(key, client)| entry(key, client, None)).collect();
        let both = Clients::new(CredentialMode::Both, clients.to_vec(), keys, Vec::new());
        router.clients.set(both);
        let tokens = TOKENS.map(|name| held(world, name, name, Some(name)));
        router.tokens.set(tokens.to_vec());
    }
}
