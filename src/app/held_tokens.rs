//! The files of the tokens that the gateway holds: read at the start, and again whenever they
//! change.
//!
//! The files are read every few seconds and at each reload, and compared by content, so that it
//! does not matter how they are replaced. A new token is used once the API has said that it belongs
//! to the workspace of the one before. Until then, and if it belongs to another, the one before
//! stays in use.
//!
//! `tokens.json` in the state directory remembers the credential that each token has had from the
//! first, so that stored writes and budgets stay those of the token when it is replaced. It has
//! hashes only. Without a state directory a token keeps its credential as long as the process
//! lives.

mod file;
mod memory;

use super::start_error::AppError;
use crate::audit::{AUDIT, Audit, AuditEvent};
use crate::cache::Invalidation;
use crate::clients::tokens::{HeldToken, HeldTokens};
use crate::clients::{Clients, TokenFile};
use crate::credential::{Credential, Hasher};
use crate::gateway::Gateway;
use crate::journal::WorkspaceHash;
use crate::metrics::Metrics;
use crate::swap::Swap;
use crate::write::durable::workspace::NoWorkspace;
use http::HeaderValue;
use memory::{Kept, TokenStep, step};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How often the files are read.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The longest wait for what the API says of a token. It is asked again at the next look.
const LONGEST_QUESTION: Duration = Duration::from_secs(30);

/// Keeps the held tokens as their files have them.
#[derive(Debug)]
pub(super) struct TokenFiles {
    tokens: Arc<HeldTokens>,
    clients: Arc<Swap<Clients>>,
    hasher: Hasher,
    /// The file that remembers credentials, if there is a state directory.
    store: Option<PathBuf>,
    /// Locked for the whole of a look: two never mix.
    kept: tokio::sync::Mutex<KeptTokens>,
    /// A reload wants the files read at once.
    wakeup: Notify,
    metrics: Arc<Metrics>,
}

/// What is known of the tokens, by their names.
#[derive(Debug, Default)]
struct KeptTokens {
    of: BTreeMap<Arc<str>, Kept>,
    /// What was wrong at the last look, so that it is reported once.
    wrong: BTreeMap<Arc<str>, String>,
}

impl TokenFiles {
    /// Reads the files that the clients of a gateway need. Blocks.
    ///
    /// A token that was replaced while no gateway ran is not used before the API has been asked.
    ///
    /// # Errors
    /// If a file cannot be read or has no token, or what was remembered cannot be read.
    pub(super) fn open(gateway: &Gateway, store: Option<PathBuf>) -> Result<Self, AppError> {
        let router = gateway.router();
        let clients = router.clients.get();
        let remembered = match store.as_deref().filter(|_| !clients.tokens().is_empty()) {
            Some(path) => memory::recall(path).map_err(AppError)?,
            None => BTreeMap::new(),
        };
        let mut kept = KeptTokens::default();
        let mut held = Vec::new();
        for file in clients.tokens() {
            let failed = |problem| AppError(format!("tokens.{}: {problem}", file.name));
            let authorization = file::read(&file.path).map_err(failed)?;
            let hash = router.hasher.credential_of(Some(&authorization));
            let known = remembered.get(&file.name).cloned();
            // The process before used another token: this one may be of another workspace, and
            // writes of the old one are about to be recovered. So it has to be asked about first.
            let is_usable = known.as_ref().is_none_or(|known| known.current == hash);
            let known = known.unwrap_or(Kept::first(hash));
            kept.must_be_another(&file.name, &known).map_err(failed)?;
            let usable = is_usable.then_some(authorization);
            gateway.metrics().held_token(&file.name, is_usable);
            held.push(known.token(&file.name, usable));
            kept.of.insert(file.name.clone(), known);
        }
        router.tokens.set(held);
        let files = Self {
            tokens: router.tokens.clone(),
            clients: router.clients.clone(),
            hasher: router.hasher.clone(),
            store,
            kept: tokio::sync::Mutex::new(kept),
            wakeup: Notify::new(),
            metrics: gateway.metrics().clone(),
        };
        Ok(files)
    }

    /// Asks for a look at the files soon.
    pub(super) fn look_soon(&self) {
        self.wakeup.notify_one();
    }

    /// Reads the files again from time to time. Never ends.
    pub(super) async fn watch(self: Arc<Self>, gateway: Arc<Gateway>) {
        loop {
            self.refresh(&gateway).await;
            // The end of the pause and the request of a reload are handled alike.
            let _ = tokio::time::timeout(LOOK_EVERY, self.wakeup.notified()).await;
        }
    }

    /// Reads the files, and uses what is new in them if the API does not object.
    async fn refresh(&self, gateway: &Gateway) {
        let mut kept = self.kept.lock().await;
        let files = self.clients.get().tokens().to_vec();
        // What the file of clients no longer names is forgotten, and begins anew if it comes back.
        let is_configured = |name: &Arc<str>| files.iter().any(|file| file.name == *name);
        let removed = kept.of.extract_if(.., |name, _| !is_configured(name));
        // Nothing is sent with these from here on. Their durable writes wait.
        let removed: Vec<_> = removed.collect();
        kept.wrong.retain(|name, _| is_configured(name));
        if !removed.is_empty() {
            self.tokens.set(self.configured(|_| true));
            if let Some(path) = &self.store {
                memory::remember(path, &kept.of);
            }
            for (name, known) in removed {
                // Whoever still has the first token under the name has its credential again, and
                // must not get what its successors stored.
                let stored = Invalidation::Credential(*known.credential.bytes());
                gateway.writes().settle(&stored, Duration::ZERO);
                self.metrics.no_held_token(&name);
            }
        }
        for file in &files {
            let looked = self.look(gateway, &mut kept, file).await;
            kept.report(&file.name, looked.err(), gateway.audit());
        }
    }
}

