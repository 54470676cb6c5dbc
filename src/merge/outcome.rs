//! Pure. What the answer to a batch says to each of its members.
//!
//! Invariant: a member hears what the API said of its own elements, or nothing; neither the body nor
//! a field that it is shown names an element of another. A refusal may be
//! about any element, so it is nobody's answer: each member is sent again, at last alone. It is never
//! concluded from the state afterwards what the batch has done: somebody else may have caused that.

use super::json;
use super::named::Owners;
use super::parts::Parts;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{Response, StatusCode};
use serde_json::Value;
use std::collections::HashSet;

/// The fields of an answer to a batch that its members are shown, besides those of rate limits:
/// they name no element, and are true of a part of its body as well.
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

/// What a member of a batch hears.
#[derive(Debug)]
pub enum Outcome {
    /// The API's answer, as far as it concerns this member.
    Answer(Response<Bytes>),
    /// Nobody knows whether it took effect; with the 5xx that says so little, if there was one.
    Unknown(Option<Response<Bytes>>),
    /// The API succeeded, but its answer cannot be attributed to the members.
    Unattributed,
    /// The API refused the batch, and with it nothing of this member in particular.
    Refused,
}

/// The outcomes of the members of one batch; `None` is no answer, or none that could be read to its
/// end.
pub fn outcomes(answer: Option<&Response<Bytes>>, members: &[&Parts]) -> Vec<Outcome> {
    let all = |outcome: &dyn Fn() -> Outcome| members.iter().map(|_| outcome()).collect();
    let Some(answer) = answer else {
        return all(&|| Outcome::Unknown(None));
    };
    let status = answer.status();
    if is_refusal(status) {
        return all(&|| Outcome::Refused);
    }
    let attributed = Attributed::new(answer, members);
    let outcome = |(at, parts): (usize, &&Parts)| match attributed.share(at, parts) {
        Some(share) if status.is_server_error() => Outcome::Unknown(Some(share)),
        Some(share) => Outcome::Answer(share),
        None if status.is_server_error() => Outcome::Unknown(None),
        None => Outcome::Unattributed,
    };
    members.iter().enumerate().map(outcome).collect()
}

/// Whether a status refuses a batch for the sake of one element, perhaps; the others are about the
/// caller or the moment.
pub fn is_refusal(status: StatusCode) -> bool {
    let of_all = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !of_all.contains(&status)
}

/// An answer to a batch, taken apart.
struct Attributed<'a> {
    answer: &'a Response<Bytes>,
    /// The elements that it repeats; `None` where it repeats none.
    echo: Option<Vec<String>>,
    /// Whether each of those is an element of some member.
    all_known: bool,
    /// The members whose elements it names elsewhere.
    named: HashSet<usize>,
    /// Whether it cannot be told whom it is about.
    obscure: bool,
}

impl<'a> Attributed<'a> {
    fn new(answer: &'a Response<Bytes>, members: &[&'a Parts]) -> Self {
        let mut this = Self {
            answer,
            echo: None,
            all_known: false,
            named: HashSet::new(),
            // It answers element by element, in a form that is not known here.
            obscure: answer.status() == StatusCode::MULTI_STATUS,
        };
        let Some(merge) = members.first().map(|first| &first.merge) else {
            return this;
        };
        let echoes = merge.echoes.as_deref();
        let echoes = echoes.filter(|_| answer.status().is_success());
        let owners = Owners::of(merge, members);
        let Some(mut body) = json::read(answer.body()) else {
            // It may be coded, or escape what it names.
            let text = std::str::from_utf8(answer.body()).ok();
            let text = text.filter(|text| !text.contains('\\'));
            this.obscure |= text.is_none() || echoes.is_some() && !answer.body().is_empty();
            this.named = owners.named_in(text.unwrap_or_default());
            return this;
        };
        if let Some(list) = echoes.and_then(|list| body.get_mut("data")?.get_mut(list)) {
            this.echo = strings(list);
            if this.echo.is_some() {
                *list = Value::Null;
            }
        }
        let echo = this.echo.iter().flatten();
        this.all_known = echo.clone().all(|text| owners.owns(text));
        each_string(&body, &mut |text| this.named.extend(owners.named_in(text)));
        this
    }

    /// The answer as it concerns one member; `None` if that cannot be told. The echo may have fewer
    /// elements than its request: the API leaves them out then, whoever else asks for others.
    fn share(&self, at: usize, parts: &Parts) -> Option<Response<Bytes>> {
        if self.obscure || self.named.iter().any(|other| *other != at) {
            return None;
        }
        let Some(echo) = &self.echo else {
            return Some(shown(self.answer, self.answer.body().clone()));
        };
        let own: Vec<_> = echo.iter().filter(|name| parts.owns(name)).collect();
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

/// Every string of a JSON value.
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

/// The answer with this body and those of its fields that a member is shown.
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
