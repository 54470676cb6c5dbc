//! Pure. What each caller hears, from what the API answered to all of them.

use super::json;
use super::parts::Parts;
use crate::route::Answers;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{Response, StatusCode};
use serde_json::Value;

/// Fields that speak of a body which is not the one that is sent with them now.
const OF_ANOTHER_BODY: [HeaderName; 9] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// The answer of one of the callers, from that to the union. A list that repeats the elements is
/// reduced to the caller's own; a status or the state afterwards is the same to all, and so is
/// whatever is not understood.
pub(super) fn share(answer: &Response<Bytes>, parts: &Parts) -> Response<Bytes> {
    own_echo(answer, parts).unwrap_or_else(|| answer.clone())
}

fn own_echo(answer: &Response<Bytes>, parts: &Parts) -> Option<Response<Bytes>> {
    let Answers::Echo(list) = &parts.merge.answers else {
        return None;
    };
    let mut body = json::read(answer.body())?;
    let echoed = body.get_mut("data")?.get_mut(&**list)?.as_array_mut()?;
    if !echoed.iter().all(Value::is_string) {
        return None;
    }
    echoed.retain(|name| name.as_str().is_some_and(|name| parts.owns(name)));
    // With less than its own, the list is another than it is taken for.
    (echoed.len() == parts.len()).then(|| with_body(answer, answer.status(), body.to_string()))
}

/// The answer to a write whose effect has been seen but was not answered, with the header of
/// another answer to the same caller: 201 and the elements where the API repeats them
/// (createInvites), else its answer to every DELETE of a list.
pub(super) fn done(like: &Response<Bytes>, parts: &Parts) -> Response<Bytes> {
    let elements = parts.elements.iter();
    let (status, data) = match &parts.merge.answers {
        Answers::Echo(list) => {
            let own = elements.map(|element| Value::from(element.written.as_str()));
            let own = own.collect::<Vec<_>>();
            (StatusCode::CREATED, serde_json::json!({ &**list: own }))
        }
        Answers::Alike | Answers::State(_) => {
            (StatusCode::OK, serde_json::json!({ "status": "SUCCESS" }))
        }
    };
    let body = serde_json::json!({ "data": data });
    with_body(like, status, body.to_string())
}

fn with_body(like: &Response<Bytes>, status: StatusCode, body: String) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    *answer.version_mut() = like.version();
    answer.headers_mut().clone_from(like.headers());
    for name in &OF_ANOTHER_BODY {
        answer.headers_mut().remove(name);
    }
    answer
}
