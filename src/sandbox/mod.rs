//! The sandbox: a simulated Segment Public API with state, limits, delays and faults.
//!
//! It is the second opinion on the gateway: it counts requests by windows of its own, has its own
//! table of operations, and shares nothing with the gateway but the clock. Everything that it
//! decides is in pure files (`core.rs` has the order of decisions); `serve.rs` has the connections.
//!
//! It imitates what the reference documents (envelopes, headers, media types, pages) and, where
//! that promises nothing, offers every usual behaviour: four kinds of window, lists applied whole
//! or partly, replication lag, late requests and lost answers. All chance is seeded.
//!
//! It does not imitate the permissions of tokens (all tokens share one workspace), and what it does
//! not know of an operation's meaning it stores and returns as it came.

mod call;
mod control;
mod core;
mod count;
mod dice;
mod fate;
mod generic;
mod log;
mod operations;
mod reads;
mod reply;
mod request;
mod serve;
mod spec;
pub(crate) mod window;
mod world;
mod writes;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::core::{Core, Moment};
use crate::clock::Clock;

pub use call::ListMode;
pub use log::{Arrival, By, Count, Effect, MOST_ARRIVALS};
pub use spec::{Delay, Faults, SandboxSpec};
pub use window::WindowKind;
pub use world::Grant;

/// How many requests may be on their way to be counted or answered at once; more are 503.
const MOST_UNDER_WAY: usize = 10_000;

/// A simulated API. Its methods may be called while it serves.
pub struct Sandbox {
    core: Mutex<Core>,
    clock: Clock,
    under_way: Arc<Semaphore>,
}

impl Sandbox {
    /// A sandbox with its seeded population, at the clock's present time.
    pub fn new(spec: SandboxSpec, clock: Clock) -> Arc<Self> {
        let start = Moment {
            now: clock.now(),
            wall: clock.wall(),
        };
        let under_way = Arc::new(Semaphore::new(MOST_UNDER_WAY));
        Arc::new(Self {
            core: Mutex::new(Core::new(spec, start)),
            clock,
            under_way,
        })
    }

    /// Changes what goes wrong from the next request on.
    pub fn set_faults(&self, faults: Faults) {
        self.core.lock().faults = faults;
    }

    /// The latest [`MOST_ARRIVALS`] arrivals in the order in which they were noted.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals_since(0)
    }

    /// As [`Self::arrivals`], from the one with this index on.
    pub fn arrivals_since(&self, index: u64) -> Vec<Arrival> {
        self.core.lock().log.since(index).cloned().collect()
    }

    /// Forgets the arrivals; their numbers go on.
    pub fn clear_arrivals(&self) {
        self.core.lock().log.clear();
    }

    /// The version of the state: how many requests have changed it so far. Every answer carries the
    /// version it saw or made in `X-Sandbox-Version`.
    pub fn version(&self) -> u64 {
        self.core.lock().history.current().version
    }

    /// The version that a read arriving now would see, given the replication lag.
    pub fn visible_version(&self) -> u64 {
        let core = self.core.lock();
        core.history.seen(self.clock.now()).version
    }

    /// The ids of all users, sorted.
    pub fn users(&self) -> Vec<String> {
        self.core
            .lock()
            .history
            .current()
            .users
            .by_id
            .keys()
            .cloned()
            .collect()
    }

    /// The permissions of a user as they are, or `None` where there is no such user.
    pub fn permissions(&self, user: &str) -> Option<Vec<Grant>> {
        let core = self.core.lock();
        core.history
            .current()
            .users
            .by_id
            .get(user)
            .map(|user| user.grants.clone())
    }

    /// The emails of all invites, lower-cased and sorted.
    pub fn invites(&self) -> Vec<String> {
        self.core
            .lock()
            .history
            .current()
            .invites
            .keys()
            .cloned()
            .collect()
    }

    /// The emails of a group's members and invited people, lower-cased and sorted, or `None` where
    /// there is no such group.
    pub fn members(&self, group: &str) -> Option<Vec<String>> {
        let core = self.core.lock();
        let group = core.history.current().groups.get(group)?;
        let mut emails: Vec<String> = group.members.union(&group.invites).cloned().collect();
        emails.sort();
        Some(emails)
    }

    /// Lets an invited person accept, which happens outside the API, and returns the new user's id;
    /// `None` where there is no such invite.
    pub fn accept_invite(&self, email: &str) -> Option<String> {
        let accept = |world: &mut world::World| {
            let id = world.accept_invite(email);
            let changed = if id.is_some() {
                world::Changed::Something
            } else {
                world::Changed::Nothing
            };
            (changed, id)
        };
        let mut core = self.core.lock();
        let now = self.clock.now();
        core.history.write(now, accept).1
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.clock.now(),
            wall: self.clock.wall(),
        }
    }
}

/// An instant for tests of pure files; which one does not matter.
#[cfg(test)]
fn some_instant() -> std::time::Instant {
    // Far enough from the beginning of the clock to go back a little.
    Clock::system().now() + std::time::Duration::from_secs(1_000)
}

#[cfg(test)]
mod tests;
