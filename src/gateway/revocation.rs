//! Revoking a client at once, before its file can be changed.
//!
//! A revocation takes the client's keys and certificate names out of use, in this process and in
//! the next one, until the file of clients no longer has them: whoever removes them from the file
//! has finished the revocation, and a new key of the client is not touched by it.
//!
//! What was sent goes on. Deferred writes that were not sent are taken back, unless the operator
//! keeps them. Held writes that wait hear at their turn that the key is no longer accepted.

use crate::clients::Clients;
use crate::clients::revoked::RevokedNames;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::limit::turns::ClientWeights;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What a revocation has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedClient {
    /// The number of keys and certificate names that are no longer accepted.
    pub names: usize,
    /// The number of deferred writes that were taken back.
    pub writes: usize,
}

impl Gateway {
    /// Uses the first clients, without what earlier processes revoked. What is revoked from now on
    /// is kept in the same file.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn keep_revocations(&self, clients: Clients, file: Option<PathBuf>) -> io::Result<()> {
        *self.revoked.lock() = RevokedNames::open(file)?;
        self.set_clients(clients);
        Ok(())
    }

    /// Uses these clients from now on, without what was revoked.
    ///
    /// A revoked name that they do not have any more is forgotten: its revocation is finished.
    pub fn set_clients(&self, clients: Clients) {
        let mut revoked = self.revoked.lock();
        if revoked.forget_unknown(&clients)
            && let Err(error) = revoked.keep()
        {
            // They are only remembered for longer than needed.
            tracing::warn!(%error, "cannot write down which keys are no longer revoked");
        }
        self.put_in_use(revoked.applied_to(&clients));
    }

    /// Revokes the keys and the certificate names of a client.
    ///
    /// # Errors
    /// If there is no such client. If the revocation cannot be written down, or a write not be
    /// taken back; the revocation holds in this process all the same.
    pub async fn revoke_client(
        &self,
        name: &str,
        keeps_writes: bool,
    ) -> Result<RevokedClient, GatewayError> {
        let (names, kept) = self.revoke_names(name)?;
        // Also if the revocation could not be written down: it holds in this process.
        let writes = match keeps_writes {
            true => Ok(0),
            false => self.writes.operators_cancel_of(name).await,
        };
        kept?;
        let writes = writes?;
        Ok(RevokedClient { names, writes })
    }

    /// Takes the names of a client out of use. Returns how many these are, and whether that could
    /// be written down.
    ///
    /// # Errors
    /// If there is no such client.
    fn revoke_names(
        &self,
        client: &str,
    ) -> Result<(usize, Result<(), GatewayError>), GatewayError> {
        // Locked for the whole, so that a reload does not bring the names back in between.
        let mut revoked = self.revoked.lock();
        let clients = self.router.clients.get();
        let known = clients.clients().iter().any(|known| &*known.name == client);
        if !known {
            return Err(GatewayError::BadRequest(
                "There is no such client; `segment-gateway clients list` shows them",
            ));
        }
        let names = clients.names_of(client);
        let count = names.len();
        revoked.add(names);
        // In force first: a disk that is full must not keep a stolen key alive.
        self.put_in_use(revoked.applied_to(&clients));
        let kept = revoked.keep().map_err(|error| {
            tracing::error!(
                client, %error,
                "cannot write down a revocation: it ends with this process, unless the file of \
                 clients is changed before"
            );
            GatewayError::JournalBroken
        });
        Ok((count, kept))
    }

    fn put_in_use(&self, clients: Clients) {
        self.metrics.client_keys(clients.expiries());
        self.quotas.set_clients(clients.clients());
        let weights = Arc::new(ClientWeights::of_clients(clients.clients()));
        self.budgets.set_weights(weights.clone());
        self.writes.set_weights(weights);
        self.router.clients.set(clients);
    }
}