impl TokenFiles {
    /// Looks at one file.
    ///
    /// # Errors
    /// If its token cannot be used; the one before stays in use then.
    async fn look(
        &self,
        gateway: &Gateway,
        kept: &mut KeptTokens,
        file: &TokenFile,
    ) -> Result<(), String> {
        // A file on a disk that does not answer must not hold up the requests.
        let path = file.path.clone();
        let read = tokio::task::spawn_blocking(move || file::read(&path)).await;
        let authorization = read.map_err(|error| error.to_string())??;
        let hash = self.hasher.credential_of(Some(&authorization));
        match step(kept.of.get(&file.name), hash) {
            TokenStep::Keep => return Ok(()),
            // Used at once: there is nothing yet that another workspace could harm.
            TokenStep::Begin => self.begin(kept, &file.name, hash, &authorization)?,
            // Two names for one token would be two budgets where the API has one.
            TokenStep::Ask => kept.must_be_another(&file.name, &Kept::first(hash))?,
        }
        let workspace = self.ask(gateway, hash, &authorization).await?;
        let known = kept.of.get_mut(&file.name);
        let Some(known) = known else { return Ok(()) };
        let is_new = known.current != hash;
        // From here on the token is the one in use, in memory first: a disk that fails must not
        // keep a good token from being used.
        *known = known.succeeded_by(hash, workspace)?;
        let (credential, token) = (
            known.credential,
            known.token(&file.name, Some(authorization)),
        );
        self.replace(token);
        if let Some(path) = &self.store {
            memory::remember(path, &kept.of);
        }
        if is_new {
            tracing::info!(target: AUDIT, token = &*file.name, %credential, "held token replaced");
            // The name alone: neither the token nor its hash is anybody's business.
            gateway.audit().record(AuditEvent::Token {
                name: file.name.clone(),
                state: "replaced",
            });
        }
        // Writes that waited because the API rejected the one before go on.
        gateway.writes().token_accepted(credential).await;
        Ok(())
    }

    /// Uses a token under a name of which nothing is known.
    fn begin(
        &self,
        kept: &mut KeptTokens,
        name: &Arc<str>,
        hash: Credential,
        authorization: &HeaderValue,
    ) -> Result<(), String> {
        let known = Kept::first(hash);
        kept.must_be_another(name, &known)?;
        // Before the API is asked: without an answer its clients are not worse off than callers
        // with a token of their own.
        self.replace(known.token(name, Some(authorization.clone())));
        kept.of.insert(name.clone(), known);
        Ok(())
    }

    /// Asks the API which workspace a token belongs to. The question takes a slot of the budget for
    /// such questions, like that of any caller.
    async fn ask(
        &self,
        gateway: &Gateway,
        hash: Credential,
        authorization: &HeaderValue,
    ) -> Result<WorkspaceHash, String> {
        // Under a credential of its own: that of the token in use stands for the other token.
        let asking = self.hasher.hash(&[b"token check", hash.bytes()]);
        let asking = Credential::from_bytes(asking);
        let asked = gateway.writes().workspace_of(asking, authorization);
        match tokio::time::timeout(LONGEST_QUESTION, asked).await {
            Ok(Ok(workspace)) => Ok(workspace),
            Ok(Err(NoWorkspace::Refused)) => Err("the API rejects the token".into()),
            Ok(Err(NoWorkspace::Unnamed)) => {
                Err("the API does not say which workspace the token belongs to".into())
            }
            Ok(Err(NoWorkspace::NoAnswer)) | Err(_) => {
                Err("the API could not be asked about the token; it is asked again".into())
            }
        }
    }

    /// Returns the tokens in use that the file of clients names and that are selected. They stay as
    /// they are, with what the API last said of them.
    fn configured(&self, is_selected: impl Fn(&Arc<str>) -> bool) -> Vec<Arc<HeldToken>> {
        let clients = self.clients.get();
        let names = clients.tokens().iter().map(|file| &file.name);
        let selected = names.filter(|name| is_selected(name));
        selected
            .filter_map(|name| self.tokens.named(name))
            .collect()
    }

    /// Puts a token in place of the one with its name. Requests that are sent from now on have it,
    /// and connections forget whom they knew.
    fn replace(&self, token: Arc<HeldToken>) {
        let mut tokens = self.configured(|name| *name != token.name);
        self.metrics.held_token(&token.name, !token.is_out_of_use());
        tokens.push(token);
        self.tokens.set(tokens);
    }
}

impl KeptTokens {
    /// Checks that no other name has the same token. Two names would be one credential, and could
    /// not be replaced one by one.
    fn must_be_another(&self, name: &Arc<str>, known: &Kept) -> Result<(), String> {
        // By what it was at first as well as by what it is now.
        let same = self.of.iter().find(|(other, of)| {
            *other != name && (of.credential == known.credential || of.current == known.current)
        });
        match same {
            None => Ok(()),
            Some((other, _)) => Err(format!(
                "the file has the token of tokens.{other}; use one name for both"
            )),
        }
    }

    /// Reports what is wrong with a token, once.
    fn report(&mut self, name: &Arc<str>, wrong: Option<String>, audit: &Audit) {
        let Some(wrong) = wrong else {
            self.wrong.remove(name);
            return;
        };
        // The same problem again every few seconds would fill the log.
        let before = self.wrong.insert(name.clone(), wrong.clone());
        if before.as_ref() != Some(&wrong) {
            tracing::error!(
                token = &**name,
                problem = wrong,
                "held token cannot be used"
            );
            // The problem stands in the log. It may name a path.
            audit.record(AuditEvent::Token {
                name: name.clone(),
                state: "unusable",
            });
        }
    }
}
