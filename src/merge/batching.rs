//! Pure. How large a batch may be, so that refused batches cost little.
//!
//! A refused batch took a slot for nothing, and its members are sent again. They are divided once:
//! a large batch into groups, which are proven good or refused, and the members of a refused group,
//! or of a small batch, go alone. For each refused batch, [`REFUSAL`] writes of its operation have
//! to be carried out before others are batched again.
//!
//! Invariant: writes take at most a fifth more slots than they would without batches, whatever part
//! of them the API refuses. A batch of [`LARGE`] writes or more comes to one refused batch and one
//! refused group for each [`FEWEST`] of them, at worst; a smaller one to one refused batch.

/// The most and the fewest writes of a group.
const GROUP: usize = 8;
const FEWEST: usize = 6;
/// A refused batch of so many writes is divided into groups.
const LARGE: usize = 20;
/// What a refused batch costs, in writes that have to be carried out before the next batch.
const REFUSAL: usize = 5;
/// The same of a batch whose answer cannot be attributed to its members.
const UNATTRIBUTED: usize = 500;
/// The most that is owed.
const MOST_OWED: usize = 1_000;

/// With how many others a write may be batched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Batching {
    /// With as many as a dispatch holds.
    #[default]
    Full,
    /// With a few of those with which it was refused.
    Group,
    /// With none: it was refused in a batch, and only its own answer says more.
    Alone,
}

impl Batching {
    /// How a member of a refused batch of so many writes goes on.
    #[must_use]
    pub fn divided(self, members: usize) -> Self {
        match self {
            Self::Full if members >= LARGE => Self::Group,
            _ => Self::Alone,
        }
    }

    /// The fewest and the most writes that leave together.
    pub(super) fn members(self) -> (usize, usize) {
        match self {
            Self::Full => (1, usize::MAX),
            Self::Group => (FEWEST, GROUP),
            Self::Alone => (1, 1),
        }
    }
}

/// What refused batches of one operation and credential have cost and has not been made up for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debt(usize);

impl Debt {
    /// How such a write may be batched now.
    pub fn limit(self, batching: Batching) -> Batching {
        match batching {
            Batching::Full if self.0 > 0 => Batching::Alone,
            batching => batching,
        }
    }

    /// A batch was refused.
    pub fn refused(&mut self) {
        self.0 = (self.0 + REFUSAL).min(MOST_OWED);
    }

    /// A batch succeeded, and nobody can tell its members their answers.
    pub fn unattributed(&mut self) {
        self.0 = (self.0 + UNATTRIBUTED).min(MOST_OWED);
    }

    /// So many writes have been carried out, alone or together.
    pub fn carried_out(&mut self, writes: usize) {
        self.0 = self.0.saturating_sub(writes);
    }

    /// How many of so many writes that wait leave alone because of it.
    pub fn alone(self, waiting: usize) -> usize {
        self.0.min(waiting)
    }

    /// Whether nothing is owed.
    pub fn is_paid(self) -> bool {
        self.0 == 0
    }
}
