//! The router: finds the sender of a request, its operation, its credential and its caller, and how
//! long it may wait.
//!
//! It reads the head only. The body, the queue and the cache are not consulted.

use crate::caller::Caller;
use crate::clients::tokens::HeldTokens;
use crate::clients::{self, Clients, CredentialSource, PresentedCredentials};
use crate::credential::{self, GATEWAY_KEY, Hasher};
use crate::error::GatewayError;
use crate::exchange::identity::{Admitted, CertificateNames, Identity};
use crate::exchange::request::RequestContext;
use crate::exchange::settings::Settings;
use crate::exchange::source::RequestSource;
use crate::exchange::{callers, edge, priority};
use crate::route::policy::Effect;
use crate::route::table::Table;
use crate::swap::Swap;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, request};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The configuration that understanding a request needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Router {
    /// The operations of the API.
    pub table: Arc<Swap<Table>>,
    /// The keyed hash that names credentials.
    pub hasher: Hasher,
    /// The settings.
    pub settings: Arc<Swap<Settings>>,
    /// The clients that have keys of their own.
    pub clients: Arc<Swap<Clients>>,
    /// The tokens that the gateway holds for them.
    pub tokens: Arc<HeldTokens>,
}

impl Router {
    /// Returns the sender of a request, by its headers and the certificate of its connection. The
    /// result is valid for one [`generation`](Self::generation).
    ///
    /// # Errors
    /// If a key is not accepted, or a token of the caller's own is not.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        certificate: &CertificateNames,
        now: SystemTime,
    ) -> Result<Admitted, GatewayError> {
        let authorization = headers.get(AUTHORIZATION);
        let mut keys = headers.get_all(GATEWAY_KEY).iter();
        let gateway_key = keys.next();
        if keys.next().is_some() {
            return Err(GatewayError::BadRequest(
                "The request has more than one X-Gateway-Key",
            ));
        }
        let presented = PresentedCredentials {
            authorization: authorization.map(credential::token),
            gateway_key: gateway_key.map(|key| key.as_bytes()),
            certificate: certificate.get(),
        };
        let admission = clients::admit(&self.clients.get(), &presented, now)?;
        let (credential, is_named, token) = match admission.credential {
            CredentialSource::Own => {
                let hash = self.hasher.credential_of(authorization);
                let credential = self.tokens.credential(hash, &self.hasher);
                (credential, credential::is_named(headers), None)
            }
            CredentialSource::Held(name) => {
                // One that was replaced while no gateway ran is not usable before its workspace is
                // known.
                let held = self.tokens.named(&name).filter(|held| held.is_usable());
                let held = held.ok_or(GatewayError::HeldTokenRefused { sent: false })?;
                (held.credential, true, Some(name))
            }
        };
        let client = admission.client;
        Ok(Admitted {
            identity: Identity {
                credential,
                client: client.as_ref().map(|client| client.name.clone()),
                key: admission.key,
                is_held: token.is_some(),
            },
            is_named,
            client,
            token,
            until: admission.until,
        })
    }

    /// Returns a number that changes with the clients and with the held tokens.
    pub(crate) fn generation(&self) -> (u64, u64) {
        (self.clients.get().generation(), self.tokens.generation())
    }

    /// Returns the context of a request with this head, which came from `source`.
    ///
    /// # Errors
    /// If the caller's name is invalid.
    pub(crate) fn understand(
        &self,
        head: request::Parts,
        source: &RequestSource,
        identity: &Identity,
        accepted: Instant,
    ) -> Result<RequestContext, GatewayError> {
        // Both are read once, so that a reload cannot mix old and new values within one request.
        let (settings, table) = (self.settings.get(), self.table.get());
        let peer = source
            .peer
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let name = callers::name(&head.headers, peer, &settings.trusted)?;
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
            key: identity.key,
            is_held: identity.is_held,
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
