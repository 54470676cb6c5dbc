//! Pure. Tags and order keys: templates of names, and the names they stand for in one request.
//!
//! A template is a prefix and at most one placeholder, which is last, so that two values never make
//! one name. Where a value cannot be read, [`expand`] says so and gives no names at all: a write
//! about which anything is unknown must be taken to act on everything, never on less than it does.

use super::pattern::{Params, is_name};
use super::policy::{NameTemplate, Source};
use super::query;
use serde_json::Value;
use std::cell::OnceCell;
use std::fmt;

/// The most names that one list of templates may stand for in one request; with more it is
/// [`Unreadable::TooMany`], which bounds the memory and the lanes of a single write.
pub const MAX_NAMES: usize = 1000;

/// The longest name, in bytes. Ids and email addresses of the API have at most 255 characters;
/// what is longer is [`Unreadable::TooLong`], since names are kept where only their number is
/// bounded.
pub const MAX_NAME_BYTES: usize = 320;

/// The class of names whose values are email addresses and so are compared in lower case.
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

/// The body of a request, parsed as JSON when the first placeholder asks for it, and once at most.
/// Of a member given twice the last counts, as everywhere in practice (RFC 8259, section 4).
pub struct Body<'b> {
    bytes: &'b [u8],
    parsed: OnceCell<Option<Value>>,
}

impl<'b> Body<'b> {
    /// Nothing is parsed yet.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            parsed: OnceCell::new(),
        }
    }

    fn json(&self) -> Result<&Value, Unreadable> {
        self.parsed
            .get_or_init(|| serde_json::from_slice(self.bytes).ok())
            .as_ref()
            .ok_or(Unreadable::NotJson)
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
    let mut names = Vec::with_capacity(templates.len());
    for template in templates {
        match &template.source {
            Source::Literal => names.push(template.prefix.to_string()),
            Source::Path(name) => {
                names.push(fill(
                    template,
                    params.get(name).ok_or(Unreadable::Missing)?,
                )?);
            }
            Source::Query(name) => {
                if !query::is_clear(query) {
                    return Err(Unreadable::Query);
                }
                let values = query::list_values(query, name);
                if values.is_empty() {
                    return Err(Unreadable::Missing);
                }
                for value in &values {
                    names.push(fill(template, value)?);
                }
            }
            Source::Body(members) => {
                let mut take = |value: &str| {
                    names.push(fill(template, value)?);
                    Ok(())
                };
                follow(body.json()?, members, &mut take)?;
            }
        }
    }
    let mut seen = std::collections::HashSet::with_capacity(names.len());
    let fresh: Vec<bool> = names
        .iter()
        .map(|name| seen.insert(name.as_str()))
        .collect();
    let mut fresh = fresh.into_iter();
    names.retain(|_| fresh.next().unwrap_or(true));
    if names.len() > MAX_NAMES {
        Err(Unreadable::TooMany)
    } else {
        Ok(names)
    }
}

/// `prefix` and value. Email addresses are lower-cased, because the same person may be written in
/// both ways; two people who differ in nothing but case then wait for each other, which is harmless.
fn fill(template: &NameTemplate, value: &str) -> Result<String, Unreadable> {
    // Lower-casing may make a name longer by a few bytes, which does no harm.
    if template.prefix.len() + value.len() > MAX_NAME_BYTES {
        return Err(Unreadable::TooLong);
    }
    let mut name = String::with_capacity(template.prefix.len() + value.len());
    name.push_str(&template.prefix);
    if &*template.prefix == PERSON {
        name.push_str(&value.to_lowercase());
    } else {
        name.push_str(value);
    }
    Ok(name)
}

/// Hands every string at the end of `members` to `take`, through arrays wherever there are any.
/// The depth is bounded by the parser of the body.
fn follow(
    value: &Value,
    members: &[Box<str>],
    take: &mut impl FnMut(&str) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    match (value, members) {
        (Value::Array(elements), _) => elements
            .iter()
            .try_for_each(|element| follow(element, members, take)),
        (Value::Object(object), [member, rest @ ..]) => follow(
            object.get(&**member).ok_or(Unreadable::Missing)?,
            rest,
            take,
        ),
        (Value::String(text), []) => take(text),
        _ => Err(Unreadable::WrongType),
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
        f.write_str(&self.prefix)?;
        match &self.source {
            Source::Literal => Ok(()),
            Source::Path(name) => write!(f, "{{path.{name}}}"),
            Source::Query(name) => write!(f, "{{query.{name}}}"),
            Source::Body(members) => write!(f, "{{body.{}}}", members.join(".")),
        }
    }
}

#[cfg(test)]
mod tests;
