//! Pure. Any few writes, merged and divided, come to something that some order of the unmerged
//! writes allows.

use super::model::{Kind, Mode, World};
use super::*;
use crate::clock::Clock;
use crate::queue::lanes::{Keys, Lanes, Turn};
use crate::route;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a caller asks for.
#[derive(Clone, Debug)]
struct Wish {
    kind: Kind,
    /// As they are written.
    elements: Vec<String>,
    /// Which of the documented spellings.
    spelling: usize,
}

impl Wish {
    fn request(&self) -> Request<Bytes> {
        let path = match self.kind {
            Kind::Invite | Kind::Uninvite => "/invites",
            Kind::DeleteUsers => "/users",
            Kind::Join => "/groups/g/users",
            Kind::Leave => "/group/g/users",
        };
        let list = if self.kind == Kind::DeleteUsers {
            "userIds"
        } else {
            "emails"
        };
        match self.kind {
            Kind::Invite => {
                let invite = |email: &String| json!({ "email": email });
                let invites: Vec<_> = self.elements.iter().map(invite).collect();
                request(
                    &format!("POST {path}"),
                    &json!({ "invites": invites }).to_string(),
                )
            }
            Kind::Join => {
                let body = json!({ "emails": self.elements });
                request(&format!("POST {path}"), &body.to_string())
            }
            _ => {
                let pair = |(at, value): (usize, &String)| match self.spelling {
                    0 => format!("{list}.{at}={value}"),
                    1 => format!("{list}%5B{at}%5D={value}"),
                    _ => format!("{list}={value}"),
                };
                let pairs: Vec<_> = self.elements.iter().enumerate().map(pair).collect();
                request(&format!("DELETE {path}?{}", pairs.join("&")), "")
            }
        }
    }

    fn known(&self) -> Vec<String> {
        self.elements
            .iter()
            .map(|text| text.to_lowercase())
            .collect()
    }

    fn keys(&self) -> Keys {
        let request = self.request();
        let found = TABLE.find(request.method(), request.uri().path());
        let body = route::Body::new(request.body());
        let order = &found.operation.order;
        let names = route::expand(order, &found.params, request.uri().query(), &body).unwrap();
        let barriers = found.operation.barrier.iter();
        Keys {
            keys: names.into_iter().map(Arc::from).collect(),
            barriers: barriers.map(|class| Arc::from(&**class)).collect(),
        }
    }
}

/// What a caller heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Success(u16, Value),
    Refused,
    Unknown,
}

impl Heard {
    fn of(answer: &Response<Bytes>) -> Self {
        let status = answer.status();
        if status.is_client_error() {
            return Self::Refused;
        }
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        Self::Success(status.as_u16(), body["data"].clone())
    }
}

/// One write, from its acceptance to its answer.
#[derive(Clone, Debug)]
struct Write {
    wish: Wish,
    accepted: usize,
    heard: Option<(usize, Heard)>,
    /// It was refused together with others, and a part of it may have taken effect then.
    doubtful: bool,
    /// Those who travelled with it when it was sent back into its lanes: they ran at the same time,
    /// so it may come after them as well.
    parted: Vec<Turn>,
}

/// What the API and the network are like.
#[derive(Clone, Debug)]
struct Conditions {
    mode: Mode,
    /// The route table says that lists are applied as a whole.
    atomic: bool,
    /// Writes that are accepted before anything else happens.
    at_once: usize,
    /// What happens next, of that which can happen.
    choices: Vec<u8>,
}

enum Way {
    Merged(Box<Journey>),
    Alone,
}

/// A dispatch that has left.
struct Travel {
    way: Way,
    turns: Vec<Turn>,
}

/// A gateway without clock and network.
struct Driver {
    conditions: Conditions,
    step: usize,
    world: World,
    lanes: Lanes,
    writes: Vec<Write>,
    waiting: BTreeSet<Turn>,
    under_way: Vec<Travel>,
}

impl Driver {
    fn new(world: World, conditions: Conditions) -> Self {
        Self {
            conditions,
            step: 0,
            world,
            lanes: Lanes::default(),
            writes: Vec::new(),
            waiting: BTreeSet::new(),
            under_way: Vec::new(),
        }
    }

    fn choice(&mut self) -> usize {
        let choice = self.conditions.choices.get(self.step).copied().unwrap_or(0);
        self.step += 1;
        choice.into()
    }

