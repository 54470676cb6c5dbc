//! Pure. A gateway without clock and network: a loop that accepts, chooses, sends and settles.

use super::model::{Kind, Mode, World};
use super::*;
use crate::clock::Clock;
use crate::queue::lanes::{Keys, Lanes, Turn};
use crate::route;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) kind: Kind,
    /// As they are written.
    pub(super) elements: Vec<String>,
    /// Which of the documented spellings.
    pub(super) spelling: usize,
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

    pub(super) fn known(&self) -> Vec<String> {
        self.elements
            .iter()
            .map(|text| text.to_lowercase())
            .collect()
    }

    pub(super) fn keys(&self) -> Keys {
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
pub(super) enum Heard {
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
pub(super) struct Write {
    pub(super) wish: Wish,
    pub(super) accepted: usize,
    pub(super) heard: Option<(usize, Heard)>,
    /// It was refused together with others, and a part of it may have taken effect then.
    pub(super) doubtful: bool,
    /// Those who travelled with it when it was sent back into its lanes: they ran at the same time,
    /// so it may come after them as well.
    pub(super) parted: Vec<Turn>,
}

/// What the API and the network are like.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    pub(super) mode: Mode,
    /// The route table says that lists are applied as a whole.
    pub(super) atomic: bool,
    /// Writes that are accepted before anything else happens.
    pub(super) at_once: usize,
    /// What happens next, of that which can happen.
    pub(super) choices: Vec<u8>,
}

enum Way {
    Merged(Box<Journey>),
    Alone,
}

/// A dispatch that has left.
struct Travel {
    way: Way,
    turns: Vec<Turn>,
    /// Elements that it has put into effect by a POST.
    effected: BTreeSet<String>,
}

/// A gateway without clock and network.
pub(super) struct Driver {
    conditions: Conditions,
    step: usize,
    pub(super) world: World,
    lanes: Lanes,
    pub(super) writes: Vec<Write>,
    waiting: BTreeSet<Turn>,
    under_way: Vec<Travel>,
}

impl Driver {
    pub(super) fn new(world: World, conditions: Conditions) -> Self {
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

    pub(super) fn run(&mut self, wishes: &[Wish]) {
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
                effected: BTreeSet::new(),
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
            effected: BTreeSet::new(),
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
            let before = self.world.clone();
            let came = Self::come(&mut self.world, &self.conditions, luck, journey);
            if let Some(Step::Send(request, _)) = journey.step() {
                let body = String::from_utf8_lossy(request.body()).to_lowercase();
                let again = |element: &&String| body.contains(&format!("\"{element}\""));
                assert_eq!(travel.effected.iter().find(again), None, "sent once more");
                let (invites, group) = (&self.world.invites, &self.world.group);
                let new = invites.difference(&before.invites);
                let new = new.chain(group.difference(&before.group));
                travel.effected.extend(new.cloned());
            }
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
        if (240..248).contains(&luck) {
            return Came::Unknown;
        }
        let answer = world.answer(&request, like.mode);
        if luck < 240 {
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
