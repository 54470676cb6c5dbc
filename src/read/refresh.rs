//! Fetches that no reader waits for: what was shown stale, and what will be stale soon.
//!
//! Of one key at most one is under way, as of all fetches. What was shown stale waits for its budget
//! behind the readers of its caller, and rests for longer and longer while that fails. No reader joins
//! it there: it takes a place of its own, and the renewal ends when its turn comes. What is not
//! stale yet never waits: it leaves only with a slot that would otherwise go unused in the window, so
//! no reader waits longer because of it.

use crate::cache::entry::Entry;
use crate::cache::reuse::Need;
use crate::cache::{Board, Purpose};
use crate::exchange::request::Ask;
use crate::limit::turns::Urgency;
use crate::read::Reads;
use crate::read::serve::{Reading, tags, wish};
use std::sync::Arc;
use std::time::Duration;

/// Why a fetch is begun that nobody waits for, where nothing was shown stale.
const AHEAD: &str = "ahead";

impl Reads {
    /// A new answer in place of one that was shown stale.
    pub(crate) fn refresh_behind(
        self: &Arc<Self>,
        mut reading: Reading,
        entry: &Entry,
        need: Need,
    ) {
        if !entry.claim_attempt(self.clock.now()) {
            return;
        }
        // Not as impatient as the reader, who has an answer.
        reading.ask.patience = self.settings.get().read_patience.usual;
        self.refresh(reading, need.as_str());
    }

    /// A new answer in place of one that is asked for often and has not long to live, if the read
    /// budget has a slot to spare.
    pub(crate) fn refresh_ahead(self: &Arc<Self>, mut reading: Reading, entry: &Entry) {
        let ask = &reading.ask;
        if !self
            .budgets
            .has_spare(ask.credential, &ask.operation.budget)
            || !entry.claim_renewal()
        {
            return;
        }
        reading.ask.patience = Duration::ZERO;
        self.refresh(reading, AHEAD);
    }

    fn refresh(self: &Arc<Self>, mut reading: Reading, why: &'static str) {
        // It is a fetch for everybody now, of the whole.
        reading.ask = Ask {
            accepted: self.clock.now(),
            // Whoever waits for an answer comes first.
            urgency: Urgency::LEAST,
            ..reading.ask
        };
        let Some(tags) = tags(&reading.ask) else {
            return;
        };
        let board = {
            let wish = wish(&reading, tags.as_deref(), Purpose::Renew);
            self.cache.board(&wish, self.clock.now())
        };
        let Board::Lead(leader) = board else {
            // It is under way, or may not be kept at this moment.
            return;
        };
        if self.quotas.charge(&reading.ask.caller).is_err() {
            return;
        }
        self.metrics.refreshed(&reading.ask.operation.name, why);
        self.fetch(reading, leader, None);
    }
}
