//! Which operation a request asks for, who asks, with which credential, and how long it may wait.

use crate::credential::Hasher;
use crate::error::GatewayError;
use crate::exchange::ids::Ids;
use crate::exchange::request::{Ask, Peer};
use crate::exchange::settings::Settings;
use crate::exchange::{callers, edge, priority};
use crate::route::policy::Effect;
use crate::route::table::Table;
use crate::swap::Swap;
use bytes::Bytes;
use http::request;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

/// What is needed to understand a request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Router {
    /// The operations of the API.
    pub table: Arc<Swap<Table>>,
    /// Names credentials.
    pub hasher: Hasher,
    /// Plain values.
    pub settings: Arc<Swap<Settings>>,
}

impl Router {
    /// Which operation it is, who asks, with which credential, and how long it may wait.
    pub(crate) fn understand(
        &self,
        head: request::Parts,
        accepted: Instant,
    ) -> Result<Ask, GatewayError> {
        let (settings, table) = (self.settings.get(), self.table.get());
        let peer = head.extensions.get::<Peer>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let caller = callers::identify(&head.headers, peer, &settings.trusted)?;
        let target = edge::target(head.uri);
        let overridden = edge::overrides_method(&head.headers);
        let matched = table.find(&head.method, target.path());
        let mut operation = matched.operation;
        if overridden && operation.effect == Effect::Read {
            operation = table.unmatched_write();
        }
        let patience = match operation.effect {
            Effect::Write => &settings.write_patience,
            Effect::Read => &settings.read_patience,
        };
        Ok(Ask {
            patience: patience.of(&head.headers),
            urgency: priority::urgency(&head.headers),
            credential: self.hasher.credential(&head.headers),
            params: matched.params,
            method: head.method,
            headers: head.headers,
            body: Bytes::new(),
            room: None,
            progress: Arc::default(),
            ids: Ids::default(),
            operation,
            target,
            caller,
            accepted,
            overridden,
        })
    }
}
