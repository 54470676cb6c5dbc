//! The router: finds the operation, the caller and the credential of a request, and how long it may
//! wait.
//!
//! It reads the head only. The body, the queue and the cache are not consulted.

use crate::caller::Caller;
use crate::credential::{self, Hasher};
use crate::error::GatewayError;
use crate::exchange::identity::Identity;
use crate::exchange::request::RequestContext;
use crate::exchange::settings::Settings;
use crate::exchange::source::RequestSource;
use crate::exchange::{callers, edge, priority};
use crate::journal::WriteOwner;
use crate::route::policy::Effect;
use crate::route::table::Table;
use crate::swap::Swap;
use bytes::Bytes;
use http::{HeaderMap, request};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

/// The configuration that understanding a request needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Router {
    /// The operations of the API.
    pub table: Arc<Swap<Table>>,
    /// The keyed hash that names credentials.
    pub hasher: Hasher,
    /// The settings.
    pub settings: Arc<Swap<Settings>>,
}

impl Router {
    /// Returns the owner of the writes that a request with these headers asks for. `None` if it
    /// names nobody.
    pub(crate) fn owner(&self, headers: &HeaderMap, source: &RequestSource) -> Option<WriteOwner> {
        let identity = source.identity.clone();
        let identity = identity.or_else(|| {
            credential::is_named(headers).then(|| Identity::of(self.hasher.credential(headers)))
        })?;
        Some(WriteOwner {
            credential: identity.credential,
            client: identity.client,
        })
    }

    /// Returns the context of a request with this head, which came from `source`.
    ///
    /// # Errors
    /// If the caller's name is invalid.
    pub(crate) fn understand(
        &self,
        head: request::Parts,
        source: &RequestSource,
        accepted: Instant,
    ) -> Result<RequestContext, GatewayError> {
        // Both are read once, so that a reload cannot mix old and new values within one request.
        let (settings, table) = (self.settings.get(), self.table.get());
        let peer = source
            .peer
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let name = callers::name(&head.headers, peer, &settings.trusted)?;
        // A request from within that nobody vouches for is that of its token.
        let identity = source.identity.clone();
        let identity =
            identity.unwrap_or_else(|| Identity::of(self.hasher.credential(&head.headers)));
        let caller = Caller {
            principal: identity.principal(peer),
            name,
        };
        let target = edge::target(head.uri);
        let overridden = edge::overrides_method(&head.headers);
        let matched = table.find(&head.method, target.path());
        let mut operation = matched.operation;
        // The API may treat an overridden read as any write, so it goes by the rules of writes.
        if overridden && operation.effect == Effect::Read {
            operation = table.unmatched_write();
        }
        let patience = match operation.effect {
            Effect::Write => &settings.write_patience,
            Effect::Read => &settings.read_patience,
        };
        Ok(RequestContext {
            patience: patience.of(&head.headers),
            urgency: priority::urgency(&head.headers),
            credential: identity.credential,
            params: matched.params,
            method: head.method,
            headers: head.headers,
            body: Bytes::new(),
            room: None,
            progress: Arc::default(),
            ids: source.ids.clone(),
            operation,
            target,
            caller,
            peer,
            accepted,
            overridden,
        })
    }
}
