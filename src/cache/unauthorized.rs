//! Pure. What an answer of 401 says about what is stored for that credential.
//!
//! Promises that a token that was revoked is not shown stored answers for long: one 401 doubts
//! what the operation showed that credential (it may have lost one permission); a 401 to a second
//! operation within [`WINDOW`], or one to `GET /`, which every token may call, doubts all that the
//! credential was shown.
//!
//! Bounded: it remembers `max` credentials at a time, each for [`WINDOW`]. Beyond that, it doubts
//! everything of a newcomer rather than forget anyone.

use super::fence::CredentialHash;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How long a 401 to one operation counts against another.
pub const WINDOW: Duration = Duration::from_secs(10);

/// What was answered with 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The operation with this index in the route table.
    Operation(u32),
    /// `GET /` (also an operation): every valid token may call it.
    Workspace(u32),
}

/// What is to be doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// What this operation showed the credential.
    Operation(u32),
    /// Everything that the credential was shown.
    Credential,
}

/// Remembers the latest refusals of each credential.
#[derive(Debug)]
pub struct Unauthorized {
    seen: HashMap<CredentialHash, Recent>,
    /// The same credentials by their latest refusal.
    order: BTreeSet<(Instant, CredentialHash)>,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    latest: (u32, Instant),
    /// The latest refusal of any other operation than that.
    other: Option<(u32, Instant)>,
}

impl Unauthorized {
    /// Remembers at most `max` credentials at a time.
    pub fn new(max: usize) -> Self {
        Self {
            seen: HashMap::new(),
            order: BTreeSet::new(),
            max,
        }
    }

    /// Notes a 401 and says what it makes doubtful.
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

    /// How many credentials are remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
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
