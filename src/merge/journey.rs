//! Pure. The way of a union: what is sent next, until each of its members has an outcome.
//!
//! A journey is a queue of legs. The first leg is the union; a refused leg is replaced by others, as
//! the route table says for its operation ([`Refused`](crate::route::Refused)):
//!
//! - `Nothing` took effect: its two halves, sent anew; a single one's refusal is its answer.
//! - `Repeatable`: its two halves as well, of which parts may have been carried out; see [`Doubt`].
//! - `Shown`: a [`Search`] for its elements. What is found counts as done, and the rest is sent
//!   again, in halves if nothing was found.
//!
//! So no element of a POST is sent while it is possible that it took effect, and no member hears of
//! a refusal because of another. Each refusal leaves fewer elements together than before: n members
//! take at most 2n dispatches, besides those that repeat a list element by element.
//!
//! What the legs have in common is decided here; that they are sent, retried after a 429, and that
//! the members keep their places in the lanes meanwhile, is up to the caller.

use super::doubt::Doubt;
use super::parts::{Element, Parts};
use super::read_back::{self, Search};
use crate::route::{MergePolicy, Operation, ReadBack};
use bytes::Bytes;
use http::{Request, Response};
use std::collections::VecDeque;
use std::sync::Arc;

mod came;

/// One of the writes that travel together.
#[derive(Clone, Debug)]
pub struct Member {
    /// As it would go upstream by itself.
    pub request: Request<Bytes>,
    /// Its parts.
    pub parts: Parts,
}

/// What has to be done next.
#[derive(Debug)]
pub enum Step {
    /// Send a write. It stands for these members, counted from 0.
    Send(Request<Bytes>, Vec<usize>),
    /// Ask the API itself, not a cache, with this operation.
    Read(Request<Bytes>, Arc<str>),
}

/// What came of a step.
#[derive(Debug)]
pub enum Came {
    /// A final answer, read to its end.
    Answer(Response<Bytes>),
    /// No answer came, or none that could be read to its end.
    Unknown,
}

/// What became of a member.
#[derive(Debug)]
pub enum Outcome {
    /// It has been carried out or refused, with this answer.
    Answer(Response<Bytes>),
    /// Nobody knows whether it took effect; with the answer that says so little, if there was one.
    Unknown(Option<Response<Bytes>>),
    /// It did not take effect and has not been sent by itself: it may take its place again.
    Again,
}

/// The way of a union.
#[derive(Debug)]
pub struct Journey {
    template: Box<str>,
    members: Vec<Aboard>,
    ahead: VecDeque<Leg>,
    doubt: Option<Doubt>,
    settled: Vec<(usize, Outcome)>,
}

#[derive(Debug)]
struct Aboard {
    member: Member,
    /// Those of its elements that have not taken effect, by their position.
    left: Vec<usize>,
    settled: bool,
}

#[derive(Debug)]
enum Leg {
    /// Members in their order.
    Write(Vec<usize>),
    /// One element of a member, repeated.
    Element(usize, usize),
    /// What became of members that were refused in this way.
    Search(Vec<usize>, Box<(Search, Response<Bytes>)>),
    /// The answer of members that are done.
    Show(Vec<usize>, ReadBack),
}

impl Journey {
    /// All of `members`, which [`choose`](super::choose) has found to fit, as one dispatch.
    pub fn new(operation: &Operation, members: Vec<Member>) -> Self {
        let aboard = members.into_iter().map(|member| Aboard {
            left: (0..member.parts.elements.len()).collect(),
            member,
            settled: false,
        });
        let members: Vec<_> = aboard.collect();
        let each = 0..members.len();
        let mut journey = Self {
            template: operation.template.clone(),
            members,
            ahead: VecDeque::new(),
            doubt: None,
            settled: Vec::new(),
        };
        let union = Leg::Write(each.clone().collect());
        // What cannot be written as one, because it is longer than a target can be, goes one by one.
        if journey.request(&union).is_some() {
            journey.ahead.push_back(union);
        } else {
            journey.ahead.extend(each.map(|at| Leg::Write(vec![at])));
        }
        journey
    }

    /// What has to be done next; `None` when every member has its outcome. Asked again before
    /// anything [`came`](Self::came), it says the same.
    pub fn step(&self) -> Option<Step> {
        let leg = self.ahead.front()?;
        // A write that is a part of another can be written where that could; a read that cannot be
        // asks for nothing that would be found.
        let request = self.request(leg).unwrap_or_default();
        Some(match leg {
            Leg::Write(group) => Step::Send(request, group.clone()),
            Leg::Element(member, _) => Step::Send(request, vec![*member]),
            Leg::Search(_, search) => {
                let operation = search.0.next().map(|(list, _)| list.operation.clone());
                Step::Read(request, operation.unwrap_or_else(|| "".into()))
            }
            Leg::Show(_, read) => Step::Read(request, read.operation.clone()),
        })
    }

    /// What came of the step. A 429 that can be waited out and a request that never left are not
    /// told: the step is taken once more.
    pub fn came(&mut self, came: Came) {
        let answer = match came {
            Came::Answer(answer) => Some(answer),
            Came::Unknown => None,
        };
        match self.ahead.pop_front() {
            Some(Leg::Write(group)) => self.written(group, answer),
            Some(Leg::Element(member, element)) => self.repeated(member, element, answer),
            Some(Leg::Search(group, search)) => self.searched(group, search, answer),
            Some(Leg::Show(group, _)) => self.shown(&group, answer),
            None => {}
        }
    }

    /// Members whose outcome has become known, counted from 0. Each is told once.
    pub fn settled(&mut self) -> Vec<(usize, Outcome)> {
        std::mem::take(&mut self.settled)
    }

    fn policy(&self) -> Option<&Arc<MergePolicy>> {
        self.members.first().map(|first| &first.member.parts.merge)
    }

    fn request(&self, leg: &Leg) -> Option<Request<Bytes>> {
        match leg {
            Leg::Write(group) => {
                let first = self.members.get(*group.first()?)?;
                if group.len() == 1 && first.is_whole() {
                    return Some(first.member.request.clone());
                }
                let members = group.iter().filter_map(|at| self.members.get(*at));
                let elements = members.flat_map(Aboard::elements_left);
                first.member.parts.request(&first.member.request, elements)
            }
            Leg::Element(member, element) => {
                let Member { request, parts } = &self.members.get(*member)?.member;
                let one = parts.request(request, parts.elements.get(*element));
                Some(one.unwrap_or_else(|| request.clone()))
            }
            Leg::Search(group, search) => {
                let (list, query) = search.0.next()?;
                self.read(group, list, &query)
            }
            Leg::Show(group, read) => self.read(group, read, ""),
        }
    }

    fn read(&self, group: &[usize], read: &ReadBack, query: &str) -> Option<Request<Bytes>> {
        let Member { request, parts } = &self.members.get(*group.first()?)?.member;
        read_back::request(read, query, request, (&self.template, parts))
    }
}

impl Aboard {
    /// Whether nothing of it is known to have taken effect, so that it can go as it came.
    fn is_whole(&self) -> bool {
        self.left.len() == self.member.parts.elements.len()
    }

    fn elements_left(&self) -> impl Iterator<Item = &Element> {
        let elements = &self.member.parts.elements;
        self.left.iter().filter_map(|at| elements.get(*at))
    }
}
