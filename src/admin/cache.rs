//! `/cache` on the admin listener, for `segment-gateway cache`.
//!
//! Both requests scan the whole store, which takes a while if it is full. They run on threads of
//! their own, so that no request waits for them.

use super::writes::{parameters, refused};
use super::{Admin, document, text};
use crate::audit::AUDIT;
use crate::cache::Cache;
use crate::cache::fence::Tag;
use crate::cache::inspect::{KeyState, Purge, Stored};
use crate::cache::key::{CacheKeyHash, CredentialHash};
use crate::credential::Credential;
use crate::error::GatewayError;
use crate::exchange::body::OuterBody;
use http::{HeaderName, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

const WHAT: &str = "Say what is to be forgotten: a tag, an operation, a credential or a key, none of them empty, or everything";
/// The most variants of a key that are shown.
const MOST_VARIANTS: usize = 100;

impl Admin {
    /// Answers a request below `/cache`.
    pub(super) async fn cache(&self, request: &Request<()>) -> Response<OuterBody> {
        let (method, query) = (request.method(), request.uri().query());
        let answer = match (method, request.uri().path()) {
            (&Method::GET, "/cache") => self.show_key(query).await,
            (&Method::POST, "/cache/purge") => self.purge(query).await,
            _ => {
                return text(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "there are GET /cache and POST /cache/purge\n",
                );
            }
        };
        match answer {
            Ok(Some(answer)) => document(StatusCode::OK, &answer),
            Ok(None) => {
                let message = "Nothing is stored under this key: it was not asked for lately, has \
                    expired long ago, or was purged";
                let answer = json!({ "error": "gateway-not-found", "message": message });
                document(StatusCode::NOT_FOUND, &answer)
            }
            Err(error) => refused(&error),
        }
    }

    /// Returns what is known about a key; `None` if that is nothing.
    async fn show_key(&self, query: Option<&str>) -> Result<Option<Value>, GatewayError> {
        let mut given = parameters(query, &["key"])?;
        let key = given.remove("key").unwrap_or_default();
        let key = key_hash(&key)?;
        let (cache, now) = (self.gateway.cache().clone(), self.gateway.clock().now());
        let state = beside(move || cache.state(key, now)).await?;
        if state.stored.is_empty() && state.refused.is_none() {
            return Ok(None);
        }
        Ok(Some(self.state(key, &state)))
    }

    fn state(&self, key: CacheKeyHash, state: &KeyState) -> Value {
        let now = self.gateway.clock().now();
        let shown = state.stored.iter().take(MOST_VARIANTS);
        let stored: Vec<Value> = shown.map(|one| self.stored(one, now)).collect();
        let refused = state
            .refused
            .map(|(why, ago)| json!({ "reason": why.as_str(), "secondsAgo": whole(ago) }));
        json!({
            "key": key.to_string(),
            "variants": state.stored.len(),
            "stored": stored,
            "notStored": refused,
        })
    }

    fn stored(&self, stored: &Stored, now: Instant) -> Value {
        let (key, entry) = (&stored.key, &stored.entry);
        let fields = stored.varies_by().iter().map(HeaderName::as_str);
        let credential = Credential::from_bytes(key.credential()).to_string();
        let settings = self.gateway.router().settings.get();
        json!({
            "operation": self.operation_name(key.operation()).as_ref(),
            "credential": credential,
            "credentialName": settings.names.of(&credential),
            "status": entry.status().as_u16(),
            "ageSeconds": whole(entry.age(now)),
            "freshForSeconds": whole(entry.remaining(now)),
            "staleForSeconds": whole(entry.stale_for(now)),
            // A write, a purge or a 401 came after its fetch had begun.
            "believed": !stored.fenced,
            "stamp": entry.stamp().generation(),
            "tags": stored.tags().collect::<Vec<_>>(),
            "staleAfterAnyWrite": stored.any_write(),
            "variesBy": fields.collect::<Vec<_>>(),
            "bytes": entry.weight_bytes(),
            "shown": entry.shown(),
        })
    }

    fn operation_name(&self, index: u32) -> Arc<str> {
        let table = self.gateway.router().table.get();
        let operations = table.operations();
        let operation = usize::try_from(index)
            .ok()
            .and_then(|at| operations.get(at));
        operation.map_or_else(|| "none".into(), |operation| operation.name.clone())
    }

    async fn purge(&self, query: Option<&str>) -> Result<Option<Value>, GatewayError> {
        let given = parameters(
            query,
            &["tag", "operation", "credential", "key", "everything"],
        )?;
        let mut given = given.into_iter();
        let (Some((by, value)), None) = (given.next(), given.next()) else {
            return Err(GatewayError::BadRequest(WHAT));
        };
        let (cache, now) = (self.gateway.cache().clone(), self.gateway.clock().now());
        let what = match (by.as_str(), value.as_str()) {
            ("everything", "true") => Purge::Everything,
            ("tag", tag) if !tag.is_empty() => Purge::Tag(Tag::new(tag)),
            ("operation", name) => Purge::Operation(self.operation_index(name)?),
            ("key", key) => Purge::Key(key_hash(key)?),
            ("credential", hash) => Purge::Credential(self.credential_hash(hash).await?),
            _ => return Err(GatewayError::BadRequest(WHAT)),
        };
        let purged = purge(cache, what, now).await?;
        tracing::info!(target: AUDIT, by, purged, "cache purged by an operator");
        self.gateway.metrics().invalidated("purge");
        Ok(Some(json!({ "purged": purged })))
    }

    fn operation_index(&self, name: &str) -> Result<u32, GatewayError> {
        let table = self.gateway.router().table.get();
        let mut operations = table.operations().iter();
        let operation = operations.find(|operation| *operation.name == *name);
        let index = operation.and_then(|operation| u32::try_from(operation.index).ok());
        index.ok_or(GatewayError::BadRequest(
            "There is no such operation; `segment-gateway routes` lists them",
        ))
    }

    /// Returns the credential with this name, or with this hash in logs and lists, which show a
    /// part of the whole hash.
    async fn credential_hash(&self, given: &str) -> Result<CredentialHash, GatewayError> {
        let given = given.to_ascii_lowercase();
        let settings = self.gateway.router().settings.get();
        let hash = settings.names.resolve(&given).to_owned();
        let (budgets, cache) = (self.gateway.budgets().clone(), self.gateway.cache().clone());
        let found = beside(move || {
            let is_named =
                |bytes: &CredentialHash| Credential::from_bytes(*bytes).to_string() == hash;
            let known = budgets.credentials().into_iter();
            let known = known.map(|credential| *credential.bytes());
            known.chain(cache.credentials()).find(is_named)
        });
        found.await?.ok_or(GatewayError::BadRequest(
            "No credential of this hash or name has stored answers or budgets at present",
        ))
    }
}

async fn purge(cache: Arc<Cache>, what: Purge, now: Instant) -> Result<u64, GatewayError> {
    beside(move || cache.purge(&what, now)).await
}

/// Runs slow work on a thread of its own.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, GatewayError> {
    spawn_blocking(work)
        .await
        .map_err(|_| GatewayError::Internal)
}

fn key_hash(text: &str) -> Result<CacheKeyHash, GatewayError> {
    let wrong = GatewayError::BadRequest("`key` is not a key as Cache-Status has them");
    text.parse().map_err(|_| wrong)
}

fn whole(duration: Duration) -> u64 {
    duration.as_secs()
}
