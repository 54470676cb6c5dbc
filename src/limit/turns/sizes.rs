//! Pure. How many requests a number of lines have, counted without a look at each line.
//!
//! Of a line only the number of requests matters, and few sizes are different: lines with N
//! requests in all have at most √(2N) sizes. Lines of principals are counted for each weight apart,
//! of which there are few as well.

use super::weight::Weight;
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// The number of requests in a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineSize {
    pub(super) ready: usize,
    pub(super) blocked: usize,
}

/// The requests that may go before a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// The number of those that are ready.
    pub ready: usize,
    /// The number of the others.
    pub blocked: usize,
}

impl Ahead {
    /// The number of all of them.
    pub fn count(self) -> usize {
        self.ready + self.blocked
    }

    /// The `most` of them that can go soonest. Ready requests count as sooner than all others.
    pub(super) fn first(self, most: usize) -> Self {
        let ready = self.ready.min(most);
        Self {
            ready,
            blocked: self.blocked.min(most - ready),
        }
    }
}

impl AddAssign for Ahead {
    fn add_assign(&mut self, others: Self) {
        self.ready += others.ready;
        self.blocked += others.blocked;
    }
}

/// The sizes of the lines of several callers.
#[derive(Clone, Debug, Default)]
pub(super) struct Sizes {
    /// The number of lines by the number of their ready requests.
    ready: Counts,
    /// The number of lines by the number of all of their requests.
    total: Counts,
}

/// The sizes of the lines of several principals, by their weights.
#[derive(Clone, Debug, Default)]
pub(super) struct WeightedSizes {
    sizes: BTreeMap<Weight, Sizes>,
    /// The sum of the weights of all lines that are not empty.
    weights: usize,
}

/// The number of lines by their size. Empty lines are left out.
#[derive(Clone, Debug, Default)]
struct Counts(BTreeMap<usize, usize>);

impl LineSize {
    /// The number of all requests.
    pub(super) fn total(self) -> usize {
        self.ready + self.blocked
    }

    /// The number of requests of this line at most, if it has `most` turns. Ready ones go first.
    fn first(self, most: usize) -> Ahead {
        let ready = self.ready.min(most);
        Ahead {
            ready,
            blocked: self.total().min(most) - ready,
        }
    }
}

impl Counts {
    fn change(&mut self, before: usize, after: usize) {
        if before == after {
            return;
        }
        if let Some(count) = self.0.get_mut(&before) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&before);
            }
        }
        if after > 0 {
            *self.0.entry(after).or_default() += 1;
        }
    }

    /// The number of requests, at most `most` of each line.
    fn sum(&self, most: usize) -> usize {
        let sizes = self.0.iter();
        sizes.map(|(size, count)| size.min(&most) * count).sum()
    }
}

impl Sizes {
    /// Notes that a line has another size.
    pub(super) fn change(&mut self, before: LineSize, after: LineSize) {
        self.ready.change(before.ready, after.ready);
        self.total.change(before.total(), after.total());
    }

    /// The requests of all lines but one of the size `own`, at most `most` of each line.
    pub(super) fn first(&self, most: usize, own: LineSize) -> Ahead {
        let ready = self.ready.sum(most);
        let blocked = self.total.sum(most) - ready;
        let own = own.first(most);
        Ahead {
            ready: ready - own.ready,
            blocked: blocked - own.blocked,
        }
    }
}

impl WeightedSizes {
    /// Notes that a line of this weight has another size.
    pub(super) fn change(&mut self, weight: Weight, before: LineSize, after: LineSize) {
        let sizes = self.sizes.entry(weight).or_default();
        sizes.change(before, after);
        if sizes.total.0.is_empty() {
            self.sizes.remove(&weight);
        }
        let of = |size: LineSize| usize::from(size.total() > 0) * weight.requests();
        self.weights = self.weights + of(after) - of(before);
    }

    /// The requests of all lines but one of the size `own` and this weight, in `turns` turns of
    /// each at most.
    pub(super) fn first(&self, turns: usize, weight: Weight, own: LineSize) -> Ahead {
        let mut first = Ahead::default();
        for (of, sizes) in &self.sizes {
            let own = if *of == weight {
                own
            } else {
                LineSize::default()
            };
            first += sizes.first(turns.saturating_mul(of.requests()), own);
        }
        first
    }

    /// The sum of the weights of all lines.
    pub(super) fn weights(&self) -> usize {
        self.weights
    }

    /// The number of entries in memory.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        let sizes = self.sizes.values();
        sizes
            .map(|sizes| sizes.ready.0.len() + sizes.total.0.len())
            .sum()
    }
}
