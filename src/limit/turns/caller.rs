//! Pure. How much of a line a caller has, and how urgent its requests are.

use crate::caller::Caller;

/// A position in the line. Positions are numbered in the order of arrival.
pub type LinePosition = u64;

/// The requests of one caller in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerShare {
    /// The caller.
    pub caller: Caller,
    /// The number of its requests.
    pub queued: usize,
    /// The number of those that an earlier write of their lanes holds back.
    pub blocked: usize,
    /// The position of the one that joined first.
    pub first: LinePosition,
}

/// The urgency of a request, from 0 (most) to 7 (RFC 9218, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Urgency(pub(super) u8);

impl Urgency {
    /// The default of a deferred write, for which no caller waits.
    pub const DEFERRED: Self = Self(5);

    /// The urgency of work that may wait for everything else.
    pub const LEAST: Self = Self(7);

    /// The urgency `u`. `None` if it is above 7.
    pub fn new(u: u8) -> Option<Self> {
        (u <= 7).then_some(Self(u))
    }
}

impl Default for Urgency {
    /// 3, as in RFC 9218.
    fn default() -> Self {
        Self(3)
    }
}
