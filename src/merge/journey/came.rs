//! Pure. What follows from what came of a leg.

use super::{Aboard, Journey, Leg, Outcome};
use crate::merge::answer;
use crate::merge::doubt::{Doubt, NotFound, Refusal};
use crate::merge::read_back::{Found, Search};
use crate::route::{Answers, Refused};
use bytes::Bytes;
use http::{Response, StatusCode};

/// Whether the refusal is about the caller or the moment and not about what is asked for: to divide
/// the union would change nothing.
fn concerns_all(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
    )
}

impl Journey {
    /// What came of a write for these members.
    pub(super) fn written(&mut self, group: Vec<usize>, answer: Option<Response<Bytes>>) {
        let Some(answer) = answer else {
            return self.lost(&group, None);
        };
        let status = answer.status();
        if status.is_server_error() {
            self.lost(&group, Some(&answer));
        } else if status.is_success() {
            let before = self.doubt.take().and_then(|mut doubt| doubt.wrong());
            self.known(before);
            let alone = group.len() == 1;
            self.settle(&group, |aboard| {
                Outcome::Answer(aboard.answer(&answer, alone))
            });
        } else if concerns_all(status) || !status.is_client_error() {
            self.turned_away(&group, &answer);
        } else if let [member] = group[..] {
            self.refused((member, answer));
        } else {
            self.divide(group, answer);
        }
    }

    /// What came of repeating one element of a member that was not found before.
    pub(super) fn repeated(
        &mut self,
        member: usize,
        element: usize,
        answer: Option<Response<Bytes>>,
    ) {
        let Some(answer) = answer else {
            return self.lost(&[member], None);
        };
        let status = answer.status();
        let outcome = if status.is_success() || status == StatusCode::NOT_FOUND {
            let Some(aboard) = self.members.get_mut(member) else {
                return;
            };
            aboard.left.retain(|left| *left != element);
            if !aboard.left.is_empty() {
                return;
            }
            Outcome::Answer(answer::done(&answer, &aboard.member.parts))
        } else if status.is_server_error() {
            return self.lost(&[member], Some(&answer));
        } else if concerns_all(status) {
            Outcome::Unknown(Some(answer))
        } else {
            Outcome::Answer(answer)
        };
        let others = |leg: &Leg| !matches!(leg, Leg::Element(at, _) if *at == member);
        self.ahead.retain(others);
        self.settle_one(member, outcome);
    }

    /// A page of a search, or that it could not be had.
    pub(super) fn searched(
        &mut self,
        group: Vec<usize>,
        mut search: Box<(Search, Response<Bytes>)>,
        page: Option<Response<Bytes>>,
    ) {
        let found = search.0.read(page.as_ref());
        if found == Found::NotYet {
            return self.ahead.push_front(Leg::Search(group, search));
        }
        let (search, refusal) = *search;
        let mut found_any = false;
        for at in &group {
            let Some(aboard) = self.members.get_mut(*at) else {
                continue;
            };
            let elements = &aboard.member.parts.elements;
            let before = aboard.left.len();
            aboard
                .left
                .retain(|at| elements.get(*at).is_some_and(|e| search.misses(e)));
            found_any |= aboard.left.len() < before;
        }
        let is_done = |at: &usize| self.members.get(*at).is_none_or(|a| a.left.is_empty());
        let (done, rest): (Vec<_>, Vec<_>) = group.into_iter().partition(is_done);
        if found == Found::Interrupted {
            self.settle(&rest, |_| Outcome::Unknown(None));
        } else if found_any {
            self.push(rest);
        } else {
            self.halve(rest);
        }
        self.done(done, &refusal);
    }

    /// The answer of members that are done.
    pub(super) fn shown(&mut self, group: &[usize], answer: Option<Response<Bytes>>) {
        let shown = answer.filter(|answer| answer.status().is_success());
        self.settle(group, |_| match &shown {
            Some(shown) => Outcome::Answer(shown.clone()),
            None => Outcome::Unknown(None),
        });
    }

    /// The refusal of a member by itself.
    fn refused(&mut self, (member, answer): Refusal) {
        let doubt = self.doubt.take().filter(|doubt| doubt.concerns(member));
        let Some(mut doubt) = doubt else {
            return self.settle_one(member, Outcome::Answer(answer));
        };
        if answer.status() != StatusCode::NOT_FOUND {
            self.known(doubt.done());
            return self.settle_one(member, Outcome::Answer(answer));
        }
        self.known(doubt.not_found((member, answer)));
        if doubt.ends_with(member) {
            self.known(doubt.wrong());
        } else {
            self.doubt = Some(doubt);
        }
    }

