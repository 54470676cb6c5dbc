//! Pure. Which writes share a batch, and the request that carries them.
//!
//! A list in a query is written `emails.0=a%40b.c&emails.1=…`, as in the API reference and the Go
//! SDK, after the other parameters in canonical form. A list in a body is written as compact JSON.
//! A write that is sent alone is not rewritten; it is forwarded as received.

use super::batching::Batching;
use super::parts::{Element, Parts};
use crate::route::Elements;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Uri};
use std::collections::{BTreeSet, HashSet};

/// The bounds of a batch. The route table bounds the number of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The size of the body in bytes.
    pub body: usize,
    /// The size of path and query in bytes.
    pub target: usize,
    /// The number of other writes with which its members may be batched.
    pub batching: Batching,
}

impl Default for Bounds {
    /// A body of 1 MiB, as callers may send it. A target of 8 KiB, the least that RFC 9110 (section
    /// 4.1) recommends everyone to support.
    fn default() -> Self {
        Self {
            body: 1024 * 1024,
            target: 8 * 1024,
            batching: Batching::Full,
        }
    }
}

/// Selects those `waiting` writes that share a batch with `first`, and returns `first` and them, in
/// their order.
///
/// A write joins under three conditions. It equals `first` in everything but its elements. It lists
/// none that is already listed; otherwise it waits for the next batch. And `follows` confirms that
/// it waits in its lanes only for writes selected before it; see
/// [`LaneOrder::follows`](../lanes/struct.LaneOrder.html#method.follows). A write that does not fit
/// into the bounds is skipped. `waiting` should be in the order of acceptance. If fewer writes are
/// selected than a batch needs, `first` is returned alone.
pub fn choose<'p, T: Copy + Ord>(
    first: (T, &'p Parts),
    waiting: impl IntoIterator<Item = (T, &'p Parts)>,
    bounds: Bounds,
    follows: impl Fn(T, &BTreeSet<T>) -> bool,
) -> Vec<T> {
    let (first, parts) = first;
    let mut chosen = vec![first];
    let mut among = BTreeSet::from([first]);
    let mut listed: HashSet<&str> = parts.names().collect();
    let most = parts.merge.most;
    let room = match parts.merge.elements {
        Elements::Query(_) => bounds.target,
        Elements::Body { .. } => bounds.body,
    };
    let (fewest, most_members) = bounds.batching.members();
    let mut size = parts.rest_size() + parts.list_size();
    for (turn, other) in waiting {
        // The batch is full, so no further write can join.
        if listed.len() >= most || chosen.len() >= most_members {
            break;
        }
        let fits = listed.len() + other.elements.len() <= most && size + other.list_size() <= room;
        // The cheap checks come first: `follows` walks the lanes.
        let joins = fits
            && !among.contains(&turn)
            && other.rest == parts.rest
            && !other.names().any(|name| listed.contains(name))
            && follows(turn, &among);
        if joins {
            chosen.push(turn);
            among.insert(turn);
            listed.extend(other.names());
            size += other.list_size();
        }
    }
    if chosen.len() < fewest {
        chosen.truncate(1);
    }
    chosen
}

/// Builds the request with all elements of `members`. Its header is that of `first`, the request of
/// the first member, except that it requests a response without content coding, which can be
/// divided. `None` if there are no elements.
pub fn union(first: &Request<Bytes>, members: &[&Parts]) -> Option<Request<Bytes>> {
    let elements = members.iter().flat_map(|parts| &parts.elements);
    let mut request = members.first()?.request(first, elements)?;
    if let Some(codings) = request.headers_mut().get_mut(ACCEPT_ENCODING) {
        *codings = HeaderValue::from_static("identity");
    }
    Some(request)
}

impl Parts {
    /// Whether the write could join these, which share a batch led by the first.
    pub fn fits(&self, aboard: &[Self], bounds: Bounds) -> bool {
        let Some((first, others)) = aboard.split_first() else {
            return false;
        };
        if first.rest != self.rest {
            return false;
        }
        let waiting = others.iter().chain([self]);
        let waiting = waiting.enumerate().map(|(turn, parts)| (turn + 1, parts));
        let chosen = choose((0, first), waiting, bounds, |_, _| true);
        chosen.last() == Some(&aboard.len())
    }

    /// Builds the request with these elements, and otherwise like this one.
    pub(super) fn request<'e>(
        &self,
        like: &Request<Bytes>,
        elements: impl IntoIterator<Item = &'e Element>,
    ) -> Option<Request<Bytes>> {
        let mut texts = elements
            .into_iter()
            .map(|element| element.text.as_str())
            .peekable();
        texts.peek()?;
        let (mut query, mut body) = (self.rest.query.clone(), String::new());
        match &self.merge.elements {
            Elements::Query(list) => {
                for (index, text) in texts.enumerate() {
                    let and = if query.is_empty() { "" } else { "&" };
                    query.push_str(&format!("{and}{list}.{index}={text}"));
                }
            }
            Elements::Body { list, .. } => {
                let elements: Vec<&str> = texts.collect();
                body = format!("{{\"{list}\":[{}]", elements.join(","));
                let others = self.rest.members.as_deref().unwrap_or("{}");
                if others != "{}" {
                    body.push(',');
                }
                body.push_str(others.strip_prefix('{').unwrap_or(others));
            }
        }
        let mark = if query.is_empty() { "" } else { "?" };
        let target = format!("{}{mark}{query}", self.rest.path);
        let mut request = like.clone();
        *request.uri_mut() = Uri::from(PathAndQuery::try_from(target).ok()?);
        *request.body_mut() = body.into();
        Some(request)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.elements.iter().map(|element| element.name.as_str())
    }

    /// The bytes that the elements take in a batch, at most.
    fn list_size(&self) -> usize {
        let each = match &self.merge.elements {
            // `&list.999=`
            Elements::Query(list) => list.len() + "&.999=".len(),
            Elements::Body { .. } => ",".len(),
        };
        let elements = self.elements.iter();
        elements.map(|element| element.text.len() + each).sum()
    }

    /// The bytes of a batch besides its elements, at most, in the part of the request that holds
    /// the elements.
    fn rest_size(&self) -> usize {
        match &self.merge.elements {
            Elements::Query(_) => self.rest.path.len() + "?".len() + self.rest.query.len(),
            Elements::Body { list, .. } => {
                let others = self.rest.members.as_ref().map_or(0, String::len);
                list.len() + r#"{"":[],}"#.len() + others
            }
        }
    }
}
