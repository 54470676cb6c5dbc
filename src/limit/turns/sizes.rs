//! Pure. How many requests a number of lines have, counted without a look at each line.
//!
//! A request that is blocked has a time of its own, so a line with one has to be looked at. Of the
//! other lines only the number of requests matters, and few sizes are different: lines with N
//! requests in all have at most √(2N) sizes.

use foldhash::HashSet;
use std::collections::BTreeMap;
use std::hash::Hash;

/// The number of requests in a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineSize {
    pub(super) ready: usize,
    pub(super) blocked: usize,
}

/// The sizes of the lines of several callers.
#[derive(Clone, Debug)]
pub(super) struct Sizes<K> {
    /// The number of lines by their size, of those without blocked requests.
    ready: BTreeMap<usize, usize>,
    /// The lines with blocked requests.
    blocked: HashSet<K>,
}

impl LineSize {
    /// The number of all requests.
    pub(super) fn total(self) -> usize {
        self.ready + self.blocked
    }
}

impl<K> Default for Sizes<K> {
    fn default() -> Self {
        Self {
            ready: BTreeMap::new(),
            blocked: HashSet::default(),
        }
    }
}

impl<K: Clone + Eq + Hash> Sizes<K> {
    /// Notes that a line has another size.
    pub(super) fn change(&mut self, line: &K, before: LineSize, after: LineSize) {
        match (before.blocked > 0, after.blocked > 0) {
            (false, true) => {
                self.blocked.insert(line.clone());
            }
            (true, false) => {
                self.blocked.remove(line);
            }
            _ => {}
        }
        if before.blocked == 0
            && let Some(count) = self.ready.get_mut(&before.ready)
        {
            *count -= 1;
            if *count == 0 {
                self.ready.remove(&before.ready);
            }
        }
        if after.blocked == 0 && after.ready > 0 {
            *self.ready.entry(after.ready).or_default() += 1;
        }
    }

    /// The number of ready requests in the lines without blocked ones, at most `most` of each, and
    /// without one line of the size `own`.
    pub(super) fn ready(&self, most: usize, own: LineSize) -> usize {
        let sizes = self.ready.iter();
        let all: usize = sizes.map(|(size, count)| size.min(&most) * count).sum();
        match own.blocked {
            0 => all - own.ready.min(most),
            _ => all,
        }
    }

    /// The lines with blocked requests.
    pub(super) fn all_blocked(&self) -> impl Iterator<Item = &K> {
        self.blocked.iter()
    }

    /// The lines with blocked requests, without one.
    pub(super) fn blocked<'s>(&'s self, own: &'s K) -> impl Iterator<Item = &'s K> {
        self.blocked.iter().filter(move |line| *line != own)
    }

    /// The number of entries in memory.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.ready.len() + self.blocked.len()
    }
}
