//! Pure. Tags and order keys: templates of names, and the names they stand for in one request.
//!
//! A template is a prefix and at most one placeholder, which is last, so that two values never make
//! one name. Where a value cannot be read, [`expand`] says so and gives no names at all: a write
//! about which anything is unknown must be taken to act on everything, never on less than it does.

use super::pattern::{Params, is_name};
use super::policy::{NameTemplate, Source};
use super::query;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use unicode_normalization::UnicodeNormalization;

/// The most names that one list of templates may stand for in one request; with more it is
/// [`Unreadable::TooMany`], which bounds the memory and the lanes of a single write.
pub const MAX_NAMES: usize = 1000;

/// The longest name, in bytes. Ids and email addresses of the API have at most 255 characters;
/// what is longer is [`Unreadable::TooLong`], since names are kept where only their number is
/// bounded.
pub const MAX_NAME_BYTES: usize = 320;

/// The class of names whose values are email addresses; see [`person`].
const PERSON: &str = "person:";

/// Why the names of a request cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The body is not JSON (RFC 8259).
    NotJson,
    /// A parameter or member that a placeholder names is absent.
    Missing,
    /// A member that a placeholder names is something else than a string.
    WrongType,
    /// The query string is malformed, so that a value may hide in it.
    Query,
    /// A list is expected in the query, and there is a body, which may hold another.
    Elsewhere,
    /// More than [`MAX_NAMES`].
    TooMany,
    /// A name of more than [`MAX_NAME_BYTES`].
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

/// The body of a request, read as JSON where a placeholder asks for it. It is never held in parsed
/// form, which may be a hundred times its size. Of a member given twice the last counts, as
/// everywhere in practice (RFC 8259, section 4).
pub struct Body<'b> {
    bytes: &'b [u8],
}

impl<'b> Body<'b> {
    /// Nothing is read yet.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    fn read(&self, wanted: Wanted<'_>) -> Result<(), Unreadable> {
        let mut json = serde_json::Deserializer::from_slice(self.bytes);
        let read = Reading(Some(wanted)).deserialize(&mut json);
        let read = read.and_then(|found| json.end().map(|()| found));
        read.map_err(|_| Unreadable::NotJson)?
    }
}

impl fmt::Debug for Body<'_> {
    /// Only the length: bodies carry personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.bytes.len())
    }
}

/// The names that the templates stand for in one request, without repetition, in the order of the
/// templates. An empty list in a JSON body gives no name and is no error; an absent one is.
pub fn expand(
    templates: &[NameTemplate],
    params: &Params,
    query: Option<&str>,
    body: &Body<'_>,
) -> Result<Vec<String>, Unreadable> {
    let mut names = Names::default();
    for template in templates {
        match &template.source {
            Source::Literal => names.add(template, "")?,
            Source::Path(name) => {
                names.add(template, params.get(name).ok_or(Unreadable::Missing)?)?;
            }
            Source::Query(name) => {
                if !query::is_clear(query) {
                    return Err(Unreadable::Query);
                }
                // The API takes parameters of some requests from the body as well. The SDKs send
                // none with these.
                if !body.bytes.is_empty() {
                    return Err(Unreadable::Elsewhere);
                }
                let values = query::list_values(query, name);
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
    if names.list.len() > MAX_NAMES {
        Err(Unreadable::TooMany)
    } else {
        Ok(names.list)
    }
}

/// The names found so far, without repetition: one more than [`MAX_NAMES`] at the most, however
/// many there are.
#[derive(Default)]
struct Names {
    list: Vec<String>,
    seen: HashSet<String>,
}

impl Names {
    fn add(&mut self, template: &NameTemplate, value: &str) -> Result<(), Unreadable> {
        let name = fill(template, value)?;
        if self.list.len() <= MAX_NAMES && self.seen.insert(name.clone()) {
            self.list.push(name);
        }
        Ok(())
    }

    /// Forgets all but the first ones.
    fn truncate(&mut self, length: usize) {
        for name in self.list.drain(length..) {
            self.seen.remove(&name);
        }
    }
}

/// An email address in the form in which it is compared: without white space around it, in lower
/// case and in the composed form of Unicode (NFC). The same person may be written in all of these
/// ways; two people whom nothing else tells apart wait for each other, which is harmless.
pub fn person(address: &str) -> String {
    let lower = address.trim().to_lowercase();
    if lower.is_ascii() {
        return lower;
    }
    lower.nfc().collect()
}

/// `prefix` and value; an email address in the form in which it is compared.
fn fill(template: &NameTemplate, value: &str) -> Result<String, Unreadable> {
    // Lower-casing and composing may make a name longer by a few bytes, which does no harm.
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

/// What is looked for in a JSON value: every string at the end of `members`, through arrays
/// wherever there are any.
struct Wanted<'a> {
    members: &'a [Box<str>],
    template: &'a NameTemplate,
    names: &'a mut Names,
}

impl Wanted<'_> {
    fn again(&mut self) -> Wanted<'_> {
        Wanted {
            members: self.members,
            template: self.template,
            names: self.names,
        }
    }
}

/// Reads one value as it passes and keeps nothing of it but names. All of it is read, also what
/// nobody wants, so that what is not JSON is found anywhere; its depth is bounded by the parser.
struct Reading<'a>(Option<Wanted<'a>>);

