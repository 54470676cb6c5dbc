//! Pure. Decides who sends a request, and with whose token it goes to the API.
//!
//! Promises:
//!
//! - Whoever is admitted as a client has shown one of its keys that has not expired, or a
//!   certificate with one of its names.
//! - Text that begins like a key is never a token of the caller's own.
//! - Where the gateway holds all tokens, no token of a caller's own is accepted.
//! - A caller cannot tell an unknown key from one with a wrong secret, nor by the time that it
//!   takes.
//!
//! Which operations a client may use is not decided here; see [`NamedClient::may`].

use super::client::{KeyEntry, NamedClient};
use super::digest::KeyDigest;
use super::key::{ClientKey, KeyId, is_key};
use super::registry::{Clients, CredentialMode};
use crate::error::{Denial, GatewayError, KnownKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use std::time::SystemTime;

/// What a request shows of its sender. Each field was sent at most once.
#[derive(Clone, Copy, Default)]
pub struct PresentedCredentials<'a> {
    /// The token of `Authorization` without the scheme `Bearer`, or the whole value if it has
    /// another scheme or none.
    pub authorization: Option<&'a [u8]>,
    /// The value of `X-Gateway-Key`.
    pub gateway_key: Option<&'a [u8]>,
    /// The names in the client certificate of the connection: URIs, and DNS names in lower case.
    pub certificate: &'a [Box<str>],
}

/// The sender of a request, as far as the gateway knows it.
#[derive(Clone, Debug)]
pub struct ClientAdmission {
    /// The client. `None` for a caller with a token of its own, or without any.
    pub client: Option<Arc<NamedClient>>,
    /// The key that was shown.
    pub key: Option<KeyId>,
    /// Whose token the request is sent with.
    pub credential: CredentialSource,
    /// The instant from which this is no longer valid, because the key expires.
    pub until: Option<SystemTime>,
}

impl ClientAdmission {
    /// Returns that of a request with a token of its own, or without any.
    pub fn unnamed() -> Self {
        Self {
            client: None,
            key: None,
            credential: CredentialSource::Own,
            until: None,
        }
    }
}

/// The origin of the token that a request is sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// The request brings its own, or has none.
    Own,
    /// The gateway holds the token of this name.
    Held(Arc<str>),
}

/// Decides who sends a request. `now` is the time of the wall clock.
///
/// # Errors
/// If a key is not accepted, if a token of the caller's own is not, or if a client may not send
/// requests in this way.
pub fn admit(
    clients: &Clients,
    presented: &PresentedCredentials<'_>,
    now: SystemTime,
) -> Result<ClientAdmission, GatewayError> {
    let authorization = presented.authorization.filter(|value| !value.is_empty());
    let (bearer, own_token) = match authorization {
        Some(value) if mentions_key(value) => (Some(value), None),
        other => (None, other),
    };
    let shown = match (bearer, presented.gateway_key) {
        // Whoever sends two has confused them. Neither is a guess of the gateway's.
        (Some(bearer), Some(other)) if bearer != other => return Err(GatewayError::KeyUnknown),
        (bearer, other) => bearer.or(other),
    };
    if clients.mode() == CredentialMode::Own {
        // Somebody who sends a key believes that it counts.
        return match shown {
            Some(_) => Err(GatewayError::KeyUnknown),
            None => Ok(ClientAdmission::unnamed()),
        };
    }
    let entry = shown.map(|shown| find(clients, shown, now)).transpose()?;
    if own_token.is_some() && clients.mode() == CredentialMode::Managed {
        return Err(GatewayError::KeyRequired);
    }
    let client = match (entry, certified(clients, presented.certificate)?) {
        (Some(entry), Some(certified)) if entry.client.name != certified.name => {
            return Err(GatewayError::Denied(Denial::Certificate));
        }
        (Some(entry), _) => Some(&entry.client),
        (None, certified) => certified,
    };
    let token = client.and_then(|client| client.token.as_ref());
    let credential = match (own_token, token, entry) {
        (Some(_), _, _) => CredentialSource::Own,
        (None, Some(token), _) => CredentialSource::Held(token.clone()),
        (None, None, Some(entry)) => {
            let client = entry.client.name.clone();
            return Err(GatewayError::Denied(Denial::NoToken { client }));
        }
        (None, None, None) => CredentialSource::Own,
    };
    Ok(ClientAdmission {
        client: client.cloned(),
        key: entry.map(|entry| entry.id),
        credential,
        until: entry.and_then(|entry| entry.expires),
    })
}

/// Returns whether a value of `Authorization` has a key in it, under whatever scheme. Such a value
/// is not forwarded, because it would show the key to the API. As a part of the credentials of
/// `Basic` (RFC 7617) it is encoded.
fn mentions_key(value: &[u8]) -> bool {
    // The characters of a token (`token68`; RFC 9110, section 11.2), of which keys consist.
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    let mut words = value.split(|byte| !is_token(byte));
    words.any(|word| {
        is_key(word)
            || STANDARD
                .decode(word)
                .is_ok_and(|pair| mentions_plainly(&pair))
    })
}

/// Returns whether a user name or a password is a key.
fn mentions_plainly(pair: &[u8]) -> bool {
    pair.split(|byte| *byte == b':').any(is_key)
}

/// Stands for the digest of a key that is not known, so that this takes as long as a wrong secret.
/// Nobody knows a key with it, and `find` would not accept that either.
const NO_DIGEST: KeyDigest = KeyDigest::new([0; 32]);

/// Returns the entry of a key. Unknown, malformed and wrong keys are one error.
fn find<'c>(
    clients: &'c Clients,
    shown: &[u8],
    now: SystemTime,
) -> Result<&'c KeyEntry, GatewayError> {
    let key = ClientKey::parse(shown).map_err(|_| GatewayError::KeyUnknown)?;
    let revoked = clients.revoked_key(key.id());
    let entry = clients.key(key.id()).or(revoked);
    let digest = entry.map_or(&NO_DIGEST, |entry| &entry.digest);
    let is_right = digest.matches(&key.digest());
    let entry = entry.filter(|_| is_right).ok_or(GatewayError::KeyUnknown)?;
    // Only who shows the whole key comes here. The names are for the record, not for the answer.
    let known = || KnownKey {
        client: entry.client.name.clone(),
        id: entry.id.as_str().into(),
    };
    match entry.expires {
        _ if revoked.is_some() => Err(GatewayError::KeyRevoked(known())),
        Some(expires) if now >= expires => Err(GatewayError::KeyExpired(known())),
        _ => Ok(entry),
    }
}

/// Returns the client of a certificate. Its names may stand for one client at most.
fn certified<'c>(
    clients: &'c Clients,
    names: &[Box<str>],
) -> Result<Option<&'c Arc<NamedClient>>, GatewayError> {
    let mut found = names.iter().filter_map(|name| clients.by_certificate(name));
    let first = found.next();
    match first {
        Some(first) if found.any(|other| other.name != first.name) => {
            Err(GatewayError::Denied(Denial::Certificate))
        }
        first => Ok(first),
    }
}

#[cfg(test)]
mod tests;
