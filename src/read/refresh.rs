//! Refreshes: fetches without a waiting reader, for responses that were shown stale and for those
//! that will soon be stale.
//!
//! At most one refresh per key is in flight, like all fetches. A refresh after a stale response
//! waits for its budget behind the readers of its caller, and pauses for longer and longer while it
//! fails. No reader joins it in the queue: the reader takes a place of its own, and the refresh
//! ends when its turn comes. A refresh ahead of time never waits. It departs only with a slot that
//! would otherwise stay unused in its window, so no reader waits longer because of it.

use crate::cache::entry::Entry;
use crate::cache::reuse::Need;
use crate::cache::{Join, Purpose};
use crate::exchange::request::RequestContext;
use crate::limit::turns::Urgency;
use crate::read::Reads;
use crate::read::cacheable::CacheableRead;
use std::sync::Arc;
use std::time::Duration;

/// The reason of a refresh ahead of time, for metrics.
const AHEAD: &str = "ahead";

impl Reads {
    /// Refreshes a response that was shown stale.
    pub(crate) fn refresh_behind(
        self: &Arc<Self>,
        mut reading: CacheableRead,
        entry: &Entry,
        need: Need,
    ) {
        if !entry.claim_attempt(self.clock.now()) {
            return;
        }
        // The patience of the reader may be short, because it got its response already.
        reading.context.patience = self.settings.get().read_patience.usual;
        self.refresh(reading, need.as_str());
    }

    /// Refreshes a response that is read often and soon stale, if the budget for reads has a slot
    /// to spare.
    pub(crate) fn refresh_ahead(self: &Arc<Self>, mut reading: CacheableRead, entry: &Entry) {
        let context = &reading.context;
        if !self
            .budgets
            .has_spare(context.credential, &context.operation.budget)
            || !entry.claim_renewal()
        {
            return;
        }
        reading.context.patience = Duration::ZERO;
        self.refresh(reading, AHEAD);
    }

    fn refresh(self: &Arc<Self>, mut reading: CacheableRead, why: &'static str) {
        // From here on it is a fetch for all readers, of the whole response.
        reading.context = RequestContext {
            accepted: self.clock.now(),
            // Waiting readers come first.
            urgency: Urgency::LEAST,
            ..reading.context
        };
        let now = self.clock.now();
        let tags = reading.tags();
        let joined = tags.map(|tags| self.join(&reading, tags.as_deref(), Purpose::Renew, now));
        let Ok(Join::Lead(leader)) = joined else {
            // A fetch is in flight, or the response could not be stored at this moment.
            return;
        };
        if self.quotas.charge(&reading.context.caller).is_err() {
            return;
        }
        self.metrics.refreshed(&reading.context.operation.name, why);
        self.fetch(Arc::new(reading), leader, None);
    }
}
