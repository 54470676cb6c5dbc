//! The life of a write: accepted, queued in its lanes and its budget, sent once, settled.
//!
//! Its caller's connection waits. While it is queued the caller may hang up, and the write is gone
//! without a trace; from the moment it leaves it is carried through by a task of its own, which
//! raises the marks and opens the lanes before the caller hears.

use super::Gateway;
use super::attempt::{Answer, Came};
use super::flow::{Ask, Reply, Timing};
use crate::cache::Touched;
use crate::cache::fence::Tag;
use crate::error::{GatewayError, Waited};
use crate::limit::budgets::{Readiness, Refusal, Wish};
use crate::limit::ticket::{NoPermit, Permit, Ticket};
use crate::queue::Place;
use crate::queue::lanes::Keys;
use crate::route::names;
use crate::route::policy::Touches;
use crate::upstream::NotSent;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Attempts after connections that could not be opened.
const MOST_CONNECTS: u32 = 4;
/// The pause after the first of them; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What a write's task tells its caller.
enum Told {
    Answer(Answer),
    /// It did not take effect; it may take its place again.
    Again(Place, Came),
    Unknown(Waited),
}

impl Gateway {
    pub(super) async fn write(&self, ask: Ask) -> Result<Reply, GatewayError> {
        let _held = self.hold()?;
        self.quotas.charge(&ask.caller)?;
        let keys = order_keys(&ask);
        let mut timing = Timing::default();
        let (mut ticket, mut place) = self.accept(&ask, keys)?;
        let mut connects = 0;
        loop {
            let permit = self.wait_in_line(&ask, &mut ticket, &mut place).await?;
            timing.left(self.clock.now(), ask.accepted);
            self.metrics.left(&ask.operation.name, timing.queued);
            let told = self.dispatch(&ask, permit, place).await?;
            match told {
                Told::Answer(answer) => return Ok(Reply::written(answer, timing)),
                Told::Unknown(waited) => {
                    let may_retry = ask.operation.is_idempotent(&ask.method);
                    return Err(GatewayError::OutcomeUnknown { waited, may_retry });
                }
                Told::Again(returned, Came::Throttled(response)) => {
                    place = returned;
                    timing.throttled += 1;
                    if ticket.estimate_again() > ticket.deadline() {
                        return Ok(Reply::throttled(response, timing));
                    }
                }
                Told::Again(returned, Came::NotSent(why)) => {
                    place = returned;
                    connects += 1;
                    self.pause_or_fail(why, connects, ticket.deadline()).await?;
                }
                Told::Again(..) => return Err(GatewayError::Internal),
            }
            ticket.again();
        }
    }

    /// Takes a place in the budget's line. `lanes` is when its lanes are expected to be free.
    pub(super) fn line_up(
        &self,
        ask: &Ask,
        readiness: Readiness,
        lanes: Option<Instant>,
    ) -> Result<Ticket, GatewayError> {
        let wish = Wish {
            credential: ask.credential,
            budget: &ask.operation.budget,
            effect: ask.operation.effect,
            caller: ask.caller.clone(),
            bytes: ask.weight(),
            not_before: lanes,
            deadline: ask.accepted + ask.patience,
            readiness,
        };
        self.budgets.join(&wish).map_err(refused)
    }

    /// Takes a place in the budget's line and in the lanes.
    fn accept(&self, ask: &Ask, keys: Keys) -> Result<(Ticket, Place), GatewayError> {
        let lanes = self.queue.expected_free(ask.credential, &keys);
        let ticket = self.line_up(ask, Readiness::Blocked, lanes)?;
        let settled = ticket.estimate() + self.settings.usual_answer;
        let place = self.queue.enter(ask.credential, keys, settled);
        Ok((ticket, place))
    }

    /// Waits for the lanes and then for a slot; order wins over turn.
    async fn wait_in_line(
        &self,
        ask: &Ask,
        ticket: &mut Ticket,
        place: &mut Place,
    ) -> Result<Permit, GatewayError> {
        if !place.is_blocked() {
            ticket.ready();
        }
        loop {
            let blocked = place.is_blocked();
            tokio::select! {
                biased;
                granted = ticket.granted() => {
                    return granted.map_err(|why| self.not_permitted(why, ask, ticket));
                }
                () = place.free(), if blocked => ticket.ready(),
            }
        }
    }

    pub(super) fn not_permitted(&self, why: NoPermit, ask: &Ask, ticket: &Ticket) -> GatewayError {
        match why {
            NoPermit::Refused(refusal) => refused(refusal),
            NoPermit::Expired => {
                let now = self.clock.now();
                let wait = ticket.estimate_again().saturating_duration_since(now);
                let retry_after = wait.max(Duration::from_secs(1));
                if ask.patience.is_zero() {
                    GatewayError::QueueWait {
                        estimate: wait,
                        retry_after,
                    }
                } else {
                    GatewayError::QueueExpired { retry_after }
                }
            }
        }
    }

