//! Deleting a list once more, element by element; of held writes too.
//!
//! After a DELETE of which nobody knows the outcome, a part of its list may be gone, and the API may
//! refuse the rest because of that. So it is repeated one by one, and a 404 says that an element is
//! gone, which is what was asked for.

use crate::attempt::backoff;
use crate::attempt::send::Came;
use crate::exchange::request::Ask;
use crate::limit::budgets::{Admission, Wish};
use crate::limit::ticket::Permit;
use crate::merge::{Parts, one_by_one};
use crate::queue::Place;
use crate::write::Writes;
use crate::write::decision;
use crate::write::durable::completion::{Heard, hear};
use crate::write::durable::pending::Live;
use crate::write::durable::run::{Attempted, NEVER, PAUSE};
use crate::write::held::{Unsettled, touched};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use std::sync::Arc;
use std::time::Instant;
use tokio::time::timeout_at;

impl Writes {
    /// The requests that delete each of several elements; `None` if it is no such list.
    pub(crate) fn elements(&self, ask: &Ask) -> Option<Vec<Request<Bytes>>> {
        if ask.method != Method::DELETE || ask.overridden {
            return None;
        }
        let mut request = ask.forwarded();
        request
            .headers_mut()
            .remove(crate::write::idempotency::FIELD);
        let parts = Parts::of(&ask.operation, &request)?;
        (parts.len() > 1).then(|| one_by_one(&request, &parts))
    }

    /// A permit for one more attempt, however long that takes; `None` if the gateway stops.
    pub(super) async fn another_permit(&self, ask: &Ask) -> Option<Permit> {
        let wish = Wish {
            deadline: self.clock.now() + NEVER,
            answer_by: None,
            admission: Admission::Taken,
            ..self.attempts.wish(ask)
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

    /// Sends each of them, with a slot for each; the first one has its already. What has not left by
    /// `leave_by` does not leave any more.
    pub(crate) async fn delete_each(
        self: &Arc<Self>,
        (ask, live): (&Ask, Option<&Live>),
        requests: Vec<Request<Bytes>>,
        leave_by: Instant,
        permit: Permit,
        place: Place,
    ) -> Attempted {
        let (turn, mut connects) = (place.turn(), 0);
        let mut unsettled = Unsettled::new(self.clone(), touched(ask), place);
        let mut permit = Some(permit);
        let mut last: Option<Heard> = None;
        let mut headers = HeaderMap::new();
        let mut requests = requests.into_iter().peekable();
        while let Some(request) = requests.peek() {
            let slot = match permit.take() {
                Some(permit) => Some(permit),
                None if self.clock.now() > leave_by => None,
                None => {
                    let slot = self.another_permit(ask);
                    timeout_at(leave_by.into(), slot).await.ok().flatten()
                }
            };
            let Some(slot) = slot else {
                // It is too late, or the gateway stops, and the next process begins anew.
                return (decision::Came::NoAnswer, None, unsettled.in_doubt());
            };
            let mut request = request.clone();
            request.extensions_mut().insert(ask.ids.clone());
            let slot = slot.carries(vec![unsettled.intent(ask, live)]);
            let came = self
                .attempts
                .attempt(&ask.operation, ask.credential, slot, request);
            match came.await {
                Came::Answer(answer) => {
                    connects = 0;
                    let status = answer.response.status();
                    let doubtful = answer.doubtful;
                    headers = answer.response.headers().clone();
                    let heard = hear(answer).await;
                    if !status.is_success() && status != StatusCode::NOT_FOUND {
                        let place = unsettled.heard(status, &headers, doubtful);
                        return (decision::Came::Status(status), Some(heard), place);
                    }
                    // Even if the next one is refused.
                    unsettled.heard_in_part(status, &headers);
                    // A success says more than a 404.
                    if status.is_success() || last.is_none() {
                        last = Some(heard);
                    }
                    requests.next();
                }
                // The slot was given back, and the budget knows when there is another.
                Came::Throttled(_) => {}
                Came::NotSent(_) => {
                    connects += 1;
                    let pause = backoff::reconnect_pause(connects, backoff::dice(turn, connects));
                    let again = (self.clock.now() + pause).min(leave_by);
                    tokio::time::sleep_until(again.into()).await;
                }
                Came::Unknown(_) => {
                    return (decision::Came::NoAnswer, None, unsettled.in_doubt());
                }
            }
        }
        let status = last.as_ref().and_then(Heard::status);
        let status = status.unwrap_or(StatusCode::NOT_FOUND);
        // What one of them named besides its target, it has in common with the others.
        let place = unsettled.heard(status, &headers, false);
        (decision::Came::Status(status), last, place)
    }
}
