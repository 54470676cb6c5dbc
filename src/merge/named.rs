//! Pure. Finds the elements that a text names, and the members to which they belong.
//!
//! A name is found plain or percent-encoded, even several times encoded, between characters that
//! are neither letters nor digits. Email addresses are found in any spelling of the same address.
//! If one name contains another, the longer one counts. A text that hides names in another way
//! (masked, or in HTML entities) is not understood.

use super::parts::{Parts, known_by};
use crate::route::MergePolicy;
use percent_encoding::percent_decode_str;
use std::collections::{HashMap, HashSet};

/// The largest number of decoding rounds. Enough for a link within a link within a link.
const MOST_DECODED: usize = 3;

/// The elements of all members, with the member to which each belongs.
pub(super) struct Owners<'a> {
    merge: &'a MergePolicy,
    owners: HashMap<&'a str, usize>,
    /// The names by their first character, longer ones first.
    names: HashMap<char, Vec<&'a str>>,
}

impl<'a> Owners<'a> {
    pub(super) fn of(merge: &'a MergePolicy, members: &[&'a Parts]) -> Self {
        let of_one =
            |(at, parts): (usize, &&'a Parts)| Parts::names(parts).map(move |name| (name, at));
        let owners: HashMap<&str, usize> = (0..).zip(members).flat_map(of_one).collect();
        let mut names: HashMap<char, Vec<&str>> = HashMap::new();
        for name in owners.keys() {
            if let Some(first) = name.chars().next() {
                names.entry(first).or_default().push(name);
            }
        }
        for names in names.values_mut() {
            names.sort_unstable_by_key(|name| std::cmp::Reverse(name.len()));
        }
        Self {
            merge,
            owners,
            names,
        }
    }

    /// Whether any member has this element.
    pub(super) fn owns(&self, written: &str) -> bool {
        self.owners.contains_key(&*known_by(self.merge, written))
    }

    /// The members whose elements the text names.
    pub(super) fn named_in(&self, text: &str) -> HashSet<usize> {
        let mut named = HashSet::new();
        let mut text = text.to_owned();
        for _ in 0..=MOST_DECODED {
            self.search(&known_by(self.merge, &text), &mut named);
            let plain = percent_decode_str(&text).decode_utf8_lossy();
            if plain == text {
                break;
            }
            text = plain.into_owned();
        }
        named
    }

    fn search(&self, text: &str, named: &mut HashSet<usize>) {
        let (mut rest, mut before) = (text, None);
        while let Some(next) = rest.chars().next() {
            let starts = !before.is_some_and(char::is_alphanumeric);
            let name = starts.then(|| self.name_at(rest)).flatten();
            named.extend(name.and_then(|name| self.owners.get(name)));
            let (passed, after) = rest.split_at(name.map_or(next.len_utf8(), str::len));
            before = passed.chars().next_back();
            rest = after;
        }
    }

    /// The longest name with which a text begins.
    fn name_at(&self, text: &str) -> Option<&'a str> {
        let names = self.names.get(&text.chars().next()?)?;
        let ends = |rest: &str| !rest.starts_with(char::is_alphanumeric);
        let is_here = |name: &&&str| text.strip_prefix(**name).is_some_and(ends);
        names.iter().find(is_here).copied()
    }
}
