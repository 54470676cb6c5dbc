//! Pure. A client as the file of clients describes it, and its keys.

use super::digest::KeyDigest;
use super::key::KeyId;
use super::rights::Rights;
use crate::error::{Denial, GatewayError};
use crate::route::{Operation, Rate};
use std::sync::Arc;
use std::time::SystemTime;

/// A client: a name with rights, a quota and a token that the gateway holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedClient {
    /// The name. A label of metrics, so the number of clients is bounded.
    pub name: Arc<str>,
    /// The name of the token that its requests are sent with. Without one it sends its own.
    pub token: Option<Arc<str>>,
    /// What it may use.
    pub rights: Rights,
    /// Its quota of what needs the API. `None` for that of every caller.
    pub rate: Option<Rate>,
    /// The most requests that go in one of its turns before a budget, from 1 to
    /// [`NamedClient::LARGEST_SHARE`].
    pub share: u8,
    /// The names in client certificates that stand for it: `spiffe://` URIs, or DNS names in lower
    /// case.
    pub certificates: Vec<Box<str>>,
}

impl NamedClient {
    /// The largest share.
    pub const LARGEST_SHARE: u8 = 16;

    /// Decides whether the client may use an operation. `is_overridden` says that a field of the
    /// request may change its method.
    ///
    /// # Errors
    /// With the names of the client and of the operation to which it has no right.
    pub fn may(&self, operation: &Operation, is_overridden: bool) -> Result<(), GatewayError> {
        match self.rights.missing(operation, is_overridden) {
            None => Ok(()),
            Some(operation) => Err(GatewayError::Denied(Denial::Operation {
                client: self.name.clone(),
                operation,
            })),
        }
    }
}

/// A key of a client. The key itself is not known.
#[derive(Clone, Debug)]
pub struct KeyEntry {
    /// The id, which the key contains.
    pub id: KeyId,
    /// The SHA-256 of the key.
    pub digest: KeyDigest,
    /// The instant from which the key is no longer accepted.
    pub expires: Option<SystemTime>,
    /// The client.
    pub client: Arc<NamedClient>,
}
