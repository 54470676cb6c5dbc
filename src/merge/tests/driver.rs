//! Pure. A gateway without clock and network: a loop that accepts, chooses, sends and settles.

use super::model::{Kind, World};
use super::*;
use crate::clock::Clock;
use crate::credential::Hasher;
use crate::lanes::{Keys, LaneOrder, Turn};
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
        let body = route::JsonBody::new(request.body());
        let order = &found.operation.order;
        let names = route::expand(order, &found.params, request.uri().query(), &body).unwrap();
        let barriers = found.operation.barrier.iter();
        let names = names.iter().map(String::as_str);
        Keys::new(
            &Hasher::new(&[0; 32]),
            names,
            barriers.map(|class| &**class),
        )
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
    batching: Batching,
}

/// What the network is like.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    /// Writes that are accepted before anything else happens.
    pub(super) at_once: usize,
    /// What happens next, of that which can happen.
    pub(super) choices: Vec<u8>,
}

/// A gateway without clock and network.
pub(super) struct Driver {
    conditions: Conditions,
    step: usize,
    pub(super) world: World,
    lanes: LaneOrder,
    debt: Debt,
    pub(super) writes: Vec<Write>,
    waiting: BTreeSet<Turn>,
    /// Dispatches that have left, with the writes that they stand for.
    under_way: Vec<Vec<Turn>>,
}

impl Driver {
    pub(super) fn new(world: World, conditions: Conditions) -> Self {
        Self {
            conditions,
            step: 0,
            world,
            lanes: LaneOrder::default(),
            debt: Debt::default(),
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
                    batching: Batching::default(),
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
        let parts = parts(&request)?;
        Some(Member { request, parts })
    }

    fn leave(&mut self, first: Turn) {
        let like = self.writes[first as usize].batching;
        let alike = |turn: &&Turn| self.writes[**turn as usize].batching == like;
        let waiting: Vec<(Turn, Member)> = self
            .waiting
            .iter()
            .filter(alike)
            .filter_map(|turn| Some((*turn, self.member(*turn)?)))
            .collect();
        let parts = waiting.iter().map(|(turn, member)| (*turn, &member.parts));
        let own = waiting.iter().find(|(turn, _)| *turn == first);
        let turns = match own {
            None => vec![first],
            Some((_, own)) => {
                let follows = |turn, among: &BTreeSet<Turn>| self.lanes.follows(turn, among);
                let bounds = Bounds {
                    batching: self.debt.limit(like),
                    ..Bounds::default()
                };
                choose((first, &own.parts), parts, bounds, follows)
            }
        };
        for turn in &turns {
            self.waiting.remove(turn);
        }
        self.under_way.push(turns);
    }

    /// Ends a dispatch. Now and then there is no answer, with or without effect.
    fn advance(&mut self, at: usize) {
        let luck = self.choice();
        let turns = self.under_way.remove(at);
        let [turn] = turns[..] else {
            return self.end_batch(&turns, luck);
        };
        let request = self.writes[turn as usize].wish.request();
        let heard = Heard::of(&self.world.answer(&request));
        self.debt.carried_out(1);
        self.settle(turn, heard);
    }

    fn end_batch(&mut self, turns: &[Turn], luck: usize) {
        let members: Vec<_> = turns.iter().map(|at| self.member(*at).unwrap()).collect();
        let parts: Vec<_> = members.iter().map(|member| &member.parts).collect();
        let request = union(&members[0].request, &parts).unwrap();
        let answer = match luck {
            240..248 => None,
            248.. => {
                drop(self.world.answer(&request));
                None
            }
            _ => Some(self.world.answer(&request)),
        };
        let outcomes = outcomes(answer.as_ref(), &parts);
        match outcomes[0] {
            MemberOutcome::Refused => self.debt.refused(),
            _ => self.debt.carried_out(turns.len()),
        }
        for (turn, outcome) in turns.iter().zip(outcomes) {
            match outcome {
                MemberOutcome::Answer(answer) => self.settle(*turn, Heard::of(&answer)),
                MemberOutcome::Unknown(_) => self.settle(*turn, Heard::Unknown),
                MemberOutcome::Unattributed => panic!("the model's answers can be attributed"),
                MemberOutcome::Refused => {
                    let write = &mut self.writes[*turn as usize];
                    write.batching = write.batching.divided(turns.len());
                    assert!(self.waiting.insert(*turn));
                }
            }
        }
    }

    fn settle(&mut self, turn: Turn, heard: Heard) {
        let write = &mut self.writes[turn as usize];
        assert!(write.heard.is_none(), "answered twice");
        write.heard = Some((self.step, heard));
        self.lanes.settle(turn);
    }
}
