//! Pure. The meaning of a query string.
//!
//! The API accepts a query in several spellings (API reference, "Pagination"; the SDKs). Nested
//! names are `pagination.count=2`, or `pagination[count]=2` with the brackets usually
//! percent-encoded, or all members of the page in one JSON object, `pagination={"count":2}`. Lists
//! are `emails.0=…`, `emails[0]=…`, or a repeated `emails=…`.
//!
//! Promises that [`canonical`] gives the same text for all spellings of a query, and never the same
//! text for two queries that any server could tell apart. A query that is not clearly in one of
//! these spellings is [`Odd`] and must not be used for a lookup. Nothing here changes what is sent
//! upstream.

use super::page::{self, PageMembers};
use super::pattern::decode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::fmt;

/// The reason why a query string has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// A percent sign without two hexadecimal digits, or a value that does not decode to UTF-8.
    Encoding,
    /// A pair that is empty or lacks a `=` or a name, or a `;`, which some servers take for `&`.
    Pair,
    /// A name that is not consistently `a.b` or `a[b]`.
    Name,
    /// A repeated scalar: servers differ in which value counts.
    Repeated,
    /// List indices that do not count up from 0.
    Gap,
    /// Two spellings in one query or in one list.
    Mixed,
}

impl Odd {
    /// A short name for logs, metrics and `Cache-Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encoding => "query-encoding",
            Self::Pair => "query-pair",
            Self::Name => "query-name",
            Self::Repeated => "query-repeated",
            Self::Gap => "query-gap",
            Self::Mixed => "query-mixed",
        }
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns the canonical form of a query string. `lists` names the parameters that are lists.
///
/// Parameters are sorted by name. Lists keep their order and are written `name.0=…&name.1=…`.
/// Everything but unreserved characters is percent-encoded with upper-case digits. The exception is
/// a raw `+`, which stays: form encoding reads it as a space and RFC 3986 as itself, so it equals
/// neither `%20` nor `%2B`. A missing query equals an empty one.
///
/// # Errors
/// The reason why the query has no canonical form.
pub fn canonical(query: Option<&str>, lists: &[Box<str>]) -> Result<String, Odd> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(String::new());
    };
    let mut reading = Reading::new(lists);
    for pair in query.split('&') {
        reading.read(pair)?;
    }
    reading.finish(query.len())
}

/// Reads the pairs in order and records the spelling in use.
struct Reading<'l> {
    lists: &'l [Box<str>],
    /// The spelling and the number of elements of each list.
    seen: Vec<(ListSpelling, u32)>,
    /// The spelling of the nested names so far.
    nesting: Option<Nesting>,
    /// The number of pairs about the page.
    page_pairs: u32,
    /// Whether one of them is a JSON object.
    page_is_json: bool,
    /// Canonical name, index in its list (0 for a scalar), canonical value.
    pairs: Vec<(String, u32, String)>,
}

/// The spelling of a list: `a=1&a=2`, or `a.0=1&a.1=2` in either nesting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListSpelling {
    Unseen,
    Repeated,
    Indexed,
}

/// The spelling of nested names: `a.b` or `a[b]`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nesting {
    Dotted,
    Bracketed,
}

impl<'l> Reading<'l> {
    fn new(lists: &'l [Box<str>]) -> Self {
        let seen = vec![(ListSpelling::Unseen, 0); lists.len()];
        Self {
            lists,
            seen,
            nesting: None,
            page_pairs: 0,
            page_is_json: false,
            pairs: Vec::new(),
        }
    }

