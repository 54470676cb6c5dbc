//! `/_gateway/writes`: where callers ask for the outcome of their writes, and take them back.
//!
//! ```text
//! GET    /_gateway/writes?state=queued&limit=50&after={id}   a caller's own, oldest first
//! GET    /_gateway/writes/{id}                               one of them, with the API's answer
//! DELETE /_gateway/writes/{id}                               cancels it, if it was not sent
//! ```
//!
//! Only its owner sees a write: the client that made it, or whoever has its credential if it was
//! made without a client. For everybody else it does not exist (404), so that ids cannot be
//! guessed.
//!
//! A write that has not ended is shown from memory, with its position and an estimate. One that has
//! ended is shown from the journal, with the API's answer. A list shows all from the journal.
//!
//! A write can be cancelled until it is sent, and again after an attempt without effect. From the
//! first attempt that may have taken effect on, it cannot (409).

use crate::error::GatewayError;
use crate::exchange::body::Body;
use crate::exchange::error_response::seconds;
use crate::exchange::response::Reply;
use crate::journal::{
    Change, Filter, JournalError, OwnerFilter, Record, State, WriteId, WriteOwner,
};
use crate::tasks;
use crate::write::Writes;
use crate::write::durable::expected_end::LOOK_AGAIN;
use crate::write::durable::pending::PendingWrite;
use crate::write::durable::record::KeptAnswer;
use crate::write::durable::stage::{Stage, TooLate};
use crate::write::durable::summary::Summary;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Response, Uri};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The path of all writes.
pub(crate) const PATH: &str = "/_gateway/writes";
/// The length of a page by default and at most.
const PAGE: usize = 50;
const LONGEST_PAGE: usize = 500;

/// The resource that a path names.
enum Named {
    All,
    One(WriteId),
}

impl Writes {
    /// Answers a request to one of the gateway's own paths.
    ///
    /// The order of the checks: path, credential, method. `HEAD` is answered like `GET`, and the
    /// server leaves the body out.
    ///
    /// # Errors
    /// If nothing is at the path, there is no credential, the method is not allowed (RFC 9110,
    /// section 15.5.6), or as the operation on the resource says.
    pub(crate) async fn own(
        self: &Arc<Self>,
        method: &Method,
        uri: &Uri,
        owner: Option<WriteOwner>,
    ) -> Result<Reply, GatewayError> {
        let named = named(uri.path()).ok_or(GatewayError::NotFound)?;
        let owner = owner.ok_or(GatewayError::Unauthorized)?;
        match (named, method) {
            (Named::All, &Method::GET | &Method::HEAD) => {
                self.list_writes(owner, uri.query()).await
            }
            (Named::One(id), &Method::GET | &Method::HEAD) => self.show_write(&owner, id).await,
            (Named::One(id), &Method::DELETE) => self.take_back(&owner, id).await,
            (Named::All, _) => Err(GatewayError::NotAllowed("GET, HEAD")),
            (Named::One(_), _) => Err(GatewayError::NotAllowed("GET, HEAD, DELETE")),
        }
    }

    /// Returns one page of an owner's writes, the oldest first.
    ///
    /// `next` is the id with which the following page is asked for. It is `null` on the last one.
    async fn list_writes(
        &self,
        owner: WriteOwner,
        query: Option<&str>,
    ) -> Result<Reply, GatewayError> {
        let page = Page::of(query.unwrap_or_default())?;
        let filter = Filter {
            owners: OwnerFilter::One(owner),
            operation: None,
            state: page.state,
            after: page.after,
        };
        let listed = self.durable.journal().list(filter, page.limit + 1).await;
        let mut records = listed.map_err(|error| self.journal_failed(&error))?;
        let has_more = records.len() > page.limit;
        records.truncate(page.limit);
        let next = records.last().filter(|_| has_more);
        let next = next.map(|record| record.id.to_string());
        let writes: Vec<Value> = records.iter().map(document).collect();
        let document = json!({ "data": { "writes": writes, "pagination": { "next": next } } });
        Ok(own(&document, None))
    }

    /// Returns one write. While it has not ended, `Retry-After` says when to look again, after
    /// [`LOOK_AGAIN`] at the latest.
    async fn show_write(&self, owner: &WriteOwner, id: WriteId) -> Result<Reply, GatewayError> {
        if let Some(pending) = self.live_of(owner, id) {
            let look_again = self.look_again(&pending).min(LOOK_AGAIN);
            return Ok(own(&self.document_of(&pending), Some(look_again)));
        }
        let record = self.record_of(owner, id).await?;
        Ok(own(
            &json!({ "data": { "write": document(&record) } }),
            None,
        ))
    }

