//! Pure. The syntax of templates of names: parsed from a route table, and written as it is there.
//!
//! Promises that two templates with a placeholder cannot give the same name for different values:
//! the placeholder ends the template, and a colon stands before it.
//!
//! Names themselves are in [`names`](super::names).

use super::pattern::is_name;
use super::policy::{NameTemplate, Source};
use std::fmt;

/// Parses a template: `users`, `user:{path.userId}`, `person:{body.invites.email}`.
///
/// # Errors
/// A text that says what was expected.
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
    // Without a colon, `user{path.id}` and `users` could give the same name.
    if source != Source::Literal && !prefix.ends_with(':') {
        return Err("a colon before the placeholder, as in `user:{path.userId}`");
    }
    Ok(NameTemplate {
        prefix: prefix.into(),
        source,
    })
}

/// Parses a placeholder alone: `{query.emails}`.
///
/// # Errors
/// A text that says what was expected.
pub fn parse_placeholder(text: &str) -> Result<Source, &'static str> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    parse_source(inner.ok_or("a placeholder in braces")?)
}

/// Parses the inside of a placeholder.
fn parse_source(inner: &str) -> Result<Source, &'static str> {
    const EXPECTED: &str = "{path.name}, {query.name} or {body.member.member}";
    let (kind, rest) = inner.split_once('.').ok_or(EXPECTED)?;
    if !rest.split('.').all(is_name) {
        return Err(EXPECTED);
    }
    match kind {
        // Parameters have no members; only a body is nested.
        "path" if !rest.contains('.') => Ok(Source::Path(rest.into())),
        "query" if !rest.contains('.') => Ok(Source::Query(rest.into())),
        "body" => Ok(Source::Body(rest.split('.').map(Into::into).collect())),
        _ => Err(EXPECTED),
    }
}

/// Writes the syntax that [`parse`] reads.
impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, self.source)
    }
}

/// Writes the syntax that [`parse_placeholder`] reads. Empty for a literal.
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
