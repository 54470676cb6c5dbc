//! What is known of the held tokens, and the file in which the next process finds it.
//!
//! The file has hashes only: of the first token under each name, of the one in use, and of its
//! workspace.

use crate::clients::tokens::HeldToken;
use crate::credential::Credential;
use crate::journal::WorkspaceHash;
use crate::private_file;
use http::HeaderValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is known of a token under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The credential that it has had from the first.
    pub(super) credential: Credential,
    /// The hash of the token in use.
    pub(super) current: Credential,
    /// The workspace that it belongs to, once the API has said it.
    pub(super) workspace: Option<WorkspaceHash>,
}

/// What has to be done about the token in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TokenStep {
    /// Nothing was known under this name: it is used, and the API is asked about its workspace.
    Begin,
    /// The one in use, of which nothing is missing.
    Keep,
    /// It may be used once the API has said which workspace it belongs to.
    Ask,
}

/// Decides what to do about a token with this hash.
pub(super) fn step(kept: Option<&Kept>, hash: Credential) -> TokenStep {
    match kept {
        None => TokenStep::Begin,
        Some(kept) if kept.current == hash && kept.workspace.is_some() => TokenStep::Keep,
        Some(_) => TokenStep::Ask,
    }
}

impl Kept {
    /// Returns what is known of the first token under a name.
    pub(super) fn first(hash: Credential) -> Self {
        Self {
            credential: hash,
            current: hash,
            workspace: None,
        }
    }

    /// Returns what is known once a token with this hash, which belongs to this workspace, is in
    /// use. It may do what the one before did, and nothing else.
    ///
    /// If nobody knows the workspace of the one before, it gets a credential of its own: what was
    /// stored and queued under the other may be of another workspace.
    ///
    /// # Errors
    /// If its workspace is another one.
    pub(super) fn succeeded_by(
        &self,
        hash: Credential,
        workspace: WorkspaceHash,
    ) -> Result<Self, String> {
        let is_new = self.current != hash;
        let credential = match self.workspace {
            Some(before) if before != workspace => {
                return Err(
                    "the new token belongs to another workspace; the one before stays in use"
                        .into(),
                );
            }
            None if is_new => hash,
            _ => self.credential,
        };
        Ok(Self {
            credential,
            current: hash,
            workspace: Some(workspace),
        })
    }

    /// Returns the token with this `Authorization`. Without one it may not be used.
    pub(super) fn token(
        &self,
        name: &Arc<str>,
        authorization: Option<HeaderValue>,
    ) -> Arc<HeldToken> {
        let token = HeldToken::new(name.clone(), self.credential, self.current, authorization);
        Arc::new(token)
    }

    /// Returns the entry of the file.
    fn document(&self) -> Value {
        let hex = |bytes: &[u8; 16]| u128::from_be_bytes(*bytes);
        let hex = |bytes| format!("{:032x}", hex(bytes));
        json!({
            "credential": hex(self.credential.bytes()),
            "current": hex(self.current.bytes()),
            "workspace": self.workspace.as_ref().map(hex),
        })
    }

    /// Reads an entry of the file. `None` if it has another form.
    fn of_document(document: &Value) -> Option<Self> {
        let hash = |value: &Value| {
            let text = value.as_str().filter(|text| text.len() == 32)?;
            Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
        };
        let workspace = &document["workspace"];
        Some(Self {
            credential: Credential::from_bytes(hash(&document["credential"])?),
            current: Credential::from_bytes(hash(&document["current"])?),
            workspace: match workspace.is_null() {
                true => None,
                false => Some(hash(workspace)?),
            },
        })
    }
}

/// Reads what the last process remembered. A file that does not exist has nothing.
///
/// # Errors
/// If it cannot be read, or has something else.
pub(super) fn recall(path: &Path) -> Result<BTreeMap<Arc<str>, Kept>, String> {
    let wrong = |what: &str| format!("{}: {what}", path.display());
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(wrong(&error.to_string())),
    };
    let document: Option<Map<String, Value>> = serde_json::from_slice(&text).ok();
    let read = document.and_then(|document| {
        let known = document.iter().map(|(name, of)| {
            let known = Kept::of_document(of)?;
            Some((name.as_str().into(), known))
        });
        known.collect()
    });
    read.ok_or_else(|| {
        wrong(
            "damaged; restore it from a backup. If you delete it, deferred writes of held tokens \
             that were replaced since wait for `segment-gateway writes rebind`",
        )
    })
}

/// Writes down what is known, for the next process.
pub(super) fn remember(path: &Path, kept: &BTreeMap<Arc<str>, Kept>) {
    let known: Map<String, Value> = kept
        .iter()
        .map(|(name, known)| (name.to_string(), known.document()))
        .collect();
    let text = Value::Object(known).to_string();
    if let Err(error) = private_file::replace(path, text.as_bytes()) {
        tracing::error!(
            file = %path.display(),
            %error,
            "cannot remember the held tokens: a token that is replaced while the gateway is \
             down will count as a new one"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(n: u8, workspace: Option<u8>) -> Kept {
        Kept {
            credential: Credential::from_bytes([1; 16]),
            current: Credential::from_bytes([n; 16]),
            workspace: workspace.map(|n| [n; 16]),
        }
    }

    #[test]
    fn a_new_token_is_used_once_its_workspace_is_known() {
        let hash = |n| Credential::from_bytes([n; 16]);
        for (known, current, expected) in [
            (None, 1, TokenStep::Begin),
            (Some(kept(1, Some(7))), 1, TokenStep::Keep),
            (Some(kept(1, None)), 1, TokenStep::Ask),
            (Some(kept(1, Some(7))), 2, TokenStep::Ask),
            (Some(kept(2, Some(7))), 1, TokenStep::Ask),
        ] {
            assert_eq!(step(known.as_ref(), hash(current)), expected, "{known:?}");
        }
    }

    #[test]
    fn a_successor_has_the_credential_only_if_the_workspace_is_known_to_be_the_same() {
        let hash = |n| Credential::from_bytes([n; 16]);
        let then = |credential: u8, current| {
            Some(Kept {
                credential: hash(credential),
                current: hash(current),
                workspace: Some([7; 16]),
            })
        };
        for (before, current, expected) in [
            (kept(1, Some(7)), 1, then(1, 1)),
            (kept(1, Some(7)), 2, then(1, 2)),
            (kept(1, Some(8)), 2, None),
            (kept(1, Some(8)), 1, None),
            (kept(1, None), 1, then(1, 1)),
            (kept(1, None), 2, then(2, 2)),
        ] {
            let after = before.succeeded_by(hash(current), [7; 16]).ok();
            assert_eq!(after, expected, "{before:?} {current}");
        }
    }

    #[test]
    fn what_is_remembered_is_what_was_known_and_damage_is_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        assert_eq!(recall(&path), Ok(BTreeMap::new()), "a new directory");
        let known = BTreeMap::from([("a".into(), kept(1, None)), ("b".into(), kept(2, Some(9)))]);
        remember(&path, &known);
        assert_eq!(recall(&path), Ok(known));
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in ["", "[]", "{", &text.replace("01010101", "zz")] {
            std::fs::write(&path, damaged).unwrap();
            let said = recall(&path).unwrap_err();
            assert!(said.contains("damaged; restore"), "{damaged:?}: {said}");
        }
    }
}
