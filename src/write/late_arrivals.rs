//! What the writes of an earlier process may still do.
//!
//! A write that was sent and not answered may take effect until Q after its attempt ended. Before
//! it is sent, the ledger records what it acts on (its *intent*). A new process keeps the same
//! lanes closed and the same answers settling for the rest of Q, however often it is started
//! meanwhile. Where the ledger cannot say, all lanes are closed and nothing is stored for Q.
//!
//! Limit: what a write changes is known by its operation, so that for the rest of Q everything that
//! such a write may change is settling, not only what this one acts on.

use crate::cache::Invalidation;
use crate::credential::Credential;
use crate::exchange::request::RequestContext;
use crate::journal::WriteId;
use crate::lanes::{ClassHash, Keys, OrderKey};
use crate::limit::ledger::{Intent, Left, Name, name_hash};
use crate::route::policy::Operation;
use crate::write::Writes;
use crate::write::durable::PendingWrite;
use crate::write::unsettled::Unsettled;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// What the ledger says of the attempts of a durable write that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EarlierAttempts {
    /// When the first one was sent.
    pub(crate) first: Instant,
    /// Until when one of them may take effect.
    pub(crate) until: Option<Instant>,
}

/// The durable writes that have not ended: the credential of each, and what the ledger says of its
/// attempts.
pub(crate) type Unfinished = HashMap<WriteId, (Credential, Option<EarlierAttempts>)>;

impl Unsettled {
    /// Returns what the ledger keeps of a write that is about to be sent.
    pub(crate) fn intent(
        &self,
        context: &RequestContext,
        pending: Option<&PendingWrite>,
    ) -> Intent {
        let writes = self.writes();
        let first = pending.and_then(|pending| pending.tries().first_doubt);
        Intent {
            credential: context.credential,
            operation: name_hash(&context.operation.name),
            everything: self.may_change_anything(),
            write: pending.map(|pending| *pending.id.bytes()),
            first: first.unwrap_or_else(|| writes.clock.now()),
            names: Some(names(&self.keys())),
        }
    }
}

impl Writes {
    /// Closes the lanes and settles the answers of what an earlier process has sent. `None`: that
    /// is unknown. Notes the attempts of writes that have not ended, which close their lanes
    /// themselves. Call it before any request.
    pub(crate) fn restore(&self, left: Option<&[Left]>, unfinished: &mut Unfinished) {
        let (now, q) = (self.clock.now(), self.router.settings.get().late);
        let Some(left) = left else {
            self.lanes.close_all(self.classes(), now + q);
            self.settle(&Invalidation::Everything, q);
            tracing::warn!(
                for_s = q.as_secs_f64(),
                "writes of the previous process may still take effect, and it is unknown which: \
                 nothing is cached and writes wait until they no longer can"
            );
            return;
        };
        let mut closed = 0;
        for attempt in left {
            let until = Some(attempt.ended + q).filter(|until| attempt.late && *until > now);
            if let Some(until) = until {
                closed += 1;
                self.settle_late(&attempt.intent, until);
            }
            let id = attempt
                .intent
                .write
                .and_then(|id| WriteId::from_bytes(id).ok());
            let mut closes_itself = false;
            if let Some((owner, attempts)) = id.and_then(|id| unfinished.get_mut(&id)) {
                note(attempts, attempt.intent.first, until);
                // It may have been given to another credential since.
                closes_itself = *owner == attempt.intent.credential;
            }
            if let Some(until) = until.filter(|_| !closes_itself) {
                self.close(&attempt.intent, until);
            }
        }
        if closed > 0 {
            tracing::warn!(
                attempts = closed,
                "writes of the previous process may still take effect: their lanes are closed \
                 and what they may change is not cached until they no longer can"
            );
        }
    }

    fn close(&self, intent: &Intent, until: Instant) {
        let keys = match &intent.names {
            Some(names) => keys(names),
            None => Keys::from_hashes([], self.classes()),
        };
        if !keys.is_empty() {
            self.lanes.close(intent.credential, keys, until);
        }
    }

    fn settle_late(&self, intent: &Intent, until: Instant) {
        let table = self.router.table.get();
        let mut operations = table.operations().iter();
        let known = operations.find(|known| name_hash(&known.name) == intent.operation);
        let changed = match known {
            Some(known) if !intent.everything => changed(known, table.operations()),
            _ => Invalidation::Everything,
        };
        self.cache.settle(&changed, until);
    }

    /// Returns the classes of all order keys.
    fn classes(&self) -> BTreeSet<ClassHash> {
        let table = self.router.table.get();
        let templates = table.operations().iter().flat_map(|known| &known.order);
        templates
            .map(|template| ClassHash::new(&self.router.hasher, template.class()))
            .collect()
    }
}

fn note(attempts: &mut Option<EarlierAttempts>, first: Instant, until: Option<Instant>) {
    let attempts = attempts.get_or_insert(EarlierAttempts { first, until });
    attempts.first = attempts.first.min(first);
    attempts.until = attempts.until.max(until);
}

/// Returns what a write of this operation may change.
fn changed(write: &Operation, operations: &[Arc<Operation>]) -> Invalidation {
    let mut changed = Vec::new();
    for shows in operations {
        match write.may_change(shows) {
            Some(true) => changed.push(u32::try_from(shows.index).unwrap_or(u32::MAX)),
            Some(false) => {}
            None => return Invalidation::Everything,
        }
    }
    Invalidation::Operations(changed)
}

/// Returns order keys as the ledger keeps them. A barrier has no name.
fn names(keys: &Keys) -> Vec<Name> {
    let name = |class: ClassHash, name: u64| {
        let mut bytes = Name::default();
        bytes[..4].copy_from_slice(&class.0.to_be_bytes());
        bytes[4..].copy_from_slice(&name.to_be_bytes());
        bytes
    };
    let order = keys.keys().iter().map(|key| name(key.class, key.name));
    let barriers = keys.barriers().iter().map(|class| name(*class, 0));
    order.chain(barriers).collect()
}

fn keys(names: &[Name]) -> Keys {
    let names = names.iter().map(|[a, b, c, d, name @ ..]| OrderKey {
        class: ClassHash(u32::from_be_bytes([*a, *b, *c, *d])),
        name: u64::from_be_bytes(*name),
    });
    let (barriers, keys): (Vec<_>, Vec<_>) = names.partition(|key| key.name == 0);
    Keys::from_hashes(keys, barriers.into_iter().map(|barrier| barrier.class))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Hasher;

    #[test]
    fn order_keys_come_back_as_they_were_kept() {
        let hasher = Hasher::new(&[1; 32]);
        let all = Keys::new(
            &hasher,
            ["user:a", "person:b@c.d", "person:"],
            ["person", "x"],
        );
        assert_eq!(keys(&names(&all)), all);
        assert!(keys(&[]).is_empty());
    }
}
