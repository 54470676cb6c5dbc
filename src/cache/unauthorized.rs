//! Pure. What a 401 invalidates among the stored responses of a credential.
//!
//! Promises that a revoked token is not served stored responses for long. One 401 invalidates what
//! the operation returned to that credential, which may only have lost one permission. A 401 for a
//! second operation within [`WINDOW`], or one for `GET /`, which every token may call, invalidates
//! all responses to the credential.
//!
//! Bounded: at most `max` credentials are remembered, each for [`WINDOW`]. When the table is full,
//! a 401 to a new credential invalidates all of its responses, and no remembered credential is
//! dropped.

use super::key::CredentialHash;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How long a 401 for one operation counts together with one for another.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The operation that responded with 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The operation with this index in the route table.
    Operation(u32),
    /// `GET /`, with its index in the route table. Every valid token may call it.
    Workspace(u32),
}

/// The responses to invalidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The responses of this operation to the credential.
    Operation(u32),
    /// All responses to the credential.
    Credential,
}

/// The latest 401s of each credential.
#[derive(Debug)]
pub struct Unauthorized {
    seen: HashMap<CredentialHash, Recent>,
    /// The credentials ordered by their latest 401.
    order: BTreeSet<(Instant, CredentialHash)>,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    latest: (u32, Instant),
    /// The latest 401 of any other operation.
    other: Option<(u32, Instant)>,
}

impl Unauthorized {
    /// Creates a table for at most `max` credentials.
    pub fn new(max: usize) -> Self {
        Self {
            seen: HashMap::new(),
            order: BTreeSet::new(),
            max,
        }
    }

    /// Records a 401 and returns what it invalidates.
    pub fn note(&mut self, credential: CredentialHash, refused: Refused, now: Instant) -> Doubt {
        self.forget_old(now);
        let (operation, workspace) = match refused {
            Refused::Operation(operation) => (operation, false),
            Refused::Workspace(operation) => (operation, true),
        };
        let Some(recent) = self.seen.get_mut(&credential) else {
            return self.note_first(credential, operation, workspace, now);
        };
        let (last, at) = recent.latest;
        if last != operation {
            recent.other = Some((last, at));
        }
        recent.latest = (operation, now);
        let second = recent.other.is_some_and(|(_, at)| is_recent(at, now));
        self.order.remove(&(at, credential));
        self.order.insert((now, credential));
        doubt(operation, workspace || second)
    }

    /// The number of remembered credentials.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    fn note_first(
        &mut self,
        credential: CredentialHash,
        operation: u32,
        workspace: bool,
        now: Instant,
    ) -> Doubt {
        if self.seen.len() >= self.max {
            return Doubt::Credential;
        }
        let recent = Recent {
            latest: (operation, now),
            other: None,
        };
        self.seen.insert(credential, recent);
        self.order.insert((now, credential));
        doubt(operation, workspace)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, credential)) = self.order.first().copied() {
            if is_recent(at, now) {
                return;
            }
            self.order.remove(&(at, credential));
            self.seen.remove(&credential);
        }
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) <= WINDOW
}

fn doubt(operation: u32, whole: bool) -> Doubt {
    if whole {
        Doubt::Credential
    } else {
        Doubt::Operation(operation)
    }
}
