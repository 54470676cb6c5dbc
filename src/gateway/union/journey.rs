//! Carrying a union through: one slot for each dispatch, the journal before it, and each member told
//! as soon as its own outcome is known.

use super::super::Gateway;
use super::super::attempt::{Answer, Came};
use super::super::body::{self, Read};
use super::super::flow::Ask;
use super::super::write::{Told, Unsettled, touched};
use super::Passenger;
use crate::error::{GatewayError, Waited};
use crate::journal::{Change, JournalError, Record};
use crate::limit::budgets::{Admission, Standing, Wish};
use crate::limit::ticket::Permit;
use crate::merge::{self, Journey, Member, Outcome, Step};
use crate::queue::Place;
use crate::route::policy::Operation;
use crate::upstream::NotSent;
use bytes::Bytes;
use http::{Request, Response};
use std::sync::Arc;
use std::time::Duration;

/// The body of an answer to a union is read up to this size.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// The pause before the journal, or a connection, is tried again.
const PAUSE: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// What became of a write that travelled with others.
#[derive(Debug)]
pub(in crate::gateway) struct Merged {
    pub(in crate::gateway) became: Became,
    /// Its lanes open when this is dropped.
    pub(in crate::gateway) place: Option<Place>,
    pub(in crate::gateway) standing: Option<Standing>,
    /// How long the last dispatch took.
    pub(in crate::gateway) took: Duration,
    /// How many travelled.
    pub(in crate::gateway) members: usize,
}

#[derive(Debug)]
pub(in crate::gateway) enum Became {
    /// The API's answer, as far as it concerns this one.
    Answered(Response<Bytes>),
    /// Nobody knows; with the answer that says so little.
    Unknown(Option<Response<Bytes>>),
    /// It did not take effect.
    Again,
}

/// A member of a union that is under way.
struct Aboard {
    passenger: Passenger,
    /// Once an attempt has left that stands for it.
    unsettled: Option<Unsettled>,
    /// Before that.
    place: Option<Place>,
}

/// What the last attempt came to, for those who are told of it.
#[derive(Default)]
struct Last {
    standing: Option<Standing>,
    took: Duration,
    doubtful: bool,
}

/// What came of trying to send something.
enum Sent {
    Came(merge::Came),
    /// It did not leave.
    Not(NotSent),
    /// It was refused with 429.
    Throttled(Response<Bytes>),
    /// The journal could not be told.
    NotRecorded,
    /// The gateway stops.
    Stopped,
}

struct Union {
    operation: Arc<Operation>,
    crew: Vec<Aboard>,
    journey: Journey,
    last: Last,
    sends: u64,
}

impl Gateway {
    /// Takes everybody to their outcomes.
    pub(super) async fn travel(&self, crew: Vec<Passenger>, permit: Permit) {
        let Some(first) = crew.first() else {
            return;
        };
        let operation = first.ask.operation.clone();
        let members: Vec<Member> = crew
            .iter()
            .map(|passenger| Member {
                request: passenger.request.clone(),
                parts: passenger.parts.clone(),
            })
            .collect();
        let mut union = Union {
            journey: Journey::new(&operation, members),
            operation,
            crew: crew.into_iter().map(Aboard::new).collect(),
            last: Last::default(),
            sends: 0,
        };
        let mut permit = Some(permit);
        while let Some(step) = union.journey.step() {
            let sent = match step {
                Step::Send(request, group) => {
                    self.send(&mut union, request, &group, permit.take()).await
                }
                Step::Read(request, operation) => self.look(&mut union, request, &operation).await,
            };
            match sent {
                Sent::Came(came) => union.journey.came(came),
                Sent::Stopped => return union.give_up(),
                // Nothing has been sent yet: everybody goes back to where it waited.
                not if union.sends == 0 => return union.dissolve(&not),
                _ => tokio::time::sleep(PAUSE).await,
            }
            self.tell(&mut union);
        }
        let name = &union.operation.name;
        self.metrics
            .travelled(name, union.crew.len() as u64, union.sends);
    }

