//! Pure. What a refused DELETE has done already, as far as its repetition in parts tells.
//!
//! The API applies a list from its beginning: all of it, or nothing, or what stands before the first
//! wrong element. So when the parts of a refused union are repeated in their order, a first one that
//! is not found may have been wrong, or carried out before. The first that succeeds ends the doubt:
//! it was still there, hence the union had come to its end before it, in the part repeated last.
//! That one was wrong. Those before it may have been carried out, and are counted as done; of one
//! that was wrong itself this says the same, since what it named is not there either.

use bytes::Bytes;
use http::Response;

/// The refusal of one member's own request.
pub(super) type Refusal = (usize, Response<Bytes>);

/// The doubt about the members of one refused union.
#[derive(Debug)]
pub(super) struct Doubt {
    /// The members before this one were in it.
    end: usize,
    /// The last of those that were not found.
    held: Option<Refusal>,
}

/// What is known of a member that was not found.
#[derive(Debug)]
pub(super) enum NotFound {
    /// It was not there before either: its refusal is its answer.
    Wrong(Refusal),
    /// It is not there now, be it that the union has done it.
    Done(Refusal),
}

impl Doubt {
    /// A union was refused whose last member comes before `end`.
    pub(super) fn new(end: usize) -> Self {
        Self { end, held: None }
    }

    /// Whether the member was in the union.
    pub(super) fn concerns(&self, member: usize) -> bool {
        member < self.end
    }

    /// Whether nothing comes after this member that could end the doubt.
    pub(super) fn ends_with(&self, member: usize) -> bool {
        member + 1 >= self.end
    }

    /// The next member was not found; what is known now of the one before.
    pub(super) fn not_found(&mut self, refusal: Refusal) -> Option<NotFound> {
        self.held.replace(refusal).map(NotFound::Done)
    }

    /// The next member succeeded, or the one held is the last: the union was refused for something.
    pub(super) fn wrong(&mut self) -> Option<NotFound> {
        self.held.take().map(NotFound::Wrong)
    }

    /// The next member was wrong in another way, or cannot be told.
    pub(super) fn done(&mut self) -> Option<NotFound> {
        self.held.take().map(NotFound::Done)
    }
}
