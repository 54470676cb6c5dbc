//! A shared fetch: asks the API once for all readers of a key, in a task of its own.
//!
//! The steps: its turn among the fetches of the key → request → budget and attempts
//! ([`pass`](super::pass)) → 304 or response → stored, shared, and given to the first reader.
//!
//! It requests a compressed response, and revalidates a stored one. It also makes the response of
//! the leader's reader, who gets the API's own headers; followers get those that are stored.
//!
//! Whether a response may be stored is decided by [`Leader`], not here.

use crate::attempt::send::FinalAnswer;
use crate::cache::cache_status::CacheStatus;
use crate::cache::coding;
use crate::cache::conditional::is_of_the_bytes;
use crate::cache::control::CacheControl;
use crate::cache::entry::Entry;
use crate::cache::fields::{self, Handling};
use crate::cache::leader::{Leader, Receipt};
use crate::cache::reason::{Miss, StoreRefusal};
use crate::cache::reuse::Need;
use crate::error::GatewayError;
use crate::exchange::response::Reply;
use crate::exchange::timing::Timing;
use crate::metrics::Outcome;
use crate::read::cacheable::CacheableRead;
use crate::read::first_reader::FetchedAnswer;
use crate::read::pass::{AttemptEvent, Outlook, PassOutcome};
use crate::read::representation::show;
use crate::read::stored::whole;
use crate::read::{ReadResult, Reads};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body::Body as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The user agent of a fetch for all readers.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("segment-gateway/", env!("CARGO_PKG_VERSION")));

/// How long a fetch waits for the one of its key that is in flight. Longer than a round trip takes
/// as a rule.
const LONGEST_TURN: Duration = Duration::from_secs(2);

/// How long connections are tried if a stale response may be shown instead.
const STAND_IN_PATIENCE: Duration = Duration::from_secs(1);

/// The error for followers after the leader's patience ended. Each has its own patience, and one of
/// them fetches for the others.
const OUT_OF_TIME: GatewayError = GatewayError::QueueExpired {
    retry_after: Duration::from_secs(1),
};

impl Reads {
    /// Starts a fetch. Its result goes to `sender`, for the reader that leads it; a refresh has
    /// none.
    pub(crate) fn fetch(
        self: &Arc<Self>,
        reading: Arc<CacheableRead>,
        leader: Leader,
        sender: Option<oneshot::Sender<ReadResult>>,
    ) {
        let reads = self.clone();
        self.tasks.spawn("fetch", async move {
            let result = reads.carry_out_fetch(&reading, leader).await;
            // The reader may have hung up. Its followers have what they need.
            if let Some(sender) = sender {
                drop(sender.send(result));
            }
        });
    }