    /// Sends one dispatch, with this permit or one of its own.
    async fn send(
        &self,
        union: &mut Union,
        mut request: Request<Bytes>,
        group: &[usize],
        permit: Option<Permit>,
    ) -> Sent {
        let Some(ask) = union.crew.first().map(|first| first.passenger.ask.clone()) else {
            return Sent::Stopped;
        };
        let permit = match permit {
            Some(permit) => permit,
            None => match self.another_permit(&ask).await {
                Some(permit) => permit,
                None => return Sent::Stopped,
            },
        };
        if !self.record(union, group).await {
            drop(permit);
            return Sent::NotRecorded;
        }
        for at in group {
            if let Some(aboard) = union.crew.get_mut(*at) {
                aboard.leaves(self);
            }
        }
        // The names of the first of those who travel now stand for all of them.
        let first = group.first().and_then(|at| union.crew.get(*at));
        let ids = first.map(|first| first.passenger.ask.ids.clone());
        request.extensions_mut().insert(ids.unwrap_or_default());
        let came = self.attempt(&union.operation, ask.credential, permit, request);
        match came.await {
            Came::Answer(answer) => {
                union.sends += 1;
                union.settle_in_part(group, &answer);
                Sent::Came(union.hear(answer).await)
            }
            Came::Unknown(_) => {
                union.sends += 1;
                union.last = Last {
                    doubtful: true,
                    ..Last::default()
                };
                Sent::Came(merge::Came::Unknown)
            }
            Came::Throttled(response) => Sent::Throttled(response),
            Came::NotSent(why) => Sent::Not(why),
        }
    }

    /// Tells the journal which of its writes leave; false if it cannot keep that.
    async fn record(&self, union: &Union, group: &[usize]) -> bool {
        let now = self.clock.wall();
        let members = group.iter().filter_map(|at| union.crew.get(*at));
        let lives = members.filter_map(|aboard| aboard.passenger.live.as_ref());
        let changes: Vec<Change> = lives.map(|live| Change::Dispatch(live.id, now)).collect();
        if changes.is_empty() {
            return true;
        }
        match self.commit(changes).await {
            Ok(()) => true,
            Err(JournalError::Absent) => {
                self.leave_out_ended(union).await;
                false
            }
            Err(error) => {
                let _ = self.journal_failed(&error);
                false
            }
        }
    }

    /// Nobody is to send what has ended in the journal, or is no longer there.
    async fn leave_out_ended(&self, union: &Union) {
        let members = union.crew.iter();
        for live in members.filter_map(|aboard| aboard.passenger.live.as_ref()) {
            let record = self.durable.journal().get(live.id).await;
            let has_ended = |record: &Option<Record>| {
                record
                    .as_ref()
                    .is_none_or(|record| record.state.has_ended())
            };
            if record.as_ref().is_ok_and(has_ended) {
                self.durable.refuse(live, GatewayError::WriteCancelled);
            }
        }
    }

