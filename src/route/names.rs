//! Pure. Tags and order keys: templates of names, and their names in one request.
//!
//! A template is a prefix and at most one placeholder at its end, so two values never give the same
//! name. If a value cannot be read, [`expand`] fails and returns no names at all. A write with an
//! unreadable value must count as acting on everything that its template could name, never on less
//! than it does.
//!
//! Names must be the same for the same data, however a request writes it. The tags of a write are
//! compared with those of stored responses, and the order keys of one write with those of another.
//! A change of the spelling of names is therefore a change of what invalidates and what waits.
//!
//! Not here: what a name stands for, and what happens to a request without names.

use super::pattern::PathParams;
use super::policy::{NameTemplate, Source};
use super::query;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use unicode_normalization::UnicodeNormalization;

/// The largest number of names that one list of templates may give in one request. More names are
/// [`Unreadable::TooMany`], which bounds the memory and the lanes of a single write.
pub const MAX_NAMES: usize = 1000;

/// The longest name in bytes. Ids and email addresses of the API have at most 255 characters.
/// Longer names are [`Unreadable::TooLong`], because the places that keep names bound only their
/// number.
pub const MAX_NAME_BYTES: usize = 320;

/// The prefix of names whose values are email addresses. See [`person`].
const PERSON: &str = "person:";

/// The reason why the names of a request cannot be determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The body is not JSON (RFC 8259).
    NotJson,
    /// A parameter or member of a placeholder is absent.
    Missing,
    /// A member of a placeholder is not a string.
    WrongType,
    /// The query string is malformed, so it may contain a value in disguise.
    Query,
    /// A list is expected in the query, but the request has a body that may contain another.
    Elsewhere,
    /// The request gives more than [`MAX_NAMES`] names.
    TooMany,
    /// A name is longer than [`MAX_NAME_BYTES`].
    TooLong,
}

impl Unreadable {
    /// A short name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "body-not-json",
            Self::Missing => "value-missing",
            Self::WrongType => "value-not-a-string",
            Self::Query => "query-malformed",
            Self::Elsewhere => "value-in-body",
            Self::TooMany => "too-many-values",
            Self::TooLong => "value-too-long",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of a request, parsed as JSON when a placeholder needs it. It is never held in parsed
/// form, which may take a hundred times its size. Of a repeated member the last one counts, as is
/// common practice (RFC 8259, section 4).
pub struct JsonBody<'b> {
    /// The bytes as received. Empty for a request without a body.
    bytes: &'b [u8],
}

impl<'b> JsonBody<'b> {
    /// Wraps the bytes without reading them.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    /// Adds the names that `wanted` finds. Reads to the end of the body: what follows the value
    /// must be white space, or the API might see another document than this.
    fn read(&self, wanted: Wanted<'_>) -> Result<(), Unreadable> {
        let mut json = serde_json::Deserializer::from_slice(self.bytes);
        let read = Reading(Some(wanted)).deserialize(&mut json);
        let read = read.and_then(|found| json.end().map(|()| found));
        read.map_err(|_| Unreadable::NotJson)?
    }
}

impl fmt::Debug for JsonBody<'_> {
    /// Shows only the length, because bodies contain personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonBody({} bytes)", self.bytes.len())
    }
}

/// Returns the names that the templates give in one request, without duplicates, in the order of
/// the templates. An empty list in a JSON body gives no name, which is no error.
///
/// # Errors
/// The first reason why a name cannot be determined. An absent list is [`Unreadable::Missing`].
pub fn expand(
    templates: &[NameTemplate],
    params: &PathParams,
    query: Option<&str>,
    body: &JsonBody<'_>,
) -> Result<Vec<String>, Unreadable> {
    let mut names = Names::default();
    // The first template that cannot be read ends it: the result would be rejected anyway.
    for template in templates {
        match &template.source {
            Source::Literal => names.add(template, "")?,
            Source::Path(name) => {
                names.add(template, params.get(name).ok_or(Unreadable::Missing)?)?;
            }
            Source::Query(name) => {
                // Another server might find a different value in an unclear query.
                if !query::is_clear(query) {
                    return Err(Unreadable::Query);
                }
                // The API also accepts parameters of some requests in the body. The SDKs send no
                // body with these.
                if !body.bytes.is_empty() {
                    return Err(Unreadable::Elsewhere);
                }
                let values = query::list_values(query, name);
                // A list that is absent may mean everything, so it is not the same as an empty one.
                if values.is_empty() {
                    return Err(Unreadable::Missing);
                }
                for value in &values {
                    names.add(template, value)?;
                }
            }
            Source::Body(members) => body.read(Wanted {
                members,
                template,
                names: &mut names,
            })?,
        }
    }
    // After the last template, so that malformed input is reported as such and not as too many
    // names.
    if names.list.len() > MAX_NAMES {
        Err(Unreadable::TooMany)
    } else {
        Ok(names.list)
    }
}