    fn run(&mut self, wishes: &[Wish]) {
        let now = Clock::system().now();
        let mut coming = wishes.iter();
        loop {
            let ready = self.waiting.iter().copied();
            let none = BTreeSet::new();
            let ready: Vec<_> = ready
                .filter(|turn| self.lanes.follows(*turn, &none))
                .collect();
            let more = usize::from(coming.len() > 0);
            let total = more + ready.len() + self.under_way.len();
            if total == 0 {
                assert!(self.waiting.is_empty(), "nobody is left behind");
                return;
            }
            let arrives = self.writes.len() < self.conditions.at_once && more == 1;
            let chosen = if arrives { 0 } else { self.choice() % total };
            if chosen < more {
                let wish = coming.next().unwrap().clone();
                let turn = self.writes.len() as Turn;
                self.lanes.enter(turn, wish.keys(), now, 0);
                self.waiting.insert(turn);
                let accepted = self.step;
                self.writes.push(Write {
                    wish,
                    accepted,
                    heard: None,
                    doubtful: false,
                    parted: Vec::new(),
                });
                self.step += 1;
            } else if chosen < more + ready.len() {
                self.leave(ready[chosen - more]);
            } else {
                self.advance(chosen - more - ready.len());
            }
        }
    }

    fn member(&self, turn: Turn) -> Option<Member> {
        let request = self.writes[turn as usize].wish.request();
        let parts = Parts::of(&operation(&request, self.conditions.atomic), &request)?;
        Some(Member { request, parts })
    }

    fn leave(&mut self, first: Turn) {
        let waiting: Vec<(Turn, Member)> = self
            .waiting
            .iter()
            .filter_map(|turn| Some((*turn, self.member(*turn)?)))
            .collect();
        let parts = waiting.iter().map(|(turn, member)| (*turn, &member.parts));
        let own = waiting.iter().find(|(turn, _)| *turn == first);
        let Some((_, own)) = own else {
            self.waiting.remove(&first);
            self.under_way.push(Travel {
                way: Way::Alone,
                turns: vec![first],
            });
            return;
        };
        let follows = |turn, among: &BTreeSet<Turn>| self.lanes.follows(turn, among);
        let turns = choose((first, &own.parts), parts, Bounds::default(), follows);
        let members = turns
            .iter()
            .map(|turn| self.member(*turn).unwrap())
            .collect();
        for turn in &turns {
            self.waiting.remove(turn);
        }
        let operation = operation(&own.request, self.conditions.atomic);
        let journey = Box::new(Journey::new(&operation, members));
        self.under_way.push(Travel {
            way: Way::Merged(journey),
            turns,
        });
    }

    /// Takes one step of a dispatch. Now and then there is no answer, with or without effect.
    fn advance(&mut self, at: usize) {
        let luck = self.choice();
        let mut travel = self.under_way.remove(at);
        let Way::Merged(journey) = &mut travel.way else {
            let turn = travel.turns[0];
            let request = self.writes[turn as usize].wish.request();
            let heard = Heard::of(&self.world.answer(&request, self.conditions.mode));
            return self.settle(turn, Some(heard));
        };
        // Nothing happens between two pages; what could is a test of its own.
        let mut is_page = true;
        while is_page {
            let came = Self::come(&mut self.world, &self.conditions, luck, journey);
            if let (Some(Step::Send(_, members)), Came::Answer(answer)) = (journey.step(), &came)
                && answer.status().is_client_error()
                && members.len() > 1
            {
                for member in members {
                    self.writes[travel.turns[member] as usize].doubtful = !self.conditions.atomic;
                }
            }
            journey.came(came);
            is_page = matches!(
                journey.step(),
                Some(Step::Read(request, _)) if request.uri().to_string().contains("cursor")
            );
        }
        for (member, outcome) in journey.settled() {
            let heard = match outcome {
                Outcome::Answer(answer) => Some(Heard::of(&answer)),
                Outcome::Unknown(_) => Some(Heard::Unknown),
                Outcome::Again => {
                    let write = &mut self.writes[travel.turns[member] as usize];
                    write.parted.extend(&travel.turns);
                    None
                }
            };
            self.settle(travel.turns[member], heard);
        }
        if matches!(&travel.way, Way::Merged(journey) if journey.step().is_some()) {
            self.under_way.push(travel);
        }
    }

    /// What comes of the next step.
    fn come(world: &mut World, like: &Conditions, luck: usize, journey: &Journey) -> Came {
        let (Step::Send(request, _) | Step::Read(request, _)) = journey.step().unwrap();
        if (250..253).contains(&luck) {
            return Came::Unknown;
        }
        let answer = world.answer(&request, like.mode);
        if luck < 250 {
            Came::Answer(answer)
        } else {
            Came::Unknown
        }
    }