    /// Reads one pair.
    fn read(&mut self, pair: &str) -> Result<(), Odd> {
        let (name, value) = pair.split_once('=').ok_or(Odd::Pair)?;
        if name.is_empty() || pair.contains(';') {
            return Err(Odd::Pair);
        }
        let name = self.nested(recode(name, IN_NAME)?)?;
        let raw = value;
        let value = recode(raw, IN_VALUE)?;
        let (base, rest) = match name.split_once('.') {
            Some((base, rest)) => (base, Some(rest)),
            None => (name.as_str(), None),
        };
        let Some(list) = self.lists.iter().position(|list| **list == *base) else {
            self.page_pairs += u32::from(base == page::NAME);
            match page_of(&name, raw) {
                Some(members) => self.read_page(members),
                None => self.pairs.push((name, 0, value)),
            }
            return Ok(());
        };
        // The canonical spelling counts, whichever was used.
        let index = self.index(list, rest)?;
        self.pairs.push((base.to_owned(), index, value));
        Ok(())
    }

    /// Reads the members of a page in one JSON object as if each were a pair. What a value means
    /// is left to the API, as in the other spellings.
    fn read_page(&mut self, members: PageMembers) {
        self.page_is_json = true;
        let pairs = [("cursor", members.cursor), ("count", members.count)];
        for (member, value) in pairs {
            let value = value.map(|value| utf8_percent_encode(&value, IN_VALUE).to_string());
            let name = format!("{}.{member}", page::NAME);
            self.pairs.extend(value.map(|value| (name, 0, value)));
        }
    }

    /// The dotted form of a recoded name.
    fn nested(&mut self, name: String) -> Result<String, Odd> {
        let nesting = if name.contains([OPEN, CLOSE]) {
            Nesting::Bracketed
        } else if name.contains('.') {
            Nesting::Dotted
        } else {
            return Ok(name);
        };
        let before = self.nesting.replace(nesting);
        if before.is_some_and(|before| before != nesting) {
            return Err(Odd::Mixed);
        }
        let name = if nesting == Nesting::Bracketed {
            unbracketed(&name)?
        } else {
            name
        };
        // `a..b`, `.a` and `a[]` are read differently by different servers.
        if name.split('.').any(str::is_empty) {
            return Err(Odd::Name);
        }
        Ok(name)
    }

    /// The index of the next element of a list. `rest` is the part of the name after the list's
    /// name.
    fn index(&mut self, list: usize, rest: Option<&str>) -> Result<u32, Odd> {
        let Some((spelling, count)) = self.seen.get_mut(list) else {
            return Err(Odd::Name);
        };
        let now = if rest.is_some() {
            ListSpelling::Indexed
        } else {
            ListSpelling::Repeated
        };
        if *spelling != ListSpelling::Unseen && *spelling != now {
            return Err(Odd::Mixed);
        }
        *spelling = now;
        let index = *count;
        *count += 1;
        match rest {
            Some(rest) if !rest.bytes().all(|b| b.is_ascii_digit()) => Err(Odd::Name),
            Some(rest) if *rest != *index.to_string() => Err(Odd::Gap),
            _ => Ok(index),
        }
    }

    /// Sorts the pairs and writes them. Equal neighbours are then a repeated scalar, because the
    /// elements of a list differ in their index.
    fn finish(mut self, capacity: usize) -> Result<String, Odd> {
        // Servers may differ in which of the two spellings counts.
        if self.page_is_json && self.page_pairs > 1 {
            return Err(Odd::Mixed);
        }
        self.pairs
            .sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        if self
            .pairs
            .windows(2)
            .any(|two| two[0].0 == two[1].0 && two[0].1 == two[1].1)
        {
            return Err(Odd::Repeated);
        }
        // The canonical form is hardly ever longer than what was sent.
        let mut text = String::with_capacity(capacity);
        for (name, index, value) in &self.pairs {
            if !text.is_empty() {
                text.push('&');
            }
            text.push_str(name);
            if self.lists.iter().any(|list| **list == **name) {
                text.push('.');
                text.push_str(&index.to_string());
            }
            text.push('=');
            text.push_str(value);
        }
        Ok(text)
    }
}