    pub(in crate::gateway) async fn another_permit(&self, ask: &Ask) -> Option<Permit> {
        let wish = Wish {
            deadline: self.clock.now() + NEVER,
            answer_by: None,
            admission: Admission::Taken,
            ..self.wish(ask)
        };
        loop {
            match self.budgets.join(&wish) {
                Ok(mut ticket) => match ticket.granted().await {
                    Ok(permit) => return Some(permit),
                    Err(_) if self.is_draining() => return None,
                    Err(_) => {}
                },
                Err(_) if self.is_draining() => return None,
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks the API itself what took effect, once it shows that.
    async fn look(&self, union: &mut Union, mut request: Request<Bytes>, operation: &str) -> Sent {
        let table = self.table.get();
        let mut operations = table.operations().iter();
        let operation = operations.find(|known| &*known.name == operation).cloned();
        let first = union.crew.first().map(|first| first.passenger.ask.clone());
        let (Some(operation), Some(ask)) = (operation, first) else {
            return Sent::Came(merge::Came::Unknown);
        };
        let ask = Ask { operation, ..ask };
        tokio::time::sleep(self.settings.get().settling).await;
        let Some(permit) = self.another_permit(&ask).await else {
            return Sent::Stopped;
        };
        request.extensions_mut().insert(ask.ids.clone());
        let came = self.attempt(&ask.operation, ask.credential, permit, request);
        match came.await {
            Came::Answer(answer) => Sent::Came(whole(answer).await.0),
            Came::Unknown(_) => Sent::Came(merge::Came::Unknown),
            Came::Throttled(response) => Sent::Throttled(response),
            Came::NotSent(why) => Sent::Not(why),
        }
    }

    /// Tells those whose outcome is known.
    fn tell(&self, union: &mut Union) {
        let members = union.crew.len();
        for (at, outcome) in union.journey.settled() {
            let Some(aboard) = union.crew.get_mut(at) else {
                continue;
            };
            let (became, place) = aboard.settle(outcome, union.last.doubtful);
            let merged = Merged {
                became,
                place,
                standing: union.last.standing.clone(),
                took: union.last.took,
                members,
            };
            aboard.tell(Told::Merged(Box::new(merged)));
        }
    }
}

impl Union {
    /// Nothing was sent: everybody takes its own place again.
    fn dissolve(self, not: &Sent) {
        for mut aboard in self.crew {
            let Some(place) = aboard.not_carried_out() else {
                continue;
            };
            aboard.tell(match not {
                Sent::Throttled(response) => Told::Again(place, Came::Throttled(response.clone())),
                Sent::Not(why) => Told::Again(place, Came::NotSent(*why)),
                _ => Told::NotRecorded(place),
            });
        }
    }

    /// The gateway stops. Those that outlast it go on in the next process, which decides what may be
    /// sent again; of the others nobody will know.
    fn give_up(self) {
        for mut aboard in self.crew {
            let unsettled = aboard.unsettled.take();
            if aboard.passenger.live.is_none() {
                drop(unsettled);
                aboard.tell(Told::Unknown(Waited::InVain));
                continue;
            }
            let place = unsettled.and_then(Unsettled::in_doubt);
            if let Some(place) = place.or_else(|| aboard.place.take()) {
                aboard.tell(Told::Stopped(place));
            }
        }
    }

    /// One dispatch of a group was answered: what it may have applied of each member is settled, for
    /// a later dispatch may be refused in another way.
    fn settle_in_part(&mut self, group: &[usize], answer: &Answer) {
        let (status, headers) = (answer.response.status(), answer.response.headers());
        for at in group {
            let aboard = self.crew.get_mut(*at);
            if let Some(unsettled) = aboard.and_then(|aboard| aboard.unsettled.as_mut()) {
                unsettled.heard_in_part(status, headers);
            }
        }
    }

    async fn hear(&mut self, answer: Answer) -> merge::Came {
        self.last.standing.clone_from(&answer.standing);
        self.last.took = answer.took;
        self.last.doubtful = answer.doubtful;
        let (came, broken) = whole(answer).await;
        self.last.doubtful |= broken;
        came
    }
}

/// All of an answer, and whether it broke off.
async fn whole(answer: Answer) -> (merge::Came, bool) {
    let (mut head, body) = answer.response.into_parts();
    match body::read(body, LONGEST_ANSWER).await {
        Read::Whole(bytes) => {
            // It is that of a body that is held from now on.
            head.headers.remove(http::header::CONTENT_LENGTH);
            (
                merge::Came::Answer(Response::from_parts(head, bytes)),
                false,
            )
        }
        Read::Longer(..) | Read::Broken(_) => (merge::Came::Unknown, true),
    }
}

impl Aboard {
    fn new(mut passenger: Passenger) -> Self {
        let place = passenger.place.take();
        Self {
            passenger,
            unsettled: None,
            place,
        }
    }

    /// An attempt leaves that stands for it.
    fn leaves(&mut self, gateway: &Gateway) {
        if let Some(live) = &self.passenger.live {
            live.tried();
        }
        if let Some(place) = self.place.take() {
            let ask = &self.passenger.ask;
            let budget = &ask.operation.budget;
            let answer = gateway.budgets.answer_time(ask.credential, budget);
            place.expect(gateway.clock.now() + answer);
            let touched = touched(ask);
            self.unsettled = Some(Unsettled::new(gateway.clone(), touched, place));
        }
    }

    fn settle(&mut self, outcome: Outcome, doubtful: bool) -> (Became, Option<Place>) {
        let unsettled = self.unsettled.take();
        match outcome {
            Outcome::Answer(response) => {
                let status = response.status();
                let headers = response.headers();
                let place = unsettled.and_then(|it| it.heard(status, headers, false));
                (Became::Answered(response), place)
            }
            Outcome::Unknown(answer) => {
                let place = unsettled.and_then(|it| match &answer {
                    Some(answer) => it.heard(answer.status(), answer.headers(), doubtful),
                    None => it.in_doubt(),
                });
                (Became::Unknown(answer), place)
            }
            Outcome::Again => {
                let place = unsettled.and_then(Unsettled::not_carried_out);
                (Became::Again, place.or_else(|| self.place.take()))
            }
        }
    }

    fn not_carried_out(&mut self) -> Option<Place> {
        let unsettled = self.unsettled.take();
        let place = unsettled.and_then(Unsettled::not_carried_out);
        place.or_else(|| self.place.take())
    }

    /// One whose caller hung up hears nothing; its place is given up with what it was told.
    fn tell(&mut self, told: Told) {
        if let Some(tell) = self.passenger.tell.take()
            && let Err(unheard) = tell.send(told)
        {
            unheard.log(&self.passenger.ask);
        }
    }
}
