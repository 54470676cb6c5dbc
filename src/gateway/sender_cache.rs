//! The sender of a connection's last request.
//!
//! Naming a credential takes a keyed hash of the token, and knowing a client takes a hash of its
//! key. Most connections repeat their `Authorization`, so the last one is remembered with its
//! sender. What is remembered holds only as long as clients and held tokens stay as they are and
//! the key has not expired: a revoked key ends with the next request, on an open connection too.

use crate::exchange::identity::{Admitted, CertificateNames};
use crate::exchange::router::Router;
use http::header::{self, HeaderMap};
use parking_lot::Mutex;
use std::fmt;
use std::time::SystemTime;

/// Values of `Authorization` that are longer, in bytes, are not remembered.
const LONGEST_REMEMBERED: usize = 4 * 1024;

/// The last sender. `Debug` does not show its token or key.
#[derive(Default)]
pub(crate) struct SenderCache {
    last: Mutex<Option<Remembered>>,
    /// The names in the client certificate of the connection.
    certificate: CertificateNames,
}

struct Remembered {
    authorization: Box<[u8]>,
    generation: (u64, u64),
    admitted: Admitted,
}

impl fmt::Debug for SenderCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SenderCache")
    }
}

impl SenderCache {
    /// Creates the cache of a connection with these names in its client certificate.
    pub(crate) fn new(certificate: CertificateNames) -> Self {
        Self {
            last: Mutex::default(),
            certificate,
        }
    }

    /// Returns the names in the client certificate.
    pub(crate) fn certificate(&self) -> &CertificateNames {
        &self.certificate
    }

    /// Returns the sender of a request with these headers. `None` if it names nobody, has a key
    /// beside its token, or is not admitted; then the layers say why.
    pub(crate) fn sender(
        &self,
        headers: &HeaderMap,
        router: &Router,
        now: impl Fn() -> SystemTime,
    ) -> Option<Admitted> {
        let authorization = headers.get(header::AUTHORIZATION)?;
        if headers.contains_key(crate::credential::GATEWAY_KEY) {
            return None;
        }
        let generation = router.generation();
        // Held while a hash is taken, which is short. Streams of one connection may meet here.
        let mut last = self.last.lock();
        if let Some(known) = &*last
            && *known.authorization == *authorization.as_bytes()
            && known.generation == generation
            && known.admitted.until.is_none_or(|until| now() < until)
        {
            return Some(known.admitted.clone());
        }
        let admitted = router.admit(headers, &self.certificate, now()).ok()?;
        if !admitted.is_named {
            return None;
        }
        // Copied, because the value is a slice of the connection's much larger read buffer.
        if authorization.len() <= LONGEST_REMEMBERED {
            *last = Some(Remembered {
                authorization: authorization.as_bytes().into(),
                generation,
                admitted: admitted.clone(),
            });
        }
        Some(admitted)
    }
}
