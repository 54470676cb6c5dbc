//! Pure. How many requests of a principal go in its turn.
//!
//! Promises that a principal without a weight of its own has one request in its turn: an address,
//! and a client whose `share` is 1.

use crate::caller::Principal;
use crate::clients::NamedClient;
use foldhash::HashMap;
use std::num::NonZeroU8;
use std::sync::Arc;

/// The most requests that go in one turn of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Weight(NonZeroU8);

impl Weight {
    /// The weight of whoever has no other.
    pub(crate) const ONE: Self = Self(NonZeroU8::MIN);

    /// Returns the weight of a client with this share; 0 counts as 1.
    fn of_share(share: u8) -> Self {
        NonZeroU8::new(share).map_or(Self::ONE, Self)
    }

    /// Returns the number of requests.
    pub(crate) fn requests(self) -> usize {
        self.0.get().into()
    }

    /// Returns the number of turns in which so many requests go, if that many are ready.
    pub(super) fn turns_of(self, requests: usize) -> usize {
        requests.div_ceil(self.requests())
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

/// The weights of all clients whose weight is not one.
#[derive(Clone, Debug, Default)]
pub struct ClientWeights(HashMap<Arc<str>, Weight>);

impl ClientWeights {
    /// Returns the weights of these clients.
    pub fn of_clients(clients: &[Arc<NamedClient>]) -> Self {
        let weights = clients
            .iter()
            .map(|client| (client.name.clone(), Weight::of_share(client.share)));
        Self(
            weights
                .filter(|(_, weight)| *weight != Weight::ONE)
                .collect(),
        )
    }

    /// Returns the weight of a principal.
    pub(crate) fn of(&self, principal: &Principal) -> Weight {
        let client = principal.client();
        let weight = client.and_then(|client| self.0.get(client));
        weight.copied().unwrap_or_default()
    }
}

#[cfg(test)]
impl ClientWeights {
    /// Returns the weights of clients with these names and shares.
    pub(crate) fn of_shares(shares: &[(&str, u8)]) -> Self {
        let weights = shares.iter();
        let weights = weights.map(|(name, share)| (Arc::from(*name), Weight::of_share(*share)));
        Self(weights.collect())
    }
}
