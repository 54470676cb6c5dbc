//! The tokens that the gateway holds, and the credentials that they stand for.
//!
//! A held token has one credential for good: that of the first token under its name. Stored
//! responses, budgets, lanes and the journal know it by that, so replacing the token in its file
//! changes nothing for them. A caller that sends a held token itself has the same credential.
//!
//! Invariant: [`HeldTokens::authorization`] is the only way to a token that is in use. Nothing else
//! shows one, and no `Debug` does. Reading the files, and asking the API about a token that is not
//! in use yet, is not done here.

use crate::credential::{Credential, Hasher};
use crate::swap::Swap;
use foldhash::HashMap;
use http::HeaderValue;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A token that the gateway holds.
pub struct HeldToken {
    /// The name, as the file of clients has it.
    pub name: Arc<str>,
    /// The credential that it has had from the first.
    pub credential: Credential,
    /// The hash of the token in use.
    pub current: Credential,
    /// The value of `Authorization`. `None` while there is no token that may be used.
    authorization: Option<HeaderValue>,
    /// Whether the API answered its last request with 401.
    rejected: AtomicBool,
}

impl fmt::Debug for HeldToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldToken")
            .field("name", &self.name)
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

impl HeldToken {
    /// Returns a token that may be used, with its `Authorization`.
    pub fn new(
        name: Arc<str>,
        credential: Credential,
        current: Credential,
        authorization: Option<HeaderValue>,
    ) -> Self {
        let authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self {
            name,
            credential,
            current,
            authorization,
            rejected: AtomicBool::new(false),
        }
    }

    /// Returns whether there is a token that may be used. One that the API has rejected may be: the
    /// next response shows whether it still does.
    pub fn is_usable(&self) -> bool {
        self.authorization.is_some()
    }

    /// Returns whether the API has rejected it, or there is none that may be used.
    pub fn is_out_of_use(&self) -> bool {
        !self.is_usable() || self.rejected.load(Ordering::Relaxed)
    }
}

/// All held tokens. They are replaced as a whole.
#[derive(Debug, Default)]
pub struct HeldTokens {
    known: Swap<Known>,
    /// The number of replacements.
    generation: AtomicU64,
}

/// The tokens by whatever they are found by.
#[derive(Debug, Default)]
struct Known {
    names: HashMap<Arc<str>, Arc<HeldToken>>,
    credentials: HashMap<Credential, Arc<HeldToken>>,
    /// The credential of each token in use, by its hash.
    current: HashMap<Credential, Credential>,
}

impl HeldTokens {
    /// Replaces the tokens. What is known of one that stays as it was stays known.
    pub fn set(&self, tokens: Vec<Arc<HeldToken>>) {
        let mut known = Known::default();
        for token in tokens {
            known.names.insert(token.name.clone(), token.clone());
            known.current.insert(token.current, token.credential);
            known.credentials.insert(token.credential, token);
        }
        self.known.set(known);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Returns the token with this name.
    pub fn named(&self, name: &str) -> Option<Arc<HeldToken>> {
        self.known.get().names.get(name).cloned()
    }

    /// Returns the token that stands behind a credential, if the gateway holds it.
    pub fn of(&self, credential: Credential) -> Option<Arc<HeldToken>> {
        self.known.get().credentials.get(&credential).cloned()
    }

    /// Returns a number that changes whenever a token does. What was found with one is not valid
    /// for another.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the credential of a token with this hash, which a caller has sent itself.
    ///
    /// The token in use has the credential of its name. The first token under that name has it no
    /// longer once it is replaced: it may have been revoked, and must not stand for its successor.
    pub fn credential(&self, hash: Credential, hasher: &Hasher) -> Credential {
        let known = self.known.get();
        match known.current.get(&hash) {
            Some(credential) => *credential,
            None if known.credentials.contains_key(&hash) => {
                Credential::from_bytes(hasher.hash(&[b"former token", hash.bytes()]))
            }
            None => hash,
        }
    }

    /// Returns the `Authorization` with which a request of this credential is sent, if the gateway
    /// holds its token and may use it.
    pub fn authorization(&self, credential: Credential) -> Option<HeaderValue> {
        let known = self.known.get();
        let held = known.credentials.get(&credential);
        held.and_then(|held| held.authorization.clone())
    }

    /// Notes whether the API accepted a request of this credential. Returns the token if that has
    /// changed.
    pub fn note(&self, credential: Credential, accepted: bool) -> Option<Arc<HeldToken>> {
        let held = self.of(credential)?;
        let before = held.rejected.swap(!accepted, Ordering::Relaxed);
        (before == accepted).then_some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> Credential {
        Credential::from_bytes([n; 16])
    }

    fn held(current: u8, token: &'static str) -> Arc<HeldToken> {
        let authorization = Some(HeaderValue::from_static(token));
        let name = "provisioning".into();
        Arc::new(HeldToken::new(name, hash(1), hash(current), authorization))
    }

    #[test]
    fn a_token_keeps_its_credential_when_it_is_replaced() {
        let tokens = HeldTokens::default();
        assert_eq!(tokens.authorization(hash(1)), None);
        let hasher = Hasher::new(&[1; 32]);
        assert_eq!(tokens.credential(hash(1), &hasher), hash(1), "not held");
        for (current, token) in [(1, "Bearer first"), (2, "Bearer second")] {
            tokens.set(vec![held(current, token)]);
            let value = tokens.authorization(hash(1)).unwrap();
            assert_eq!(value, token);
            assert!(value.is_sensitive());
            assert_eq!(tokens.credential(hash(current), &hasher), hash(1));
            assert_eq!(tokens.named("provisioning").unwrap().credential, hash(1));
            assert!(!format!("{tokens:?}").contains("Bearer"), "{tokens:?}");
        }
        assert_eq!(
            tokens.authorization(hash(2)),
            None,
            "a hash and no credential"
        );
        let former = tokens.credential(hash(1), &hasher);
        assert!(former != hash(1) && former != hash(2), "it may be revoked");
        assert_eq!(tokens.authorization(former), None);
    }

    #[test]
    fn what_the_api_says_of_a_token_is_told_once() {
        let tokens = HeldTokens::default();
        tokens.set(vec![held(1, "Bearer first")]);
        let told = |accepted| tokens.note(hash(1), accepted).is_some();
        let said = [true, false, false, true, true].map(told);
        assert_eq!(said, [false, true, false, true, false]);
        assert!(tokens.note(hash(9), false).is_none(), "not held");
        tokens.note(hash(1), false);
        assert!(tokens.of(hash(1)).unwrap().is_out_of_use());
        tokens.set(vec![held(2, "Bearer second")]);
        assert!(
            !tokens.of(hash(1)).unwrap().is_out_of_use(),
            "another token"
        );
    }
}