/// Converts a recoded `a[b][c]` to `a.b.c`.
fn unbracketed(name: &str) -> Result<String, Odd> {
    if name.contains('.') {
        return Err(Odd::Name);
    }
    let (base, rest) = name.split_once(OPEN).ok_or(Odd::Name)?;
    let inner = rest.strip_suffix(CLOSE).ok_or(Odd::Name)?;
    let mut dotted = base.to_owned();
    for part in inner.split("][") {
        if part.contains([OPEN, CLOSE]) {
            return Err(Odd::Name);
        }
        dotted.push('.');
        dotted.push_str(part);
    }
    // `a]` would otherwise pass as the base.
    if base.contains(CLOSE) {
        Err(Odd::Name)
    } else {
        Ok(dotted)
    }
}

const OPEN: char = '[';
const CLOSE: char = ']';

/// The characters that are encoded in a canonical value: all but the unreserved ones.
const IN_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The characters that are encoded in a name. Brackets come out raw, however they were sent,
/// because they denote nesting.
const IN_NAME: &AsciiSet = &IN_VALUE.remove(b'[').remove(b']');

/// Decodes a text and encodes `reserved` characters again, so that every character has one
/// spelling. A raw `+` stays raw, an encoded one stays encoded.
fn recode(raw: &str, reserved: &'static AsciiSet) -> Result<String, Odd> {
    let mut text = String::with_capacity(raw.len());
    for (at, part) in raw.split('+').enumerate() {
        if at > 0 {
            text.push('+');
        }
        let decoded = decode(part).ok_or(Odd::Encoding)?;
        text.extend(utf8_percent_encode(&decoded, reserved));
    }
    Ok(text)
}

/// The page in this pair, if it is one JSON object. A raw `+` has two readings, so it is in none.
fn page_of(name: &str, value: &str) -> Option<PageMembers> {
    if name != page::NAME || value.contains('+') {
        return None;
    }
    page::members(&decode(value)?)
}

/// Every decoded value of the parameter `name`, in any spelling or mixture of spellings.
///
/// Lenient on purpose: order keys and tags come from here. A name too many costs little; a missing
/// one breaks a promise. Values with several readings appear once for each:
///
/// - With a raw `+`: read as a space, and read as itself.
/// - With commas: the whole, as the API documents it, and each part, for servers that split at
///   commas.
/// - Itself a list (`emails=emails.0%3Da`): the whole, and each element.
///
/// Malformed encoding is taken literally. See [`is_clear`].
pub fn list_values(query: Option<&str>, name: &str) -> Vec<String> {
    let mut values = Vec::new();
    for pair in query.unwrap_or_default().split('&') {
        let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        let found = lenient(raw_name);
        let base = found.split(['.', '[']).next();
        if pair.is_empty() || base != Some(name) {
            continue;
        }
        let value = lenient(raw_value);
        push_readings(&mut values, &value);
        if raw_value.contains('+') {
            push_readings(&mut values, &lenient(&raw_value.replace('+', " ")));
        }
        for (nested, value) in value.split('&').filter_map(|pair| pair.split_once('=')) {
            if nested.split(['.', '[']).next() == Some(name) {
                push_readings(&mut values, &lenient(value));
            }
        }
    }
    values
}

/// Adds a value, and its parts if commas may separate elements.
fn push_readings(values: &mut Vec<String>, value: &str) {
    values.push(value.to_owned());
    if value.contains(',') {
        values.extend(value.split(',').map(ToOwned::to_owned));
    }
}

/// Whether the whole query decodes and contains no separator that only some servers recognise. If
/// not, [`list_values`] may have missed a value.
pub fn is_clear(query: Option<&str>) -> bool {
    let query = query.unwrap_or_default();
    !query.contains(';') && query.split(['&', '=']).all(|part| decode(part).is_some())
}

/// Decodes a text without failing: malformed percent signs stay, invalid UTF-8 is replaced.
fn lenient(raw: &str) -> Cow<'_, str> {
    percent_decode_str(raw).decode_utf8_lossy()
}

#[cfg(test)]
mod tests;
