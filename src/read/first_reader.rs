//! The response of the reader that leads a fetch: its body, and the form that it gets.
//!
//! This reader gets the API's own headers, and its body as soon as it arrives if it is not stored.
//! A response that is stored or shared is read as a whole first, within the memory for that.
//!
//! Promises that a reader that does not accept `gzip` never gets it, and that a response that
//! cannot be decoded for it is not begun: nothing has been sent then, so another request may
//! follow. Whether a response may be stored is decided by [`Leader`], not here.

use crate::cache::coding::{self, Unfit};
use crate::cache::headers::ReceivedResponse;
use crate::cache::leader::{Completed, Leader};
use crate::cache::reason::StoreRefusal;
use crate::error::GatewayError;
use crate::exchange::body::{self, Body, Read};
use crate::exchange::decoding::Decoding;
use crate::read::Reads;
use crate::read::cacheable::CacheableRead;
use crate::read::representation::{self, Whole, show};
use crate::upstream::{AnswerBody, BodyError};
use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, Response, response};
use http_body::Body as _;

/// A response that arrived, for the leader's reader.
pub(super) struct FetchedAnswer {
    /// Status and headers, as the API sent them.
    pub(super) head: response::Parts,
    /// `None` if it cannot be given to the reader: only the gateway asked for its coding, and it
    /// cannot be decoded.
    pub(super) body: Option<Body>,
    /// The body and its coding, if all of it is in memory.
    pub(super) whole: Option<(Bytes, coding::Coding)>,
    /// What became of it in the cache.
    pub(super) completed: Completed,
}

impl Reads {
    /// Reads a response that may be shared, and stores and shares it if it is not too large.
    ///
    /// # Errors
    /// If the body breaks off or times out. Nothing was given to a reader then, so a stale response
    /// may follow.
    pub(super) async fn read_whole(
        &self,
        reading: &CacheableRead,
        head: response::Parts,
        body: AnswerBody,
        leader: Leader,
    ) -> Result<FetchedAnswer, GatewayError> {
        let most = self.settings.get().largest_stored;
        // Memory first: without room the response is streamed and not stored. A body of unknown
        // length reserves more as it grows.
        let Some(mut room) = self.answers.take(body.size_hint().exact(), most) else {
            let completed = leader.refuse(StoreRefusal::NoRoom, head.status, self.clock.now());
            return Ok(self.passed_on(reading, head, completed, None, body).await);
        };
        match body::read_within(body, most, |bytes| room.grow(bytes)).await {
            Read::Whole(bytes) => {
                // Stored and shared before this reader gets it, so that its followers do not wait
                // for a slow connection.
                let bytes = room.hold(bytes);
                let answer = ReceivedResponse {
                    status: head.status,
                    headers: &head.headers,
                    body: &bytes,
                };
                let completed = leader.finish(&answer, &self.receipt(reading));
                // An entry was examined when it was made.
                let coding = match &completed.entry {
                    Some(entry) => Ok(entry.coding()),
                    None => coding::examine(&head.headers, &bytes, most),
                };
                let is_gzip = coding::is_gzip(&head.headers) == Some(true);
                // Three bodies can be given to this reader: one too long to be decoded in memory is
                // decoded as it is sent, one that is not what its header says only if this reader
                // asked for that coding itself, any other as it is.
                let body = if coding == Err(Unfit::TooLong) && !reading.recipient().accepts_gzip() {
                    let decoding = Decoding::new(Some(bytes.clone()), None);
                    Some(Body::Decoding(Box::new(decoding)))
                } else if coding == Err(Unfit::Malformed) && is_gzip && reading.asks_for_others() {
                    (bytes.is_empty()).then(Body::default)
                } else {
                    Some(Body::held(bytes.clone()))
                };
                Ok(FetchedAnswer {
                    whole: coding.ok().map(|coding| (bytes, coding)),
                    body,
                    completed,
                    head,
                })
            }
            Read::Longer(first, rest) => {
                // The followers learn now that they must fetch for themselves; this reader gets
                // what was read, and the rest as it arrives.
                let refusal = if room.was_refused() {
                    StoreRefusal::NoRoom
                } else {
                    StoreRefusal::TooLarge
                };
                let completed = leader.refuse(refusal, head.status, self.clock.now());
                let first = Some(room.hold(first));
                Ok(self.passed_on(reading, head, completed, first, *rest).await)
            }
            Read::Broken(error) => {
                tracing::warn!(
                    reason = error.as_str(),
                    request_id = reading.context.ids.request(),
                    trace_id = reading.context.ids.trace(),
                    "response ended early"
                );
                let error = match error {
                    BodyError::IdleTimeout | BodyError::TotalTimeout => {
                        GatewayError::UpstreamTimeout
                    }
                    BodyError::Broken => GatewayError::UpstreamBroken,
                };
                // Nothing of the response was given to a reader yet, so all of them get the error.
                leader.fail(error.clone());
                Err(error)
            }
        }
    }