    /// Returns a write that has been acknowledged and has not ended.
    /// A write that is still being accepted may yet be refused, so it is not shown.
    fn live_of(&self, owner: &WriteOwner, id: WriteId) -> Option<Arc<PendingWrite>> {
        let pending = self.durable.pending(id)?;
        let is_accepted = !matches!(pending.stage(), Stage::Accepting | Stage::Released(_));
        (pending.is_of(owner) && is_accepted).then_some(pending)
    }

    /// Returns the record of a write, if it is this owner's. Otherwise nothing is found.
    async fn record_of(&self, owner: &WriteOwner, id: WriteId) -> Result<Record, GatewayError> {
        let found = self.durable.journal().get(id).await;
        let found = found.map_err(|error| self.journal_failed(&error))?;
        let own = found.filter(|record| record.is_of(owner));
        own.ok_or(GatewayError::NotFound)
    }

    /// Takes a write back, and returns it as it ended.
    ///
    /// A second `DELETE` gets the same response, because the record decides.
    ///
    /// # Errors
    /// If the owner has no such write, it was sent or has ended otherwise, or the journal
    /// fails.
    async fn take_back(
        self: &Arc<Self>,
        owner: &WriteOwner,
        id: WriteId,
    ) -> Result<Reply, GatewayError> {
        if let Some(pending) = self.live_of(owner, id) {
            // It goes on if its caller hangs up. Otherwise the write could stay in the stage
            // `Cancelling`.
            let writes = self.clone();
            let cancelling = tasks::detached(async move { writes.cancel(&pending).await });
            cancelling.await.map_err(|_| GatewayError::Internal)??;
        }
        let record = self.record_of(owner, id).await?;
        match record.state {
            State::Cancelled => Ok(own(
                &json!({ "data": { "write": document(&record) } }),
                None,
            )),
            _ => Err(GatewayError::WriteSent),
        }
    }

    /// Ends a write that was not sent.
    ///
    /// The stage changes first: from then on the write is not sent, and the journal may take its
    /// time. If the journal fails, the write goes on as before.
    ///
    /// # Errors
    /// If it was sent or has ended, or the journal fails.
    pub(super) async fn cancel(&self, pending: &Arc<PendingWrite>) -> Result<(), GatewayError> {
        loop {
            match pending.cancel() {
                Ok(()) => break,
                Err(TooLate::Sent) => return Err(GatewayError::WriteSent),
                Err(TooLate::Cancelling) => pending.cancellation_ended().await,
            }
            // The other request has taken it back, or lets it go.
            if matches!(pending.stage(), Stage::Ended(_)) {
                return Ok(());
            }
        }
        let end = Change::End {
            id: pending.id,
            state: State::Cancelled,
            at: self.clock.wall(),
            answer: None,
        };
        match self.commit(vec![end]).await {
            // Absent: the journal has ended or removed it already, so it must not go on either.
            Ok(()) | Err(JournalError::Absent) => {}
            Err(error) => {
                self.defer_again(pending);
                return Err(self.journal_failed(&error));
            }
        }
        self.cancelled(pending);
        Ok(())
    }

    /// Returns what is shown of a write that has not ended.
    ///
    /// `estimatedWaitMs` is `null` where no end is known: see [`Writes::until_end`].
    /// `position` counts from one. It is `null` for a write that never waited for the scheduler,
    /// because its caller waits for it in the line of its budget.
    pub(super) fn document_of(&self, pending: &PendingWrite) -> Value {
        let tries = pending.tries();
        // Of the whole line: a write that is being sent when its line is paused still ends.
        let is_paused = self.is_paused(pending);
        let state = match pending.stage() {
            Stage::Sent => State::Dispatched,
            // It waits for a retry, and cannot be cancelled.
            Stage::Queued if tries.doubt.is_some() => State::Dispatched,
            Stage::Ended(ended) => ended.state,
            _ => State::Queued,
        };
        let estimate = self.until_end(pending);
        let mut write = json!({
            "id": pending.id.to_string(),
            "operation": &*pending.operation.name,
            "state": state.as_str(),
            "paused": is_paused,
            "attempts": tries.attempts,
            "acceptedAt": rfc3339(pending.since),
            "estimatedWaitMs": estimate.map(millis),
        });
        if state == State::Queued {
            let ahead = self.ahead(pending);
            write["position"] = json!(ahead.map(|(waiting, scheduled)| waiting + scheduled + 1));
        }
        pending.summary.add_to(&mut write);
        json!({ "data": { "write": write } })
    }
}

/// Returns the resource that a path names, if any. Ids have one spelling, in lower case.
fn named(path: &str) -> Option<Named> {
    let rest = path.strip_prefix(PATH)?;
    if rest.is_empty() {
        return Some(Named::All);
    }
    rest.strip_prefix('/')?.parse().ok().map(Named::One)
}

/// The page of a list that a query asks for.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    state: Option<State>,
    after: Option<WriteId>,
    /// The number of writes on the page, from 1 to [`LONGEST_PAGE`].
    limit: usize,
}