/// What is missing or of a wrong type ends no reading: the same member may come once more.
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
        let mut all = Ok(());
        while let Some(found) =
            array.next_element_seed(Reading(self.0.as_mut().map(Wanted::again)))?
        {
            all = all.and(found);
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Found, A::Error> {
        let path = self
            .0
            .as_ref()
            .and_then(|wanted| wanted.members.split_first());
        let before = self.0.as_ref().map_or(0, |wanted| wanted.names.list.len());
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
            wanted.names.truncate(before);
            wanted.members = rest;
            last = object.next_value_seed(Reading(Some(wanted)))?;
        }
        Ok(last)
    }
}

/// Whether a member has this name.
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

/// Parses a template of a name: `users`, `user:{path.userId}`, `person:{body.invites.email}`.
/// The error says what was expected.
pub fn parse(text: &str) -> Result<NameTemplate, &'static str> {
    let (prefix, source) = match text.split_once('{') {
        None => (text, Source::Literal),
        Some((prefix, rest)) => {
            let inner = rest
                .strip_suffix('}')
                .ok_or("a placeholder in braces at the end")?;
            (prefix, parse_source(inner)?)
        }
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':' | b'.');
    if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(plain) {
        return Err("a name of 1 to 64 letters, digits and `-_:.`, then at most one placeholder");
    }
    if source != Source::Literal && !prefix.ends_with(':') {
        return Err("a colon before the placeholder, as in `user:{path.userId}`");
    }
    Ok(NameTemplate {
        prefix: prefix.into(),
        source,
    })
}

/// Parses a placeholder by itself: `{query.emails}`. The error says what was expected.
pub fn parse_placeholder(text: &str) -> Result<Source, &'static str> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    parse_source(inner.ok_or("a placeholder in braces")?)
}

/// Whether the values that fill this template are email addresses.
pub fn names_people(template: &NameTemplate) -> bool {
    &*template.prefix == PERSON
}

fn parse_source(inner: &str) -> Result<Source, &'static str> {
    const EXPECTED: &str = "{path.name}, {query.name} or {body.member.member}";
    let (kind, rest) = inner.split_once('.').ok_or(EXPECTED)?;
    if !rest.split('.').all(is_name) {
        return Err(EXPECTED);
    }
    match kind {
        "path" if !rest.contains('.') => Ok(Source::Path(rest.into())),
        "query" if !rest.contains('.') => Ok(Source::Query(rest.into())),
        "body" => Ok(Source::Body(rest.split('.').map(Into::into).collect())),
        _ => Err(EXPECTED),
    }
}

/// The form that [`parse`] reads.
impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, self.source)
    }
}

/// The form that [`parse_placeholder`] reads; nothing where there is none.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal => Ok(()),
            Self::Path(name) => write!(f, "{{path.{name}}}"),
            Self::Query(name) => write!(f, "{{query.{name}}}"),
            Self::Body(members) => write!(f, "{{body.{}}}", members.join(".")),
        }
    }
}

#[cfg(test)]
mod tests;