    /// Fetches, and ends the fetch for all who joined it.
    ///
    /// # Errors
    /// Those of the fetch, which the followers get as well, where they are not the leader's own.
    async fn carry_out_fetch(
        self: &Arc<Self>,
        reading: &CacheableRead,
        mut leader: Leader,
    ) -> ReadResult {
        let context = &reading.context;
        let mut timing = Timing::of(context);
        // One fetch of a key at a time, so that a crowd costs one fetch per round trip.
        // A fetch that hangs is not waited for: its readers have their own patience.
        let _ = timeout(LONGEST_TURN, leader.flight.turn()).await;
        // One round, and further ones only after a 304 that did not match the stored response.
        loop {
            // With a stored response at hand, a 304 saves the API from sending it again.
            let validators = leader.validators();
            let request = || {
                let mut request = self.shared_request(reading);
                if let Some(validators) = &validators {
                    validators.put(request.headers_mut());
                }
                request
            };
            let outlook = self.outlook(reading, &leader);
            // The followers learn of each step: until the departure their own patience counts, and
            // the stamp of the fetch is taken at its departure, not at its beginning.
            let outcome = self
                .request_upstream(context, request, &mut timing, outlook, |to| match to {
                    // A reader's fetch took the place of this refresh, which no reader waits for.
                    AttemptEvent::Started(now) if !leader.start(now) => Err(OUT_OF_TIME),
                    AttemptEvent::Started(_) => Ok(()),
                    AttemptEvent::Requeued => {
                        leader.flight.requeue();
                        Ok(())
                    }
                })
                .await;
            let answer = match outcome {
                Ok(PassOutcome::Answer(answer)) => answer,
                Ok(PassOutcome::Throttled(response)) => {
                    let (why, key) = (leader.why(), leader.key().hash());
                    // A follower may have more time than the leader, so it does not share the 429.
                    leader.fail(OUT_OF_TIME);
                    return Ok(Reply {
                        cache: Some(CacheStatus::fetched(
                            why,
                            key,
                            Err(StoreRefusal::Status),
                            None,
                        )),
                        ..Reply::throttled(response, timing)
                    });
                }
                Ok(PassOutcome::Lost) => {
                    // Not retried here for want of time; a follower may have it.
                    leader.fail(OUT_OF_TIME);
                    return Err(GatewayError::UpstreamBroken);
                }
                // All followers get the error. Which of them try again, they decide themselves.
                Err(error) => {
                    leader.fail(error.clone());
                    return Err(error);
                }
            };
            // From here on there is a final response. Exactly one of `land` and `renew` ends the
            // fetch, or the stored response is dropped and another round begins.
            if answer.response.status() != StatusCode::NOT_MODIFIED {
                return self.land(reading, answer, leader, timing).await;
            }
            // Without a condition there is nothing that a 304 could confirm.
            if validators.is_none() {
                tracing::warn!(
                    request_id = reading.context.ids.request(),
                    trace_id = reading.context.ids.trace(),
                    "unexpected 304: the request had no condition"
                );
                leader.fail(GatewayError::UpstreamBroken);
                return Err(GatewayError::UpstreamBroken);
            }
            match self.renew(reading, answer, leader, &timing) {
                Ok(Some(reply)) => return Ok(reply),
                // The original bytes, in a coding that the reader accepts.
                Ok(None) => return Box::pin(self.alone(reading, Miss::NotShared)).await,
                // The 304 was about another response. The whole is requested, with a slot of its
                // own.
                Err(again) => {
                    leader = *again;
                    leader.flight.requeue();
                }
            }
        }
    }

    /// Returns the limits of asking the API for this fetch.
    fn outlook(&self, reading: &CacheableRead, leader: &Leader) -> Outlook {
        // With a stale response at hand an outage is not waited out.
        let now = self.clock.now();
        let may_stand_in =
            |entry: &Arc<Entry>| self.may_stand_in(reading, entry, Need::IfError, now);
        let has_stand_in = leader.stored().is_some_and(may_stand_in);
        let settled = leader.settled_at();
        Outlook {
            runs_in_task: true,
            connect_for: has_stand_in.then_some(STAND_IN_PATIENCE),
            settling: settled.map(|settled| (settled, leader.flight.hurry())),
        }
    }