impl Page {
    /// Reads a query. If a parameter occurs twice, the last one counts.
    ///
    /// # Errors
    /// If a value is malformed, or a parameter unknown: a misspelt filter must not show everything.
    fn of(query: &str) -> Result<Self, GatewayError> {
        let mut page = Self {
            state: None,
            after: None,
            limit: PAGE,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "state" => page.state = Some(state(value)?),
                "after" => {
                    let id = value.parse();
                    page.after = Some(id.map_err(|_| {
                        GatewayError::BadRequest("`after` is not the id of a write")
                    })?);
                }
                "limit" => {
                    let limit = value.parse().ok();
                    let limit = limit.filter(|limit| (1..=LONGEST_PAGE).contains(limit));
                    page.limit = limit.ok_or(GatewayError::BadRequest(
                        "`limit` is not a number from 1 to 500",
                    ))?;
                }
                _ => {
                    return Err(GatewayError::BadRequest(
                        "A list of writes can be asked for by `state`, `after` and `limit` alone",
                    ));
                }
            }
        }
        Ok(page)
    }
}

/// Returns the state with this name.
fn state(name: &str) -> Result<State, GatewayError> {
    let state = State::ALL.into_iter().find(|state| state.as_str() == name);
    state.ok_or(GatewayError::BadRequest(
        "`state` is none of queued, dispatched, succeeded, failed, unknown and cancelled",
    ))
}

/// Returns what is shown of a write in the journal.
pub(super) fn document(record: &Record) -> Value {
    let mut write = json!({
        "id": record.id.to_string(),
        "operation": &*record.operation,
        "state": record.state.as_str(),
        "attempts": record.attempts,
        "acceptedAt": rfc3339(record.accepted),
    });
    for (name, at) in [
        ("dispatchedAt", record.dispatched),
        ("endedAt", record.ended),
    ] {
        if let Some(at) = at {
            write[name] = json!(rfc3339(at));
        }
    }
    if let Some(summary) = Summary::decode(&record.summary) {
        summary.add_to(&mut write);
    }
    if let Some(answer) = record.answer.as_ref().and_then(KeptAnswer::decode) {
        write["answer"] = answer_document(&answer);
    }
    write
}

/// Returns what is shown of the API's answer. Its body is JSON or text. `bodyLost` says that it was
/// not kept, for example because it was too long.
///
/// Several lines of one header are joined by commas (RFC 9110, section 5.3).
fn answer_document(answer: &KeptAnswer) -> Value {
    let mut headers = serde_json::Map::new();
    for name in answer.headers.keys() {
        let values = answer.headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        headers.insert(name.as_str().to_owned(), json!(values.join(", ")));
    }
    let body = answer.body.as_ref().map(|body| {
        let text = || Value::from(String::from_utf8_lossy(body));
        serde_json::from_slice(body).unwrap_or_else(|_| text())
    });
    json!({
        "status": answer.status.as_u16(),
        "headers": headers,
        "body": body,
        "bodyLost": answer.body.is_none(),
    })
}

/// Returns a response of the gateway's own.
fn own(document: &Value, look_again: Option<Duration>) -> Reply {
    let mut response = Response::new(Body::held(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = look_again {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(after)));
    }
    Reply::own(response)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn a_page_is_what_is_asked_for_or_an_error() {
        let id = "0192f0c1-2a3b-7c4d-8e5f-012345678901";
        let of = |query: &str| Page::of(query);
        let page = of(&format!("state=failed&limit=7&after={id}")).unwrap();
        assert_eq!(page.state, Some(State::Failed));
        assert_eq!((page.limit, page.after), (7, id.parse().ok()));
        assert_eq!(of("").unwrap().limit, PAGE);
        for wrong in [
            "state=done",
            "limit=0",
            "limit=501",
            "limit=",
            "after=x",
            "page=2",
            "state",
        ] {
            assert!(
                matches!(of(wrong), Err(GatewayError::BadRequest(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn an_id_that_is_none_names_nothing() {
        assert!(matches!(named(PATH), Some(Named::All)));
        for path in [
            "/_gateway",
            "/_gateway/",
            "/_gateway/writes/",
            "/_gateway/writes/1",
            "/_gateway/writesx",
            "/_gateway/writes/0192F0C1-2A3B-7C4D-8E5F-012345678901",
        ] {
            assert!(named(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_body_is_shown_as_what_it_is() {
        let shown = |body: Option<&'static str>| {
            let answer = KeptAnswer {
                status: http::StatusCode::OK,
                headers: HeaderMap::new(),
                body: body.map(Into::into),
            };
            answer_document(&answer)["body"].clone()
        };
        assert_eq!(shown(Some(r#"{"a":1}"#)), json!({"a": 1}));
        assert_eq!(shown(Some("<html>")), json!("<html>"));
        assert_eq!(shown(None), Value::Null);
    }
}
