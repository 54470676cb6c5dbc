//! Pure. Asking the API which elements of a refused POST took effect.
//!
//! Every list that would show them is read to its end, or until all have been found. An element that
//! is found counts as done, whoever did it: it must not be sent again. One that is not found has not
//! taken effect, provided that the lists were read to their end.
//!
//! A list of one page is seen as it was at one moment. One of several may change between two pages,
//! and if an entry before the cursor goes, another slips through unseen. So all pages have to say the
//! same `totalEntries`, and it has to be what they have together, else the list is read anew. That
//! leaves the case that others delete as much as they add between two pages.

use super::json;
use super::parts::{Element, Parts};
use crate::route::{MergePolicy, ReadBack};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Pages of 1,000, the most that the API gives at once, over all lists. A workspace that needs more
/// is not read to its end.
const MOST_PAGES: usize = 20;

/// All but unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A search for elements in the lists of the API.
#[derive(Debug)]
pub(super) struct Search {
    merge: Arc<MergePolicy>,
    lists: VecDeque<ReadBack>,
    cursor: Option<String>,
    /// Of the list that is read, what earlier pages had and what they said it has.
    seen: u64,
    total: Option<u64>,
    pages: usize,
    /// Names that have not been found.
    missing: HashSet<String>,
}

/// Where a search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is more to read.
    NotYet,
    /// What is missing has not taken effect.
    AllThereIs,
    /// Of what is missing nothing is known.
    Interrupted,
}

impl Search {
    /// For elements by their names.
    pub(super) fn new(
        merge: Arc<MergePolicy>,
        lists: &[ReadBack],
        names: impl Iterator<Item = String>,
    ) -> Self {
        Self {
            merge,
            lists: lists.iter().cloned().collect(),
            cursor: None,
            seen: 0,
            total: None,
            pages: 0,
            missing: names.collect(),
        }
    }

    /// The list that is read next, and its page.
    pub(super) fn next(&self) -> Option<(&ReadBack, String)> {
        let mut query = "pagination.count=1000".to_owned();
        if let Some(cursor) = &self.cursor {
            query.push_str("&pagination.cursor=");
            query.extend(utf8_percent_encode(cursor, RESERVED));
        }
        self.lists.front().map(|list| (list, query))
    }

    /// Whether an element is still to be found.
    pub(super) fn misses(&self, element: &Element) -> bool {
        self.missing.contains(&element.name)
    }

    /// Reads a page; `None` is one that could not be had.
    pub(super) fn read(&mut self, page: Option<&Response<Bytes>>) -> Found {
        self.pages += 1;
        let page = page.filter(|page| page.status().is_success());
        let data = page
            .and_then(|page| json::read(page.body()))
            .and_then(|mut body| body.get_mut("data").map(Value::take));
        let (Some(data), Some(list)) = (data, self.lists.front()) else {
            return Found::Interrupted;
        };
        // A list that is not where it is expected to be says nothing.
        let Some(names) = names(&data, &list.members) else {
            return Found::Interrupted;
        };
        for name in &names {
            self.missing.remove(&self.merge.known_by(name));
        }
        if !self.turn_page(&data["pagination"], names.len() as u64) {
            return Found::Interrupted;
        }
        if self.missing.is_empty() || self.lists.is_empty() {
            Found::AllThereIs
        } else if self.pages >= MOST_PAGES {
            Found::Interrupted
        } else {
            Found::NotYet
        }
    }
}

impl Search {
    /// Goes to the next page, to the next list, or back to the beginning of this one. False if it
    /// cannot be told whether the pages belong together.
    fn turn_page(&mut self, pagination: &Value, entries: u64) -> bool {
        let next = pagination["next"].as_str().filter(|next| !next.is_empty());
        let total = pagination["totalEntries"].as_u64();
        let first = self.cursor.is_none();
        let alone = first && next.is_none();
        if !alone && total.is_none() {
            return false;
        }
        let same = first || self.total == total;
        self.seen += entries;
        let complete = alone || total == Some(self.seen);
        self.total = total;
        match next {
            Some(next) if same => {
                self.cursor = Some(next.to_owned());
                return true;
            }
            None if same && complete => drop(self.lists.pop_front()),
            _ => {}
        }
        (self.cursor, self.seen) = (None, 0);
        true
    }
}

/// Every string at the end of `members`, through arrays wherever there are any; `None` if the list
/// itself is absent.
fn names<'v>(data: &'v Value, members: &[Box<str>]) -> Option<Vec<&'v str>> {
    let (list, rest) = members.split_first()?;
    let elements = data.get(&**list)?.as_array()?;
    let names = elements.iter().map(|element| {
        let mut value = element;
        for member in rest {
            value = value.get(&**member)?;
        }
        value.as_str()
    });
    names.collect()
}

/// A request for a read that belongs to the write of `parts`, whose template is `template`.
pub(super) fn request(
    read: &ReadBack,
    query: &str,
    like: &Request<Bytes>,
    (template, parts): (&str, &Parts),
) -> Option<Request<Bytes>> {
    let own: Vec<(&str, &str)> = template
        .split('/')
        .zip(parts.rest.path.split('/'))
        .collect();
    let segments = read.template.split('/').map(|segment| {
        let filled = own.iter().find(|(parameter, _)| *parameter == segment);
        match filled {
            Some((_, value)) if segment.starts_with('{') => Some(*value),
            _ => (!segment.starts_with('{')).then_some(segment),
        }
    });
    let path = segments.collect::<Option<Vec<_>>>()?.join("/");
    let mark = if query.is_empty() { "" } else { "?" };
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = format!("{path}{mark}{query}").parse::<Uri>().ok()?;
    *request.headers_mut() = without_content(like.headers());
    Some(request)
}

fn without_content(headers: &HeaderMap) -> HeaderMap {
    let kept = headers
        .iter()
        .filter(|(name, _)| !name.as_str().starts_with("content-"));
    let mut headers = HeaderMap::new();
    for (name, value) in kept {
        headers.append(name.clone(), value.clone());
    }
    headers
}