    /// Returns a response that is not stored. Its body streams: `first` was read already.
    async fn passed_on(
        &self,
        reading: &CacheableRead,
        head: response::Parts,
        completed: Completed,
        first: Option<Bytes>,
        rest: AnswerBody,
    ) -> FetchedAnswer {
        FetchedAnswer {
            body: self.streamed(reading, &head.headers, first, rest).await,
            completed,
            whole: None,
            head,
        }
    }

    /// Returns the body of a response that is not stored, if the reader can be given it; see
    /// [`FetchedAnswer`].
    pub(super) async fn streamed(
        &self,
        reading: &CacheableRead,
        headers: &HeaderMap,
        first: Option<Bytes>,
        rest: AnswerBody,
    ) -> Option<Body> {
        let is_gzip = coding::is_gzip(headers) == Some(true);
        // A response without a body has nothing to decode, whatever its header says.
        let is_empty = first.is_none() && rest.is_end_stream();
        if is_gzip && !is_empty && !reading.recipient().accepts_gzip() {
            let mut decoding = Decoding::new(first, Some(rest));
            // An error after the first byte could only break off the response.
            let begins = decoding.begins().await;
            let is_given = begins || !reading.asks_for_others();
            // Other readers of the key may accept `gzip`, so only the gateway asked for it. If this
            // reader did, it gets the broken response like anyone who asks the API.
            return is_given.then(|| Body::Decoding(Box::new(decoding)));
        }
        Some(match first {
            Some(first) => Body::Continued(Some(first), Box::new(rest)),
            None => Body::Streamed(Box::new(rest)),
        })
    }

    /// Returns the response for the leader's reader, or `None` if it has no body to give. A
    /// complete one gets the form that any reader gets, so conditions and ranges hold here too.
    pub(super) fn for_first_reader(
        &self,
        reading: &CacheableRead,
        arrived: FetchedAnswer,
    ) -> Option<Response<Body>> {
        let FetchedAnswer {
            head,
            body,
            whole,
            completed,
        } = arrived;
        let body = body?;
        let mut headers = head.headers;
        // Shared or stored: then the gateway has added headers of its own.
        if let Some(entry) = &completed.entry {
            add_own_fields(&mut headers, &entry.shared_headers());
        }
        if let Some((body, coding)) = whole {
            // The representation sets the length again, since it may send a part or decode.
            headers.remove(header::CONTENT_LENGTH);
            let whole = Whole {
                status: head.status,
                headers,
                body,
                coding,
                received: self.clock.wall(),
            };
            return Some(show(&reading.recipient(), whole));
        }
        if matches!(body, Body::Decoding(_)) {
            // Its bytes are no longer those that the headers describe.
            representation::plain(&mut headers);
        }
        // The fetch is a GET even for a HEAD.
        let is_head = reading.context.method == Method::HEAD;
        let mut response = Response::new(if is_head { Body::default() } else { body });
        *response.status_mut() = head.status;
        *response.headers_mut() = headers;
        // Contain the API's own reason phrase, if it is unusual.
        *response.extensions_mut() = head.extensions;
        Some(response)
    }
}

/// Adds the headers that the gateway adds to stored responses, for the leader's reader too: it may
/// revalidate by them like any other.
fn add_own_fields(headers: &mut HeaderMap, kept: &HeaderMap) {
    for name in [header::ETAG, header::VARY] {
        if let Some(first) = kept.get(&name) {
            headers.insert(&name, first.clone());
            for further in kept.get_all(&name).iter().skip(1) {
                headers.append(&name, further.clone());
            }
        }
    }
}
