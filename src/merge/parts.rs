//! Pure. One request taken apart: the elements of its list, and the rest, which must be equal in a
//! batch.
//!
//! Promises that a batch means to the API what its requests mean one by one. So whatever could be
//! read in two ways is not taken apart, and the request is sent alone.
//!
//! Which requests share a batch, and in which order, is decided elsewhere.

use super::json;
use crate::route::names::MAX_NAME_BYTES;
use crate::route::{Elements, MergePolicy, Operation, names, query};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// The largest body that is taken apart, in bytes. Fifty invitations with many permissions fit.
/// Parsing takes some ten times this size in memory, which stays small.
const LARGEST_BODY: usize = 128 * 1024;

/// The longest name of an element in bytes. With the prefix of an order key it stays within the
/// bound of names. Ids and addresses of the API have at most 255 characters.
const LONGEST_NAME: usize = MAX_NAME_BYTES - 64;

/// Fields that identify the client or accompany the request, and that the API does not act on. A
/// batch carries those of its first write.
const TELLTALE: [HeaderName; 5] = [
    header::USER_AGENT,
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// Fields that apply to one body or one request and would be wrong for a batch: codings and digests
/// (RFC 9110, 9530), signatures (RFC 9421), conditions, keys.
const BINDING: [HeaderName; 13] = [
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("signature-input"),
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    HeaderName::from_static("idempotency-key"),
];

/// The elements of one request, and the rest of it.
#[derive(Clone)]
pub struct Parts {
    /// The rules of the operation for batches.
    pub(super) merge: Arc<MergePolicy>,
    pub(super) rest: Rest,
    /// At least one and at most `merge.most`, each with another name.
    pub(super) elements: Vec<Element>,
}

/// Everything in which two requests must be equal to share a batch.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Rest {
    /// Its index in the route table.
    operation: usize,
    method: Method,
    /// The path as sent, which may name what the elements belong to, such as a group.
    pub(super) path: Box<str>,
    /// The canonical query without the list.
    pub(super) query: String,
    /// Sorted by name. The values of one name keep their order.
    fields: Vec<(HeaderName, HeaderValue)>,
    /// The other members of the body. `None` without a body.
    pub(super) members: Option<String>,
}

/// One element of the list.
#[derive(Clone)]
pub(super) struct Element {
    /// The identity of the element: elements with equal names are the same.
    pub(super) name: String,
    /// The form in which it is sent: percent-encoded in a query, JSON in a body.
    pub(super) text: String,
}

impl Parts {
    /// Takes apart `request`, as it would be sent to the API. `None` if its operation is not
    /// batched or if anything in it is ambiguous. Such a request is sent alone.
    pub fn of(operation: &Operation, request: &Request<Bytes>) -> Option<Self> {
        let merge = operation.merge.as_ref().filter(|merge| merge.enabled)?;
        let canonical = query::canonical(request.uri().query(), &operation.lists).ok()?;
        let body = request.body();
        let (found, query, members) = match &merge.elements {
            Elements::Query(list) => {
                // The API also accepts parameters of some requests in the body.
                if !body.is_empty() {
                    return None;
                }
                let (found, query) = in_query(&canonical, list)?;
                (found, query, None)
            }
            Elements::Body { list, name } => {
                if !is_json(request.headers()) || body.len() > LARGEST_BODY {
                    return None;
                }
                let (found, members) = in_body(body, list, name.as_deref())?;
                (found, canonical, Some(members))
            }
        };
        let rest = Rest {
            operation: operation.index,
            method: request.method().clone(),
            path: request.uri().path().into(),
            query,
            fields: fields(request.headers())?,
            members,
        };
        let elements = distinct(found, merge)?;
        Some(Self {
            merge: merge.clone(),
            rest,
            elements,
        })
    }

    /// The number of elements, at least one.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// The largest number of elements in a batch.
    pub fn most(&self) -> usize {
        self.merge.most.max(1)
    }

    /// Always `false`.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Whether the request has an element with this name, in any spelling.
    pub(super) fn owns(&self, written: &str) -> bool {
        let name = known_by(&self.merge, written);
        self.elements.iter().any(|element| element.name == name)
    }
}