    fn settle(&mut self, turn: Turn, heard: Option<Heard>) {
        let Some(heard) = heard else {
            self.writes[turn as usize].doubtful = false;
            assert!(self.waiting.insert(turn));
            return;
        };
        let write = &mut self.writes[turn as usize];
        assert!(write.heard.is_none(), "answered twice");
        write.heard = Some((self.step, heard));
        self.lanes.settle(turn);
    }
}

/// A search for an order of the unmerged writes that comes to the same.
struct Search<'w> {
    writes: &'w [Write],
    /// For each write those that must come before it.
    before: Vec<Vec<usize>>,
    mode: Mode,
    end: &'w World,
}

impl<'w> Search<'w> {
    fn new(writes: &'w [Write], mode: Mode, end: &'w World) -> Self {
        let keys: Vec<_> = writes.iter().map(|write| write.wish.keys()).collect();
        let class = |keys: &Keys| {
            let names = keys.keys.iter();
            let classes = names.map(|name| Arc::from(name.split(':').next().unwrap()));
            classes.collect::<BTreeSet<Arc<str>>>()
        };
        let conflict = |a: &Keys, b: &Keys| {
            !a.keys.is_disjoint(&b.keys)
                || !a.barriers.is_disjoint(&class(b))
                || !b.barriers.is_disjoint(&class(a))
        };
        let must = |a: usize, b: usize| {
            let heard = writes[a].heard.as_ref().unwrap().0;
            let parted = writes[a].parted.contains(&(b as Turn));
            heard <= writes[b].accepted || (a < b && !parted && conflict(&keys[a], &keys[b]))
        };
        let all = 0..writes.len();
        let before = all
            .clone()
            .map(|b| all.clone().filter(|a| *a != b && must(*a, b)).collect());
        Self {
            writes,
            before: before.collect(),
            mode,
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
        let prefix = |end: usize| {
            let mut world = world.clone();
            let _ = world.apply(kind, &elements[..end], Mode::Partly, true);
            world
        };
        let prefixes = || (0..=elements.len()).map(prefix);
        let heard = &write.heard.as_ref().unwrap().1;
        if *heard == Heard::Unknown {
            return prefixes().map(|world| Possible::new(world, None)).collect();
        }
        let mut ways = vec![(self.mode, false)];
        if write.doubtful {
            // What was so already counts as done, whoever did it; and to find out, the list may
            // have been repeated element by element.
            ways.extend([
                (self.mode, true),
                (Mode::Partly, false),
                (Mode::Partly, true),
            ]);
        }
        let result = |(mode, lenient)| {
            let mut world = world.clone();
            let result = if BTreeSet::from_iter(&elements).len() < elements.len() {
                Err(422)
            } else {
                world.apply(kind, &elements, mode, lenient)
            };
            let mut possible = match (heard, result) {
                (Heard::Refused, Err(_)) => Possible::new(world, None),
                (Heard::Success(status, data), Ok(())) => {
                    let (own, own_data) = world.success(kind, &write.wish.elements);
                    let group = kind == Kind::Join;
                    let same = *status == own && (group || *data == own_data);
                    Possible::new(world, group.then(|| data.clone())).filter(same)?
                }
                _ => return None,
            };
            if write.doubtful {
                // Others may see what it does between two of its elements.
                possible.seen.extend(prefixes().map(|world| world.group()));
            }
            Some(possible)
        };
        ways.into_iter().filter_map(result).collect()
    }
}

/// What a write may have come to.
struct Possible {
    world: World,
    /// Its answer, if that is the state of the group.
    group: Option<Value>,
    /// The states of the group that others may see from now on, until the next write.
    seen: Vec<Value>,
}

impl Possible {
    fn new(world: World, group: Option<Value>) -> Self {
        let seen = vec![world.group()];
        Self { world, group, seen }
    }

    fn filter(self, holds: bool) -> Option<Self> {
        holds.then_some(self)
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
    (any::<bool>(), any::<bool>(), 0..=6_usize, choices).prop_map(
        |(whole, atomic, at_once, choices)| {
            let mode = if whole { Mode::Whole } else { Mode::Partly };
            Conditions {
                mode,
                atomic: atomic && whole,
                at_once,
                choices,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn merged_writes_come_to_what_some_order_of_them_allows(
        begin in worlds(),
        wishes in wishes(),
        conditions in conditions(),
    ) {
        let mode = conditions.mode;
        let mut driver = Driver::new(begin.clone(), conditions);
        driver.run(&wishes);
        let found = Search::new(&driver.writes, mode, &driver.world).exists(&begin);
        prop_assert!(found, "{:?}\n{:#?}", driver.world, driver.writes);
    }
}