    /// Sends the write in a task of its own and waits for what it tells.
    async fn dispatch(
        &self,
        ask: &Ask,
        permit: Permit,
        place: Place,
    ) -> Result<Told, GatewayError> {
        let (tell, told) = oneshot::channel();
        let (gateway, ask) = (self.clone(), ask.clone());
        self.tasks.spawn("write", async move {
            let unsettled = Unsettled::new(gateway.clone(), touched(&ask), place);
            let request = gateway.forwarded(&ask);
            let came = gateway
                .attempt(&ask.operation, ask.credential, permit, request)
                .await;
            let told = match came {
                Came::Answer(answer) => {
                    unsettled.answered(&answer);
                    Told::Answer(answer)
                }
                Came::Unknown(why) => {
                    drop(unsettled);
                    Told::Unknown(if why.is_timeout() {
                        Waited::TooLong
                    } else {
                        Waited::InVain
                    })
                }
                came => match unsettled.not_carried_out() {
                    Some(place) => Told::Again(place, came),
                    None => return,
                },
            };
            // A caller that hung up meanwhile hears nothing; the write has been carried through.
            drop(tell.send(told));
        });
        told.await.map_err(|_| GatewayError::Internal)
    }

    /// Waits a little before another connection is tried, or gives up.
    pub(super) async fn pause_or_fail(
        &self,
        why: NotSent,
        tried: u32,
        deadline: Instant,
    ) -> Result<(), GatewayError> {
        let hopeless = matches!(why, NotSent::Certificate | NotSent::Tls | NotSent::Proxy);
        let pause = match why {
            NotSent::ClosedBeforeSending => Duration::ZERO,
            _ => FIRST_PAUSE.saturating_mul(1 << (tried - 1).min(8)),
        };
        let again = self.clock.now() + pause;
        if hopeless || tried >= MOST_CONNECTS || again > deadline {
            let waited = if why.is_timeout() {
                Waited::TooLong
            } else {
                Waited::InVain
            };
            return Err(GatewayError::UpstreamUnreachable {
                message: why.message(),
                waited,
            });
        }
        tokio::time::sleep_until(again.into()).await;
        Ok(())
    }
}

/// A write that has left and whose outcome is not known yet. Dropped as it is, also by a panic,
/// the outcome is unknown: what was cached is no longer believed, and the lanes stay closed for Q.
struct Unsettled {
    gateway: Gateway,
    touched: Touched,
    place: Option<Place>,
    settled: bool,
}

impl Unsettled {
    fn new(gateway: Gateway, touched: Touched, place: Place) -> Self {
        Self {
            gateway,
            touched,
            place: Some(place),
            settled: false,
        }
    }

    /// The API answered. A 5xx may hide an effect that is still to come.
    fn answered(mut self, answer: &Answer) {
        if answer.response.status().is_server_error() {
            self.gateway
                .settle(&self.touched, self.gateway.settings.late);
        } else {
            self.gateway
                .settle(&self.touched, self.gateway.settings.settling);
        }
        self.settled = true;
        if let Some(mut place) = self.place.take() {
            if answer.doubtful {
                place.stay_closed_for(self.gateway.settings.late);
            }
            drop(place);
        }
    }

    /// It did not take effect: nothing has changed, and its place is still its own.
    fn not_carried_out(mut self) -> Option<Place> {
        self.settled = true;
        self.place.take()
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        self.gateway
            .settle(&self.touched, self.gateway.settings.late);
        if let Some(place) = &mut self.place {
            place.stay_closed_for(self.gateway.settings.late);
        }
    }
}

fn refused(refusal: Refusal) -> GatewayError {
    match refusal {
        Refusal::TooLong {
            estimate,
            retry_after,
        } => GatewayError::QueueWait {
            estimate,
            retry_after,
        },
        Refusal::Full { retry_after } => GatewayError::QueueFull { retry_after },
        Refusal::TooManyBudgets => GatewayError::Overloaded,
        Refusal::Draining => GatewayError::Draining,
    }
}

/// What the write acts on. Where its names cannot be read it may act on anything of their class.
fn order_keys(ask: &Ask) -> Keys {
    let operation = &ask.operation;
    let mut barriers: BTreeSet<Arc<str>> = operation
        .barrier
        .iter()
        .map(|class| Arc::from(class.as_ref()))
        .collect();
    let mut keys = BTreeSet::new();
    let document = ask.document();
    for template in &operation.order {
        let one = std::slice::from_ref(template);
        match names::expand(one, &ask.params, ask.query(), &document) {
            Ok(names) => keys.extend(names.into_iter().map(Arc::from)),
            Err(_) => {
                // It keeps apart from everything of the class, and from others like itself.
                let class = template
                    .prefix
                    .split(':')
                    .next()
                    .unwrap_or(&template.prefix);
                barriers.insert(class.into());
                keys.insert(Arc::from(format!("{class}:")));
            }
        }
    }
    Keys { keys, barriers }
}

/// What the write changes. What cannot be read may change everything.
fn touched(ask: &Ask) -> Touched {
    if ask.overridden {
        return Touched::Everything;
    }
    match &ask.operation.touches {
        Touches::Everything => Touched::Everything,
        Touches::Tags(templates) => {
            match names::expand(templates, &ask.params, ask.query(), &ask.document()) {
                Ok(names) => Touched::Tags(names.into_iter().map(Tag::new).collect()),
                Err(_) => Touched::Everything,
            }
        }
    }
}
