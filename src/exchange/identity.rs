//! Pure. Who sends a request, and under which credential the API sees it.

use crate::caller::Principal;
use crate::clients::{KeyId, NamedClient};
use crate::credential::Credential;
use crate::error::GatewayError;
use crate::journal::WriteOwner;
use crate::route::policy::Operation;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// The scheme that stands for a token that the gateway holds. The API never sees it.
const HELD: &str = "Held ";

/// The identity behind a request. It is kept with a durable write, whose client may be gone when it
/// is sent.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The credential under which the API carries the request out.
    pub(crate) credential: Credential,
    /// The client that asks, if one is known.
    pub(crate) client: Option<Arc<str>>,
    /// The key by which it is known. `None` if that was a certificate, and for what the journal
    /// kept.
    pub(crate) key: Option<KeyId>,
    /// Whether the gateway holds the token, so that a rejection of it is not the caller's fault.
    pub(crate) is_held: bool,
}

impl Identity {
    /// Returns the identity of whoever has this credential, and is no client.
    pub(crate) fn of(credential: Credential) -> Self {
        Self {
            credential,
            client: None,
            key: None,
            is_held: false,
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

/// Returns whether the headers of a request are [masked](Admitted::mask).
pub(crate) fn is_masked(headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION);
    value.is_some_and(|value| value.as_bytes().starts_with(HELD.as_bytes()))
}

/// Puts a held token into the headers of a request that is about to be sent.
///
/// Without one, the request goes without a token, and the API answers 401: a durable write whose
/// token is gone, or may not be used yet, waits for another one then.
pub(crate) fn unmask(headers: &mut HeaderMap, authorization: Option<HeaderValue>) {
    match authorization {
        Some(authorization) => {
            headers.insert(AUTHORIZATION, authorization);
        }
        None if is_masked(headers) => {
            headers.remove(AUTHORIZATION);
        }
        None => {}
    }
}

/// A sender that has been admitted.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) identity: Identity,
    /// Whether the request names a credential: its own, or one that the gateway holds.
    pub(crate) is_named: bool,
    /// The client, with its rights.
    pub(crate) client: Option<Arc<NamedClient>>,
    /// The name of the held token that the request is sent with, if it does not bring its own.
    pub(crate) token: Option<Arc<str>>,
    /// The instant from which this is no longer valid.
    pub(crate) until: Option<SystemTime>,
}

impl Admitted {
    /// Checks that the sender may use an operation.
    ///
    /// # Errors
    /// If it is a client that may not.
    pub(crate) fn may(&self, operation: &Operation, overridden: bool) -> Result<(), GatewayError> {
        let client = self.client.as_ref();
        client.map_or(Ok(()), |client| client.may(operation, overridden))
    }

    /// Returns whoever may ask for the writes that are made so. `None` for a request that names no
    /// credential.
    pub(crate) fn owner(&self) -> Option<WriteOwner> {
        self.is_named.then(|| WriteOwner {
            credential: self.identity.credential,
            client: self.identity.client.clone(),
        })
    }

    /// Replaces the key in the headers of a request by the name of the token that it is sent with.
    /// From here on there is no key in it, and no token: an attempt puts that in.
    pub(crate) fn mask(&self, headers: &mut HeaderMap) {
        headers.remove(crate::credential::GATEWAY_KEY);
        let Some(token) = &self.token else { return };
        // Names of tokens are words of a few ASCII characters.
        if let Ok(value) = HeaderValue::try_from(format!("{HELD}{token}")) {
            headers.insert(AUTHORIZATION, value);
        }
    }
}

/// The names in a client certificate: URIs, and DNS names in lower case. Empty without one. Cheap
/// to clone.
#[derive(Clone, Debug, Default)]
pub struct CertificateNames(Option<Arc<[Box<str>]>>);

impl CertificateNames {
    /// Returns the names.
    pub(crate) fn get(&self) -> &[Box<str>] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<Vec<Box<str>>> for CertificateNames {
    fn from(names: Vec<Box<str>>) -> Self {
        Self((!names.is_empty()).then(|| names.into()))
    }
}
