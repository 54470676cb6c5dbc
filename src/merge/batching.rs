//! Pure. The size of batches, chosen so that rejected batches cost little.
//!
//! A rejected batch used a slot for nothing, and its members are retried. They are divided once.
//! A large batch is divided into groups, each of which then succeeds or is rejected. The members of
//! a rejected group, or of a small batch, are sent alone. After each rejected batch, [`REFUSAL`]
//! writes of its operation must be carried out before others are batched again.
//!
//! Invariant: batching uses at most a fifth more slots than no batching would, whichever writes the
//! API rejects. In the worst case, a batch of at least [`LARGE`] writes costs one rejected batch
//! and one rejected group for each [`FEWEST`] of them. A smaller one costs one rejected batch.

/// The largest and the smallest number of writes in a group.
const GROUP: usize = 8;
const FEWEST: usize = 6;
/// The smallest rejected batch that is divided into groups.
const LARGE: usize = 20;
/// The cost of a rejected batch: the number of writes that must be carried out before the next
/// batch.
const REFUSAL: usize = 5;
/// The cost of a batch whose response cannot be attributed to its members.
const UNATTRIBUTED: usize = 500;
/// The upper bound of the debt.
const MOST_OWED: usize = 1_000;

/// The number of other writes with which a write may be batched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Batching {
    /// As many as a batch holds.
    #[default]
    Full,
    /// A few of those with which it was rejected.
    Group,
    /// None: the write was rejected in a batch, and only a response of its own is conclusive.
    Alone,
}

impl Batching {
    /// The batching of a write after a rejected batch with this number of members.
    #[must_use]
    pub fn divided(self, members: usize) -> Self {
        match self {
            Self::Full if members >= LARGE => Self::Group,
            _ => Self::Alone,
        }
    }

    /// The smallest and the largest number of writes in a batch.
    pub(super) fn members(self) -> (usize, usize) {
        match self {
            Self::Full => (1, usize::MAX),
            Self::Group => (FEWEST, GROUP),
            Self::Alone => (1, 1),
        }
    }
}

/// The cost of rejected batches of one operation and credential that is not made up for yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debt(usize);

impl Debt {
    /// The batching that the debt permits to a write.
    pub fn limit(self, batching: Batching) -> Batching {
        match batching {
            Batching::Full if self.0 > 0 => Batching::Alone,
            batching => batching,
        }
    }

    /// Records a rejected batch.
    pub fn refused(&mut self) {
        self.0 = (self.0 + REFUSAL).min(MOST_OWED);
    }

    /// Records a batch that succeeded, but whose response cannot be attributed to its members.
    pub fn unattributed(&mut self) {
        self.0 = (self.0 + UNATTRIBUTED).min(MOST_OWED);
    }

    /// Records writes that were carried out, alone or in a batch.
    pub fn carried_out(&mut self, writes: usize) {
        self.0 = self.0.saturating_sub(writes);
    }

    /// The number of the `waiting` writes that the debt forces to be sent alone.
    pub fn alone(self, waiting: usize) -> usize {
        self.0.min(waiting)
    }

    /// Whether nothing is owed.
    pub fn is_paid(self) -> bool {
        self.0 == 0
    }
}
