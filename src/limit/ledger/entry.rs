//! Pure. What is recorded of attempts, and what a later process learns from it.

use crate::credential::Credential;
use crate::limit::evidence::InForce;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The time for which a learned rate is kept, and the number of budgets for which one is kept.
pub(in crate::limit) const LEARNED_FOR: Duration = Duration::from_secs(7 * 86_400);
pub(in crate::limit) const MOST_LEARNED: usize = 20_000;
/// The bytes of a name.
pub(super) const NAME: usize = 12;

/// A name on which a write acts, by keyed hashes: four bytes of its class and eight of itself.
/// Without the latter it is a barrier against the class.
pub type Name = [u8; NAME];

/// A budget of a credential as the ledger names it: a keyed hash, never the token.
pub type AccountId = [u8; 16];

/// Returns the hash by which the ledger names an operation: FNV-1a. The names are those of the
/// route table, which are no secret.
pub fn name_hash(name: &str) -> [u8; 8] {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.to_be_bytes()
}

/// The usage of all budgets by earlier processes.
pub type PastUsage = HashMap<AccountId, PastBudget>;

/// The usage of one budget by earlier processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastBudget {
    /// The instants until which each of its slots stays occupied.
    pub held: Vec<Instant>,
    /// The rate that was in force last.
    pub rate: InForce,
}

/// The things on which a write acts that is about to be sent. Names are keyed hashes, never in
/// clear. `T` is an instant of this process, or in the file the time since the boot of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent<T = Instant> {
    /// The credential of the write.
    pub credential: Credential,
    /// The [`name_hash`] of the operation, which says what the write changes.
    pub operation: [u8; 8],
    /// Whether the write may change anything, whatever its operation says.
    pub everything: bool,
    /// The id of a durable write.
    pub write: Option<[u8; 16]>,
    /// When the first attempt was sent that may have taken effect.
    pub first: T,
    /// The names on which the write acts. `None` if it may act on anything of its credential.
    pub names: Option<Vec<Name>>,
}

impl<T> Intent<T> {
    pub(super) fn with_first<U>(self, first: U) -> Intent<U> {
        Intent {
            credential: self.credential,
            operation: self.operation,
            everything: self.everything,
            write: self.write,
            first,
            names: self.names,
        }
    }
}

/// An attempt of an earlier process for one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The things on which the write acts.
    pub intent: Intent,
    /// When the attempt ended. Now, if it was in flight when its process ended.
    pub ended: Instant,
    /// Whether it ended without a response that excludes a later effect.
    pub late: bool,
}

/// What is known of the effect of an attempt that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownEffect {
    /// It has none: it was not sent, or the response was a 429.
    None,
    /// It has taken effect, or never will.
    Final,
    /// It may still take effect.
    Late,
}

/// What an attempt costs its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The budget.
    pub account: AccountId,
    /// How long the slot stays occupied from the end of the attempt on.
    pub hold: Duration,
    /// The rate in force.
    pub rate: InForce,
}