/// The identity of an element with this written name. Addresses are compared as in order keys, so
/// that equal elements are in the same lane.
pub(super) fn known_by(merge: &MergePolicy, written: &str) -> String {
    if merge.people {
        names::person(written)
    } else {
        written.to_owned()
    }
}

impl fmt::Debug for Parts {
    /// Shows only the number of elements: they are personal data, and one of the fields is a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts({} elements)", self.elements.len())
    }
}

/// The written name and the text of each element.
type Found = Vec<(String, String)>;

/// Splits a canonical query into the elements of a list and the rest. `None` if a parameter has no
/// `=`, or an element could be read in two ways.
fn in_query(canonical: &str, list: &str) -> Option<(Found, String)> {
    let (mut found, mut rest) = (Vec::new(), Vec::new());
    for pair in canonical.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        if name.split('.').next() != Some(list) {
            rest.push(pair);
            continue;
        }
        let written = percent_encoding::percent_decode_str(value)
            .decode_utf8()
            .ok()?;
        // Servers differ about such values. A raw `+` may be a space, a comma may end an element,
        // and `emails=emails.0%3Da` may be a list within a value.
        if value.contains('+') || written.contains([',', '=']) {
            return None;
        }
        found.push((written.into_owned(), value.to_owned()));
    }
    Some((found, rest.join("&")))
}

/// Splits a JSON object into the elements of a list and the object without the list. `name` is the
/// member that names an element. Without it an element names itself.
///
/// `None` if the body is not such an object, or would not mean the same when written again.
fn in_body(body: &[u8], list: &str, name: Option<&str>) -> Option<(Found, String)> {
    let Value::Object(mut members) = json::read(body)? else {
        return None;
    };
    let Value::Array(elements) = members.remove(list)? else {
        return None;
    };
    let found = elements.iter().map(|element| {
        let text = element.to_string();
        let written = match (name, element) {
            (Some(name), Value::Object(_)) => element.get(name)?.as_str()?.to_owned(),
            (None, Value::String(written)) => written.clone(),
            (None, Value::Object(_)) => text.clone(),
            _ => return None,
        };
        Some((written, text))
    });
    Some((
        found.collect::<Option<_>>()?,
        Value::Object(members).to_string(),
    ))
}

/// Returns the elements. `None` if there are none or too many, if one is listed twice, or if a name
/// is not plain. What the API does with a repeated element is its own affair, so such a request is
/// not touched.
fn distinct(found: Found, merge: &MergePolicy) -> Option<Vec<Element>> {
    if found.is_empty() || found.len() > merge.most {
        return None;
    }
    let mut seen = HashSet::with_capacity(found.len());
    let elements = found.into_iter().map(|(written, text)| {
        let name = known_by(merge, &written);
        // The API may trim names before it compares them.
        let plain = !written.is_empty() && written.trim() == written;
        // An object that is its own name does not occur in a lane, so the bound of names does not
        // apply.
        let nameless = written == text && text.starts_with('{');
        let short = nameless || written.len() <= LONGEST_NAME;
        let fit = plain && short && seen.insert(name.clone());
        fit.then_some(Element { name, text })
    });
    elements.collect()
}

/// Returns the fields that must be equal in a batch, the token among them. `None` if one applies to
/// this request alone.
fn fields(headers: &HeaderMap) -> Option<Vec<(HeaderName, HeaderValue)>> {
    if BINDING.iter().any(|name| headers.contains_key(name)) {
        return None;
    }
    let fields = headers.iter().filter(|(name, _)| !TELLTALE.contains(name));
    let mut fields: Vec<_> = fields
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    fields.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    Some(fields)
}

/// Returns whether `Content-Type` occurs once and says JSON in UTF-8: `application/json`, or a type
/// that ends in `+json` (RFC 6839, section 3.1). Other charsets are not decoded here.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Ok(value) = value.to_str() else {
        return false;
    };
    let value = value.to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let json = media == "application/json"
        || (media.starts_with("application/") && media.ends_with("+json"));
    json && parts.all(|parameter| matches!(parameter, "charset=utf-8" | "charset=\"utf-8\""))
}
