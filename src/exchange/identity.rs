//! Pure. Who asks, and whose token the API sees.

use crate::caller::Principal;
use crate::credential::Credential;
use std::net::IpAddr;
use std::sync::Arc;

/// The identity behind a request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The credential under which the API carries the request out.
    pub(crate) credential: Credential,
    /// The client that asks, if one is known.
    pub(crate) client: Option<Arc<str>>,
}

impl Identity {
    /// Returns the identity of whoever has this credential, and is no client.
    pub(crate) fn of(credential: Credential) -> Self {
        Self {
            credential,
            client: None,
        }
    }

    /// Returns for whom a request from this address is counted.
    pub(crate) fn principal(&self, peer: IpAddr) -> Principal {
        match &self.client {
            Some(client) => Principal::Client(client.clone()),
            None => Principal::from(peer),
        }
    }
}
