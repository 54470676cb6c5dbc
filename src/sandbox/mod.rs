//! The sandbox: a simulated Segment Public API with state, limits, delays and faults.
//!
//! The sandbox is the second opinion on the gateway. It counts requests by windows of its own, has
//! its own table of operations, and shares nothing with the gateway but the clock. All its
//! decisions are in pure files (`core.rs` has their order); `serve.rs` has the connections.
//!
//! It imitates what the API reference documents: envelopes, headers, media types, pages. Where the
//! reference promises nothing, it offers every usual behaviour: four kinds of window, lists applied
//! whole or partly, replication lag, late requests and lost responses. All randomness is seeded.
//!
//! It does not imitate the permissions of tokens; all tokens share one workspace. Resources without
//! known semantics are stored and returned as received.

mod call;
mod control;
mod core;
mod count;
mod faults;
mod generic;
mod log;
mod operations;
pub(crate) mod rate_window;
mod reads;
mod reply;
mod request;
mod rng;
mod serve;
mod spec;
mod world;
mod writes;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use self::core::Core;
use self::count::Moment;
use self::world::World;
use crate::clock::Clock;

pub use call::ListMode;
pub use log::{Arrival, By, CountResult, MOST_ARRIVALS};
pub use rate_window::WindowKind;
pub use spec::{Delay, Faults, MOST_TOKENS_NAMED, SandboxSpec};
pub use world::Permission;

/// The most requests in progress; further ones get a 503.
const MOST_IN_PROGRESS: usize = 10_000;

/// A simulated API. Its methods may be called while it serves.
pub struct Sandbox {
    core: Mutex<Core>,
    clock: Clock,
    in_progress: Arc<Semaphore>,
}

impl Sandbox {
    /// Creates a sandbox with its seeded population, at the clock's present time.
    pub fn new(spec: SandboxSpec, clock: Clock) -> Arc<Self> {
        let start = moment(&clock);
        Arc::new(Self {
            core: Mutex::new(Core::new(spec, start)),
            clock,
            in_progress: Arc::new(Semaphore::new(MOST_IN_PROGRESS)),
        })
    }

    /// Changes the faults from the next request on.
    pub fn set_faults(&self, faults: Faults) {
        self.core.lock().faults = faults;
    }

    /// Changes the accepted tokens from the next request on; `None` accepts any.
    pub fn accept_tokens(&self, tokens: Option<Vec<String>>) {
        self.core.lock().accepted = tokens.map(HashSet::from_iter);
    }

    /// Returns the latest [`MOST_ARRIVALS`] arrivals in the order in which they were logged.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals_since(0)
    }

    /// Returns the arrivals from `index` on, as [`Self::arrivals`] does.
    pub fn arrivals_since(&self, index: u64) -> Vec<Arrival> {
        self.core.lock().log.since(index).cloned().collect()
    }

    /// Forgets the arrivals; their numbers continue.
    pub fn clear_arrivals(&self) {
        self.core.lock().log.clear();
    }

    /// Returns the version of the state: the number of requests that changed it. Every response has
    /// the version that it saw or made in `X-Sandbox-Version`.
    pub fn version(&self) -> u64 {
        self.core.lock().history.current().version
    }

    /// Returns the version that a read arriving now would see, given the replication lag.
    pub fn visible_version(&self) -> u64 {
        let core = self.core.lock();
        core.history.seen(self.clock.now()).version
    }

    /// Returns the ids of all users, sorted.
    pub fn users(&self) -> Vec<String> {
        self.present(|world| world.users.by_id.keys().cloned().collect())
    }

    /// Returns the present permissions of a user, or `None` if there is no such user.
    pub fn permissions(&self, user: &str) -> Option<Vec<Permission>> {
        self.present(|world| Some(world.users.by_id.get(user)?.permissions.clone()))
    }

    /// Returns the emails of all invites, in lower case and sorted.
    pub fn invites(&self) -> Vec<String> {
        self.present(|world| world.invites.keys().cloned().collect())
    }

    /// Returns the emails of a group's members and invited people, in lower case and sorted, or
    /// `None` if there is no such group.
    pub fn members(&self, group: &str) -> Option<Vec<String>> {
        self.present(|world| {
            let group = world.groups.get(group)?;
            Some(group.members.union(&group.invites).cloned().collect())
        })
    }

    /// Accepts an invite on behalf of the person, which happens outside the API. Returns the new
    /// user's id, or `None` if there is no such invite.
    pub fn accept_invite(&self, email: &str) -> Option<String> {
        let mut core = self.core.lock();
        let now = self.clock.now();
        let (_, id) = core.history.write(now, |world| {
            let id = world.accept_invite(email);
            (id.is_some(), id)
        });
        id
    }

    /// Reads the present state.
    fn present<R>(&self, read: impl FnOnce(&World) -> R) -> R {
        read(self.core.lock().history.current())
    }
}

fn moment(clock: &Clock) -> Moment {
    Moment {
        now: clock.now(),
        wall: clock.wall(),
    }
}

/// Returns an instant for tests of pure files; which one does not matter.
#[cfg(test)]
fn some_instant() -> std::time::Instant {
    // Late enough to go back a little.
    Clock::system().now() + std::time::Duration::from_secs(1_000)
}

#[cfg(test)]
mod tests;
