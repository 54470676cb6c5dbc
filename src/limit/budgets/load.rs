//! Pure. The load of requests that wait: their number, their lines, and the bytes of their bodies.

use super::request::AccountKey;
use foldhash::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Requests in lines, and the bytes of their bodies.
#[derive(Debug, Default)]
pub(super) struct LineLoad {
    pub(super) requests: usize,
    pub(super) bytes: usize,
    /// The number of the requests in each line. No line without any.
    pub(super) lines: HashMap<AccountKey, usize>,
    /// The number of the requests by the size of their bodies, as [`rounded_down`].
    sizes: BTreeMap<usize, usize>,
}

/// The number of lines in which a time to come back is looked for, if there are more: a refusal
/// must not cost more than what it refuses. The earliest time found in some lines is an upper bound
/// of the earliest of all.
pub(super) const LOOKED_AT: usize = 32;

impl LineLoad {
    /// Adds a request with a body of so many bytes.
    pub(super) fn add(&mut self, line: &AccountKey, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
        *self.lines.entry(line.clone()).or_default() += 1;
        *self.sizes.entry(rounded_down(bytes)).or_default() += 1;
    }

    /// Subtracts a request with a body of so many bytes.
    pub(super) fn remove(&mut self, line: &AccountKey, bytes: usize) {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        let size = rounded_down(bytes);
        if let Some(count) = self.sizes.get_mut(&size) {
            *count -= 1;
            if *count == 0 {
                self.sizes.remove(&size);
            }
        }
        // A line without requests is forgotten, which bounds the table by the requests.
        if let Some(count) = self.lines.get_mut(line) {
            *count -= 1;
            if *count == 0 {
                self.lines.remove(line);
            }
        }
    }

    /// Returns how many requests surely have so many bytes together, whichever they are.
    pub(super) fn requests_with(&self, bytes: usize) -> usize {
        let (mut left, mut requests) = (bytes, 0);
        for (size, count) in &self.sizes {
            if size * count >= left {
                return requests + left.div_ceil((*size).max(1));
            }
            requests += count;
            left -= size * count;
        }
        requests
    }

    /// Returns the lines, first those with the earliest instants in `wakes`: their requests are
    /// likely to leave first. The others follow in no order. Each line comes once.
    pub(super) fn soonest_first<'s>(
        &'s self,
        wakes: &'s BTreeSet<(Instant, AccountKey)>,
    ) -> impl Iterator<Item = &'s AccountKey> {
        let soonest = wakes.iter().take(LOOKED_AT).map(|(_, line)| line);
        let soonest: Vec<_> = soonest
            .filter(|line| self.lines.contains_key(*line))
            .collect();
        // At most `LOOKED_AT` to compare with.
        let is_other = {
            let soonest = soonest.clone();
            move |line: &&AccountKey| !soonest.contains(line)
        };
        soonest
            .into_iter()
            .chain(self.lines.keys().filter(is_other))
    }
}

/// The size without all but its first five binary digits: at most 1/16 less. So there are few
/// different sizes, 16 for each power of two.
fn rounded_down(bytes: usize) -> usize {
    let digits = bytes.checked_ilog2().unwrap_or(0);
    let shift = digits.saturating_sub(4);
    bytes >> shift << shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Credential;
    use proptest::prelude::*;

    proptest! {
        /// The smallest requests have the bytes together, and not many fewer would do.
        #[test]
        fn so_many_requests_have_the_bytes_whichever_they_are(
            mut sizes in prop::collection::vec(0usize..100_000, 1..40),
            share in 0usize..=100,
        ) {
            let line: AccountKey = (Credential::from_bytes([1; 16]), "line".into());
            let mut load = LineLoad::default();
            sizes.iter().for_each(|bytes| load.add(&line, *bytes));
            sizes.sort_unstable();
            let bytes = sizes.iter().sum::<usize>() * share / 100;
            let enough = load.requests_with(bytes);
            prop_assert!(enough <= sizes.len());
            prop_assert!(sizes[..enough].iter().sum::<usize>() >= bytes);
            if let Some(fewer) = enough.checked_sub(1) {
                let rounded: usize = sizes[..fewer].iter().map(|size| rounded_down(*size)).sum();
                prop_assert!(rounded < bytes.max(1));
            }
            sizes.iter().for_each(|bytes| load.remove(&line, *bytes));
            prop_assert!(load.sizes.is_empty() && load.lines.is_empty());
            prop_assert_eq!((load.requests, load.bytes), (0, 0));
        }
    }
}