/// The names found so far, without duplicates. At most one more than [`MAX_NAMES`], however many
/// there are.
#[derive(Default)]
struct Names {
    /// The names in the order in which they were found.
    list: Vec<String>,
    /// The names in `list`, to find duplicates. The two always have the same names.
    seen: HashSet<String>,
}

impl Names {
    /// Adds the name of one value, unless it is known or there are too many already.
    fn add(&mut self, template: &NameTemplate, value: &str) -> Result<(), Unreadable> {
        let name = fill(template, value)?;
        // One name beyond the bound is enough to know that there are too many.
        if self.list.len() <= MAX_NAMES && self.seen.insert(name.clone()) {
            self.list.push(name);
        }
        Ok(())
    }

    /// Removes all but the first `length` names.
    fn truncate(&mut self, length: usize) {
        for name in self.list.drain(length..) {
            self.seen.remove(&name);
        }
    }
}

/// Normalises an email address for comparison: trimmed, in lower case, and in the composed form of
/// Unicode (NFC). All these spellings may denote the same person. If they denote two, their writes
/// wait for each other, which is harmless.
pub fn person(address: &str) -> String {
    let lower = address.trim().to_lowercase();
    if lower.is_ascii() {
        return lower;
    }
    lower.nfc().collect()
}

/// Joins prefix and value. An email address is normalised.
fn fill(template: &NameTemplate, value: &str) -> Result<String, Unreadable> {
    // Normalising may lengthen a name by a few bytes, which is harmless.
    if template.prefix.len() + value.len() > MAX_NAME_BYTES {
        return Err(Unreadable::TooLong);
    }
    let mut name = String::with_capacity(template.prefix.len() + value.len());
    name.push_str(&template.prefix);
    if names_people(template) {
        name.push_str(&person(value));
    } else {
        name.push_str(value);
    }
    Ok(name)
}

/// The search in a JSON value: every string at the end of `members`, through arrays wherever they
/// occur.
struct Wanted<'a> {
    /// The members still to follow. Empty if the present value is the one that is wanted.
    members: &'a [Box<str>],
    template: &'a NameTemplate,
    names: &'a mut Names,
}

impl Wanted<'_> {
    /// Reborrows the search for a nested value.
    fn again(&mut self) -> Wanted<'_> {
        Wanted {
            members: self.members,
            template: self.template,
            names: self.names,
        }
    }
}

/// Reads one value in a stream and keeps only names. It reads unwanted parts as well, so that
/// malformed JSON is found anywhere. The parser bounds the depth.
struct Reading<'a>(Option<Wanted<'a>>);

/// A missing or wrong value does not end the reading, because the same member may occur again.
type Found = Result<(), Unreadable>;

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Found, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Err(Unreadable::WrongType))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Err(Unreadable::WrongType))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Err(Unreadable::WrongType))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Err(Unreadable::WrongType))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Err(Unreadable::WrongType))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        Ok(match self.0 {
            Some(wanted) if wanted.members.is_empty() => wanted.names.add(wanted.template, text),
            _ => Err(Unreadable::WrongType),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<Found, A::Error> {
        // Every element is read even after an error, so that the whole body is checked.
        let mut all = Ok(());
        while let Some(found) =
            array.next_element_seed(Reading(self.0.as_mut().map(Wanted::again)))?
        {
            all = all.and(found);
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Found, A::Error> {
        // The next member and those behind it. `None` if this value is unwanted, or should be a
        // string.
        let path = self
            .0
            .as_ref()
            .and_then(|wanted| wanted.members.split_first());
        let before = self.0.as_ref().map_or(0, |wanted| wanted.names.list.len());
        // The result if no member of that name occurs.
        let mut last = match path {
            Some(_) => Err(Unreadable::Missing),
            None => Err(Unreadable::WrongType),
        };
        while let Some(is_member) = object.next_key_seed(IsNamed(path.map(|(name, _)| &**name)))? {
            let wanted = self.0.as_mut().map(Wanted::again).zip(path);
            let (Some((mut wanted, (_, rest))), true) = (wanted, is_member) else {
                let _ = object.next_value_seed(Reading(None))?;
                continue;
            };
            // The last occurrence of a member counts, so the names of earlier ones are dropped.
            wanted.names.truncate(before);
            wanted.members = rest;
            last = object.next_value_seed(Reading(Some(wanted)))?;
        }
        Ok(last)
    }
}

/// Compares the name of a member.
struct IsNamed<'a>(Option<&'a str>);

impl<'de> DeserializeSeed<'de> for IsNamed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for IsNamed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(self.0 == Some(name))
    }
}

/// Whether the values of this template are email addresses.
pub fn names_people(template: &NameTemplate) -> bool {
    &*template.prefix == PERSON
}

#[cfg(test)]
mod tests;