    /// The refusal of a union.
    fn divide(&mut self, group: Vec<usize>, refusal: Response<Bytes>) {
        let Some(merge) = self.policy().cloned() else {
            return;
        };
        match &merge.refused {
            Refused::Nothing => self.halve(group),
            Refused::Repeatable => {
                let end = group.last().map_or(0, |last| last + 1);
                self.doubt.get_or_insert_with(|| Doubt::new(end));
                self.halve(group);
            }
            Refused::Shown(lists) if lists.is_empty() => {
                self.settle(&group, |_| Outcome::Unknown(Some(refusal.clone())));
            }
            Refused::Shown(lists) => {
                let members = group.iter().filter_map(|at| self.members.get(*at));
                let elements = members.flat_map(Aboard::elements_left);
                let names = elements.map(|element| element.name.clone());
                let search = Search::new(merge.clone(), lists, names);
                let search = Box::new((search, refusal));
                self.ahead.push_front(Leg::Search(group, search));
            }
        }
    }

    /// An answer that would be the same whatever was asked for.
    fn turned_away(&mut self, group: &[usize], answer: &Response<Bytes>) {
        let Some(mut doubt) = self.doubt.take() else {
            return self.settle(group, |_| Outcome::Answer(answer.clone()));
        };
        self.settle(group, |_| Outcome::Unknown(Some(answer.clone())));
        self.known(doubt.done());
        if !group.last().is_some_and(|last| doubt.ends_with(*last)) {
            self.doubt = Some(doubt);
        }
    }

    /// A write without an answer that says what it did. No other write must follow it, since its
    /// lanes may be closed now.
    fn lost(&mut self, group: &[usize], answer: Option<&Response<Bytes>>) {
        self.settle(group, |_| Outcome::Unknown(answer.cloned()));
        let mut doubt = self.doubt.take();
        self.known(doubt.as_mut().and_then(Doubt::done));
        let concerned = |at: usize| doubt.as_ref().is_some_and(|doubt| doubt.concerns(at));
        for leg in std::mem::take(&mut self.ahead) {
            match leg {
                Leg::Write(group) => self.settle_each(&group, |at, aboard| {
                    if aboard.is_whole() && !concerned(at) {
                        Outcome::Again
                    } else {
                        Outcome::Unknown(None)
                    }
                }),
                Leg::Element(member, _) => self.settle_one(member, Outcome::Unknown(None)),
                Leg::Search(group, _) => self.settle(&group, |_| Outcome::Unknown(None)),
                show @ Leg::Show(..) => self.ahead.push_back(show),
            }
        }
    }

    /// What has become known of a member that was not found when it was repeated.
    fn known(&mut self, member: Option<NotFound>) {
        match member {
            None => {}
            Some(NotFound::Wrong((member, refusal))) => {
                self.settle_one(member, Outcome::Answer(refusal));
            }
            Some(NotFound::Done((member, refusal))) => {
                let Some(aboard) = self.members.get(member) else {
                    return;
                };
                if aboard.left.len() == 1 {
                    let answer = answer::done(&refusal, &aboard.member.parts);
                    return self.settle_one(member, Outcome::Answer(answer));
                }
                // One of its elements was not found, and nothing is known of the others.
                for element in aboard.left.iter().rev() {
                    self.ahead.push_front(Leg::Element(member, *element));
                }
            }
        }
    }

    /// Answers members whose elements have all been found: with the state when all of the union
    /// have come to an end, since some of them were accepted before these.
    fn done(&mut self, group: Vec<usize>, refusal: &Response<Bytes>) {
        match self.policy().map(|merge| merge.answers.clone()) {
            Some(Answers::State(read)) => match self.ahead.back_mut() {
                Some(Leg::Show(others, _)) => others.extend(group),
                _ if group.is_empty() => {}
                _ => self.ahead.push_back(Leg::Show(group, read)),
            },
            _ => self.settle(&group, |aboard| {
                Outcome::Answer(answer::done(refusal, &aboard.member.parts))
            }),
        }
    }

    fn halve(&mut self, mut group: Vec<usize>) {
        let second = group.split_off(group.len() / 2);
        self.push(second);
        self.push(group);
    }

    fn push(&mut self, group: Vec<usize>) {
        if !group.is_empty() {
            self.ahead.push_front(Leg::Write(group));
        }
    }

    fn settle(&mut self, group: &[usize], outcome: impl Fn(&Aboard) -> Outcome) {
        self.settle_each(group, |_, aboard| outcome(aboard));
    }

    fn settle_each(&mut self, group: &[usize], outcome: impl Fn(usize, &Aboard) -> Outcome) {
        for at in group {
            if let Some(aboard) = self.members.get(*at) {
                let outcome = outcome(*at, aboard);
                self.settle_one(*at, outcome);
            }
        }
    }

    fn settle_one(&mut self, member: usize, outcome: Outcome) {
        let aboard = self.members.get_mut(member).filter(|a| !a.settled);
        if let Some(aboard) = aboard {
            aboard.settled = true;
            self.settled.push((member, outcome));
        }
    }
}

impl Aboard {
    /// Its answer, from that to a write for it and others, or for it `alone`.
    fn answer(&self, answer: &Response<Bytes>, alone: bool) -> Response<Bytes> {
        let parts = &self.member.parts;
        match &parts.merge.answers {
            // It is for what was left of the elements; the others are done as well.
            Answers::Echo(_) if !self.is_whole() => answer::done(answer, parts),
            _ if alone => answer.clone(),
            _ => answer::share(answer, parts),
        }
    }
}
