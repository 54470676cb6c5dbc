//! Pure. Path templates, and the parsing of request paths.
//!
//! A template such as `/users/{userId}` is a list of segments, each a literal or a parameter. A
//! request path is split into segments once. A path matches no template if it could be spelled
//! differently without a change of meaning (RFC 3986, sections 2.3 and 6.2.2), or if servers are
//! known to disagree about it. A matching path therefore has exactly one reading, here and
//! upstream, and is forwarded as the caller spelled it.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The largest number of segments in a template. A longer path matches nothing.
pub const MAX_SEGMENTS: usize = 16;

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateSegment {
    /// Matches only itself. Consists of unreserved characters, so that it has a single spelling.
    Literal(Box<str>),
    /// Matches any single segment and captures it under this name.
    Parameter(Arc<str>),
}

/// Parses a template.
///
/// # Errors
/// A text that says what was expected.
pub fn parse(template: &str) -> Result<Vec<TemplateSegment>, &'static str> {
    let Some(rest) = template.strip_prefix('/') else {
        return Err("a path that begins with `/`");
    };
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut segments: Vec<TemplateSegment> = Vec::new();
    for text in rest.split('/') {
        let segment = parse_segment(text)?;
        if matches!(segment, TemplateSegment::Parameter(_)) && segments.contains(&segment) {
            return Err("every path parameter named once");
        }
        segments.push(segment);
    }
    if segments.len() > MAX_SEGMENTS {
        return Err("at most 16 path segments");
    }
    Ok(segments)
}

/// Parses one segment of a template.
fn parse_segment(text: &str) -> Result<TemplateSegment, &'static str> {
    if let Some(name) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return if is_name(name) {
            Ok(TemplateSegment::Parameter(name.into()))
        } else {
            Err("a parameter named by letters and digits, as in `/users/{userId}`")
        };
    }
    if text.is_empty() || text == "." || text == ".." {
        return Err("path segments that are neither empty nor dots, and no `/` at the end");
    }
    if !text.bytes().all(is_unreserved) {
        return Err("path segments of letters, digits and `-._~`, or a whole segment in braces");
    }
    Ok(TemplateSegment::Literal(text.into()))
}

/// Whether `name` is a valid name for a parameter or a query list: a letter, then letters, digits
/// or `_`.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether the byte is unreserved in the sense of RFC 3986, section 2.3.
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Splits a request path into raw segments. `None` if the path
///
/// - does not begin with `/`, or ends in one (except for the root path),
/// - has an empty segment or a dot segment,
/// - contains an encoded slash, or a backslash in either form, which some servers take for a slash,
/// - contains a `;`, at which some servers cut off a segment,
/// - contains an encoded unreserved character or malformed percent-encoding, or
/// - has more than [`MAX_SEGMENTS`] segments.
///
/// Whether a segment decodes to UTF-8 is checked when it is captured.
pub fn split(path: &str) -> Option<Split<'_>> {
    let rest = path.strip_prefix('/')?;
    let mut split = Split {
        segments: [""; MAX_SEGMENTS],
        len: 0,
    };
    let mut encoded = false;
    if rest.is_empty() {
        return Some(split);
    }
    let mut begin = 0;
    // A single pass, because every request that is not a plain hit takes it.
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'/' => {
                split.push(rest.get(begin..at)?)?;
                begin = at + 1;
            }
            b'\\' | b';' => return None,
            b'%' => encoded = true,
            _ => {}
        }
    }
    split.push(rest.get(begin..)?)?;
    // Most paths contain nothing encoded and skip this check.
    let plain = !encoded || split.segments().iter().all(|part| is_plainly_encoded(part));
    plain.then_some(split)
}

/// The reading of a path by a lenient server, for paths that [`split`] rejects. Removes empty and
/// dot segments, a trailing slash, and everything after a `;`. Takes a backslash for a slash, and
/// decodes whatever need not be encoded (RFC 3986, section 6.2.2). `None` if the text is not a path
/// or has too many segments.
pub fn lenient(path: &str) -> Option<String> {
    let decoded = decode_plain(path.strip_prefix('/')?);
    // As RFC 3986, section 5.2.4, removes dot segments.
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    (segments.len() <= MAX_SEGMENTS).then(|| format!("/{}", segments.join("/")))
}

/// Decodes unreserved characters, slashes, backslashes and semicolons; leaves the rest encoded.
fn decode_plain(path: &str) -> String {
    let is_plain = |byte: &u8| is_unreserved(*byte) || matches!(byte, b'/' | b'\\' | b';');
    let mut parts = path.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match encoded(part).filter(is_plain) {
            Some(byte) => {
                decoded.push(char::from(byte));
                decoded.push_str(part.get(2..).unwrap_or_default());
            }
            None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    decoded
}

/// The segments of one path. Needs no allocation.
#[derive(Clone, Copy, Debug)]
pub struct Split<'p> {
    segments: [&'p str; MAX_SEGMENTS],
    /// The number of segments; the rest of the array is empty.
    len: usize,
}

impl<'p> Split<'p> {
    /// The raw segments from left to right. Empty for the root path.
    pub fn segments(&self) -> &[&'p str] {
        &self.segments[..self.len]
    }

    /// Adds a segment. `None` if it is empty or a dot segment, or if there are too many.
    fn push(&mut self, segment: &'p str) -> Option<()> {
        if matches!(segment, "" | "." | "..") {
            return None;
        }
        *self.segments.get_mut(self.len)? = segment;
        self.len += 1;
        Some(())
    }
}

/// Whether only characters that require it are encoded.
fn is_plainly_encoded(segment: &str) -> bool {
    let required = |byte: u8| !is_unreserved(byte) && !matches!(byte, b'/' | b'\\');
    let mut after_signs = segment.split('%').skip(1);
    after_signs.all(|rest| encoded(rest).is_some_and(required))
}

/// The byte that a text after a `%` encodes. `None` without two hexadecimal digits.
fn encoded(rest: &str) -> Option<u8> {
    let mut digits = rest.chars().map(|digit| digit.to_digit(16));
    let byte = digits.next()?? * 16 + digits.next()??;
    u8::try_from(byte).ok()
}

/// Decodes a text. `None` if its percent-encoding is malformed, or if it is not UTF-8.
pub(super) fn decode(raw: &str) -> Option<Cow<'_, str>> {
    let is_well_formed = raw.split('%').skip(1).all(|rest| encoded(rest).is_some());
    let decoded = is_well_formed.then(|| percent_decode_str(raw).decode_utf8());
    decoded?.ok()
}

/// The path parameters of one request, percent-decoded, in the order of the template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathParams(Vec<(Arc<str>, String)>);

impl PathParams {
    /// The value of a parameter. `None` if the template has no such parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| **known == *name)
            .map(|(_, value)| value.as_str())
    }

    /// Names and values, in the order of the template.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }

    /// Captures the parameters of `template` from `path`, which must match it segment by segment.
    /// `None` if a captured value is not UTF-8.
    pub(super) fn capture(template: &[TemplateSegment], path: &[&str]) -> Option<Self> {
        let mut params = Vec::new();
        for (segment, raw) in template.iter().zip(path) {
            if let TemplateSegment::Parameter(name) = segment {
                params.push((name.clone(), decode(raw)?.into_owned()));
            }
        }
        Some(Self(params))
    }
}

impl fmt::Display for TemplateSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Parameter(name) => write!(f, "{{{name}}}"),
        }
    }
}

#[cfg(test)]
mod tests;
