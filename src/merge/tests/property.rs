//! Pure. Any few writes, merged and divided, come to something that some order of the unmerged
//! writes allows.

use super::driver::{Conditions, Driver, Heard, Wish, Write};
use super::model::{Kind, World};
use crate::lanes::Keys;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

/// A search for an order of the unmerged writes that comes to the same.
struct Search<'w> {
    writes: &'w [Write],
    /// For each write those that must come before it.
    before: Vec<Vec<usize>>,
    end: &'w World,
}

impl<'w> Search<'w> {
    fn new(writes: &'w [Write], end: &'w World) -> Self {
        let keys: Vec<_> = writes.iter().map(|write| write.wish.keys()).collect();
        let barred = |a: &Keys, b: &Keys| {
            let mut keys = a.keys().iter();
            keys.any(|key| b.barriers().contains(&key.class))
        };
        let conflict = |a: &Keys, b: &Keys| {
            let mut keys = a.keys().iter();
            keys.any(|key| b.keys().contains(key)) || barred(a, b) || barred(b, a)
        };
        let must = |a: usize, b: usize| {
            let heard = writes[a].heard.as_ref().unwrap().0;
            heard <= writes[b].accepted || (a < b && conflict(&keys[a], &keys[b]))
        };
        let all = 0..writes.len();
        let before = all
            .clone()
            .map(|b| all.clone().filter(|a| *a != b && must(*a, b)).collect());
        Self {
            writes,
            before: before.collect(),
            end,
        }
    }

    fn exists(&self, begin: &World) -> bool {
        self.go(begin, 0, Vec::new())
    }

    /// `done` are bits; `groups` the answers with a state that has not been seen yet.
    fn go(&self, world: &World, done: usize, groups: Vec<Value>) -> bool {
        if done + 1 == 1 << self.writes.len() {
            return world == self.end && groups.is_empty();
        }
        (0..self.writes.len()).any(|at| {
            let comes = done & 1 << at == 0 && self.before[at].iter().all(|b| done & 1 << b != 0);
            comes
                && self
                    .results(world, &self.writes[at])
                    .into_iter()
                    .any(|result| {
                        let mut groups = groups.clone();
                        groups.extend(result.group);
                        groups.retain(|group| !result.seen.contains(group));
                        self.go(&result.world, done | 1 << at, groups)
                    })
        })
    }

    /// What the write may have come to, given what was heard of it.
    fn results(&self, world: &World, write: &Write) -> Vec<Possible> {
        let (kind, elements) = (write.wish.kind, write.wish.known());
        let (heard, mut after) = (&write.heard.as_ref().unwrap().1, world.clone());
        let result = match BTreeSet::from_iter(&elements).len() < elements.len() {
            true => Err(422),
            false => after.apply(kind, &elements),
        };
        let nothing = Possible::new(world.clone(), None);
        match (heard, result) {
            (Heard::Unknown, _) => vec![nothing, Possible::new(after, None)],
            (Heard::Refused, Err(_)) => vec![nothing],
            (Heard::Success(status, data), Ok(())) => {
                let (own, own_data) = after.success(kind, &write.wish.elements);
                let group = kind == Kind::Join;
                let same = *status == own && (group || *data == own_data);
                let possible = same.then(|| Possible::new(after, group.then(|| data.clone())));
                possible.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What a write may have come to.
struct Possible {
    world: World,
    /// Its answer, if that is the state of the group.
    group: Option<Value>,
    /// The state of the group that others may see from now on, until the next write.
    seen: Vec<Value>,
}

impl Possible {
    fn new(world: World, group: Option<Value>) -> Self {
        let seen = vec![world.group()];
        Self { world, group, seen }
    }
}

fn worlds() -> impl Strategy<Value = World> {
    let some = |names: &'static [&'static str]| prop::sample::subsequence(names, 0..=names.len());
    (
        some(&["a", "b", "c", "d"]),
        some(&["u1", "u2", "u3"]),
        any::<u8>(),
    )
        .prop_map(|(invites, users, members)| {
            let mut world = World {
                invites: invites.into_iter().map(str::to_owned).collect(),
                users: users
                    .iter()
                    .map(|id| ((*id).to_owned(), id.replace('u', "e")))
                    .collect(),
                group: BTreeSet::new(),
            };
            let known = world.invites.iter().chain(world.users.values());
            let known = known.enumerate().filter(|(at, _)| members & 1 << at != 0);
            world.group = known.map(|(_, email)| email.clone()).collect();
            world
        })
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let names = ["a", "b", "c", "d", "A", "e1", "e2", "bad"];
    let people = prop::collection::vec(prop::sample::select(names.to_vec()), 1..=3);
    let ids = prop::collection::vec(prop::sample::select(vec!["u1", "u2", "u3", "bad"]), 1..=2);
    // Few kinds in one case, so that there is much to merge.
    let kinds = vec![
        Kind::Invite,
        Kind::Uninvite,
        Kind::DeleteUsers,
        Kind::Join,
        Kind::Leave,
    ];
    let kinds = prop::sample::subsequence(kinds, 1..=2);
    let wish = (any::<prop::sample::Index>(), people, ids, 0..3_usize);
    (kinds, prop::collection::vec(wish, 1..=6)).prop_map(|(kinds, wishes)| {
        let wish =
            |(kind, people, ids, spelling): (prop::sample::Index, Vec<&str>, Vec<&str>, _)| {
                let kind = kinds[kind.index(kinds.len())];
                let elements = if kind == Kind::DeleteUsers {
                    ids
                } else {
                    people
                };
                let elements = elements.into_iter().map(str::to_owned).collect();
                Wish {
                    kind,
                    elements,
                    spelling,
                }
            };
        wishes.into_iter().map(wish).collect()
    })
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let choices = prop::collection::vec(any::<u8>(), 0..60);
    let conditions = |(at_once, choices)| Conditions { at_once, choices };
    (0..=6_usize, choices).prop_map(conditions)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn merged_writes_come_to_what_some_order_of_them_allows(
        begin in worlds(),
        wishes in wishes(),
        conditions in conditions(),
    ) {
        let mut driver = Driver::new(begin.clone(), conditions);
        driver.run(&wishes);
        let found = Search::new(&driver.writes, &driver.world).exists(&begin);
        prop_assert!(found, "{:?}\n{:#?}", driver.world, driver.writes);
    }
}