    /// Returns the request for all readers: a GET, even if the leader's reader sent a HEAD. It
    /// omits what one reader asked of the form of the response, and headers that others with its
    /// key need not have; see [`fields`].
    fn shared_request(&self, reading: &CacheableRead) -> Request<Bytes> {
        // These ask caches on the way for nothing but a newer response, or its original bytes.
        let asks_caches = reading.wants.is_reload() || reading.wants.no_transform;
        let for_caches =
            |name: &HeaderName| *name == header::CACHE_CONTROL || *name == header::PRAGMA;
        let mut request = reading.context.forwarded_with(|name, value| {
            fields::handling(name, value) != Handling::LeftOut || asks_caches && for_caches(name)
        });
        *request.method_mut() = Method::GET;
        let has_body = !request.body().is_empty();
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, USER_AGENT);
        if !has_body {
            // Without a body there is nothing that they could describe.
            headers.remove(header::CONTENT_TYPE);
            headers.remove(header::CONTENT_ENCODING);
        }
        // One response serves all readers, whatever codings they accept; it is decoded for those
        // that do not accept `gzip`. If it may not be shareable, the reader's own header stands
        // where it says something else.
        if reading.recipient().accepts_gzip() || reading.asks_for_others() {
            headers.insert(header::ACCEPT_ENCODING, coding::ASKED);
        }
        request
    }

    pub(crate) fn receipt<'a>(&self, reading: &'a CacheableRead) -> Receipt<'a> {
        Receipt {
            request: &reading.context.headers,
            now: self.clock.now(),
            wall: self.clock.wall(),
        }
    }

    /// Renews the stored response after a 304, which ends the fetch: its followers get the renewed
    /// response. Returns `None` if it may not be decoded for the first reader.
    ///
    /// # Errors
    /// Returns the leader if the 304 is not about the stored response.
    fn renew(
        &self,
        reading: &CacheableRead,
        answer: FinalAnswer,
        leader: Leader,
        timing: &Timing,
    ) -> Result<Option<Reply>, Box<Leader>> {
        let (why, key) = (leader.why(), leader.key().hash());
        let head = answer.response.headers();
        let (entry, completed) = leader.renew(head, &self.receipt(reading))?;
        if reading.must_not_decode_entry(&entry) {
            return Ok(None);
        }
        let timing = Timing {
            upstream: answer.took,
            ..timing.clone()
        };
        let status = Some(StatusCode::NOT_MODIFIED);
        let status = CacheStatus::fetched(why, key, completed.stored, status);
        // The stored headers, which the 304 has updated, and those of this exchange.
        let mut headers = entry.shared_headers();
        for name in head.keys() {
            // Headers that are not stored are for this reader nonetheless.
            if !headers.contains_key(name) && !is_of_the_bytes(name) {
                for value in head.get_all(name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        Ok(Some(Reply::read(
            show(&reading.recipient(), whole(&entry, headers)),
            Outcome::Fetched,
            status,
            timing,
            answer.standing,
        )))
    }

    /// Stores and shares the response as far as permitted, and makes the first reader's response.
    ///
    /// The head decides first: a response that may not be stored is streamed, and its followers
    /// learn so before its body has arrived.
    async fn land(
        self: &Arc<Self>,
        reading: &CacheableRead,
        answer: FinalAnswer,
        leader: Leader,
        mut timing: Timing,
    ) -> ReadResult {
        let (why, key) = (leader.why(), leader.key().hash());
        let begun = self.clock.now();
        // The length that is announced suffices to reject what is too large.
        let (head, body) = answer.response.into_parts();
        let length = body.size_hint().lower();
        let receipt = self.receipt(reading);
        let refusal = leader.refusal(head.status, &head.headers, length, &receipt);
        let arrived = match refusal {
            // With a stale response at hand the body is read first, since it may break off. The
            // reader then gets the stale response instead of half of this one.
            Some(refusal) if !leader.has_stand_in(begun) => FetchedAnswer {
                completed: leader.refuse(refusal, head.status, begun),
                body: self.streamed(reading, &head.headers, None, body).await,
                whole: None,
                head,
            },
            _ => self.read_whole(reading, head, body, leader).await?,
        };
        // Reading the body here is the API's time, not the gateway's.
        timing.upstream = answer.took + self.clock.now().saturating_duration_since(begun);
        let status = CacheStatus::fetched(why, key, arrived.completed.stored, None);
        // The reader or the API forbids decoding, and the reader does not accept `gzip`.
        let headers = &arrived.head.headers;
        if coding::is_gzip(headers) == Some(true) && reading.must_not_decode(no_transform(headers))
        {
            return Box::pin(self.alone(reading, Miss::NotShared)).await;
        }
        // Nothing was sent to the reader so far, so another request may still follow.
        let Some(response) = self.for_first_reader(reading, arrived) else {
            return self.without_gzip(reading).await;
        };
        Ok(Reply::read(
            response,
            Outcome::Fetched,
            status,
            timing,
            answer.standing,
        ))
    }

    /// Fetches for the reader alone, uncompressed, after a response that cannot be decoded.
    async fn without_gzip(self: &Arc<Self>, reading: &CacheableRead) -> ReadResult {
        tracing::warn!(
            operation = &*reading.context.operation.name,
            request_id = reading.context.ids.request(),
            trace_id = reading.context.ids.trace(),
            "response is not compressed as its header says; fetching it without compression"
        );
        let result = Box::pin(self.alone(reading, Miss::NotShared)).await;
        result.map_err(|error| match error.facts().sent {
            true => error,
            // The first attempt was sent, so the request as a whole was.
            false => GatewayError::UpstreamUnreadable(UNDECODABLE),
        })
    }
}

/// The error if the API does not send in time, uncompressed, what it first sent in a wrong coding.
const UNDECODABLE: &str = "The API's answer is not compressed as it says, and could not be had without compression in time";

/// Returns whether the API forbids changing the bytes.
fn no_transform(headers: &HeaderMap) -> bool {
    CacheControl::parse(headers.get_all(header::CACHE_CONTROL)).no_transform
}
