//! Pure. The meaning of a batch's response for each of its members.
//!
//! Invariant: a member gets what the API said about its own elements, or nothing. Neither the body
//! nor the fields that it gets name an element of another member. A rejection may concern any
//! element, so no member gets it: each is retried, in the end alone. The effect of a batch is
//! never inferred from the later state of the data, because someone else may have caused that.

use super::json;
use super::named::Owners;
use super::parts::Parts;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{Response, StatusCode};
use serde_json::Value;
use std::collections::HashSet;

/// The response fields that members get, besides rate limits. They name no element and remain true
/// for a part of the body.
const SHOWN: [HeaderName; 11] = [
    header::CACHE_CONTROL,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::EXPIRES,
    header::RETRY_AFTER,
    header::SERVER,
    header::STRICT_TRANSPORT_SECURITY,
    header::VARY,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("x-request-id"),
];

/// The outcome of one member of a batch.
#[derive(Debug)]
pub enum MemberOutcome {
    /// The part of the API's response that concerns this member.
    Answer(Response<Bytes>),
    /// Unknown whether the write took effect. Contains the 5xx response, if there was one and it
    /// can be attributed.
    Unknown(Option<Response<Bytes>>),
    /// The API succeeded, but its response cannot be attributed to the members.
    Unattributed,
    /// The API rejected the batch, which says nothing about this member in particular.
    Refused,
}

/// Returns the outcomes of the members of one batch. `answer` is `None` without a response, or if
/// it could not be read to its end.
pub fn outcomes(answer: Option<&Response<Bytes>>, members: &[&Parts]) -> Vec<MemberOutcome> {
    let all = |outcome: &dyn Fn() -> MemberOutcome| members.iter().map(|_| outcome()).collect();
    let Some(answer) = answer else {
        return all(&|| MemberOutcome::Unknown(None));
    };
    let status = answer.status();
    if is_refusal(status) {
        return all(&|| MemberOutcome::Refused);
    }
    let attributed = Attributed::new(answer, members);
    let outcome = |(at, parts): (usize, &&Parts)| match attributed.share(at, parts) {
        Some(share) if status.is_server_error() => MemberOutcome::Unknown(Some(share)),
        Some(share) => MemberOutcome::Answer(share),
        None if status.is_server_error() => MemberOutcome::Unknown(None),
        None => MemberOutcome::Unattributed,
    };
    members.iter().enumerate().map(outcome).collect()
}

/// Whether a status may reject a batch because of one element. Other statuses concern the caller or
/// the moment.
pub fn is_refusal(status: StatusCode) -> bool {
    let of_all = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !of_all.contains(&status)
}

/// The response to a batch, taken apart.
struct Attributed<'a> {
    answer: &'a Response<Bytes>,
    /// The elements that the response repeats. `None` if it repeats none.
    echo: Option<Vec<String>>,
    /// Whether each repeated element belongs to some member.
    all_known: bool,
    /// The members whose elements the response names elsewhere.
    named: HashSet<usize>,
    /// Whether it is impossible to tell which members the response concerns.
    obscure: bool,
}

impl<'a> Attributed<'a> {
    fn new(answer: &'a Response<Bytes>, members: &[&'a Parts]) -> Self {
        let mut this = Self {
            answer,
            echo: None,
            all_known: false,
            named: HashSet::new(),
            // A multi-status response treats each element separately, in a form unknown here.
            obscure: answer.status() == StatusCode::MULTI_STATUS,
        };
        let Some(merge) = members.first().map(|first| &first.merge) else {
            return this;
        };
        let echoes = merge.echoes.as_deref();
        let echoes = echoes.filter(|_| answer.status().is_success());
        let owners = Owners::of(merge, members);
        let Some(mut body) = json::read(answer.body()) else {
            // The body may be encoded, or may escape the names in it.
            let text = std::str::from_utf8(answer.body()).ok();
            let text = text.filter(|text| !text.contains('\\'));
            this.obscure |= text.is_none() || echoes.is_some() && !answer.body().is_empty();
            this.named = owners.named_in(text.unwrap_or_default());
            return this;
        };
        if let Some(list) = echoes.and_then(|list| body.get_mut("data")?.get_mut(list)) {
            this.echo = strings(list);
            if this.echo.is_some() {
                // Emptied, so that the search below finds only names in other places.
                *list = Value::Null;
            }
        }
        let echo = this.echo.iter().flatten();
        this.all_known = echo.clone().all(|text| owners.owns(text));
        each_string(&body, &mut |text| this.named.extend(owners.named_in(text)));
        this
    }

    /// The part of the response that concerns one member. `None` if that is uncertain. The API may
    /// leave elements out of the repeated list; their absence is then the same as in a response to
    /// the member alone.
    fn share(&self, at: usize, parts: &Parts) -> Option<Response<Bytes>> {
        if self.obscure || self.named.iter().any(|other| *other != at) {
            return None;
        }
        let Some(echo) = &self.echo else {
            return Some(shown(self.answer, self.answer.body().clone()));
        };
        let own: Vec<_> = echo.iter().filter(|name| parts.owns(name)).collect();
        // An unknown element may be one of this member's in a spelling of the API's own.
        if own.len() != parts.len() && !self.all_known {
            return None;
        }
        let mut body = json::read(self.answer.body())?;
        *body
            .get_mut("data")?
            .get_mut(parts.merge.echoes.as_deref()?)? = own.into_iter().cloned().collect();
        Some(shown(self.answer, body.to_string().into()))
    }
}

/// The elements of a list of strings.
fn strings(list: &Value) -> Option<Vec<String>> {
    let elements = list.as_array()?.iter();
    elements
        .map(|element| element.as_str().map(ToOwned::to_owned))
        .collect()
}

/// Calls `found` with every string of a JSON value, including the names of members.
fn each_string(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(values) => values.iter().for_each(|value| each_string(value, found)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            found(name);
            each_string(value, found);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A response with this body and the fields that members get.
fn shown(whole: &Response<Bytes>, body: Bytes) -> Response<Bytes> {
    let mut answer = Response::new(body);
    *answer.status_mut() = whole.status();
    *answer.version_mut() = whole.version();
    let fields = whole.headers().iter().filter(|(name, _)| is_shown(name));
    let fields = fields.map(|(name, value)| (name.clone(), value.clone()));
    answer.headers_mut().extend(fields);
    answer
}

fn is_shown(name: &HeaderName) -> bool {
    let of_limits = ["ratelimit", "x-ratelimit-"];
    SHOWN.contains(name)
        || of_limits
            .iter()
            .any(|prefix| name.as_str().starts_with(prefix))
}
