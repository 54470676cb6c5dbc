//! Pure. Path templates, and the parsing of request paths.
//!
//! A template such as `/users/{userId}` is a list of segments, each a literal or a parameter. A
//! request path is split into segments once. A path matches no template if it could be spelled
//! differently without a change of meaning (RFC 3986, sections 2.3 and 6.2.2), or if servers are
//! known to disagree about it. A matching path therefore has exactly one reading, here and
//! upstream, and is forwarded as the caller spelled it.

use std::fmt;
use std::sync::Arc;

/// The largest number of segments in a template. A longer path matches nothing.
pub const MAX_SEGMENTS: usize = 16;

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Matches only itself. Consists of unreserved characters, so that it has a single spelling.
    Literal(Box<str>),
    /// Matches any single segment and captures it under this name.
    Parameter(Arc<str>),
}

/// Parses a template.
///
/// # Errors
/// A text that says what was expected.
pub fn parse(template: &str) -> Result<Vec<Segment>, &'static str> {
    let Some(rest) = template.strip_prefix('/') else {
        return Err("a path that begins with `/`");
    };
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut segments: Vec<Segment> = Vec::new();
    for text in rest.split('/') {
        let segment = parse_segment(text)?;
        if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
            return Err("every path parameter named once");
        }
        segments.push(segment);
    }
    if segments.len() > MAX_SEGMENTS {
        return Err("at most 16 path segments");
    }
    Ok(segments)
}

fn parse_segment(text: &str) -> Result<Segment, &'static str> {
    if let Some(name) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return if is_name(name) {
            Ok(Segment::Parameter(name.into()))
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
    Ok(Segment::Literal(text.into()))
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
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        decoded.push_str(before);
        let byte = encoded(&mut from.bytes().skip(1));
        let plain = byte.filter(|byte| is_unreserved(*byte) || matches!(byte, b'/' | b'\\' | b';'));
        let taken = match plain {
            Some(byte) => {
                decoded.push(char::from(byte));
                3
            }
            None => {
                decoded.push('%');
                1
            }
        };
        rest = from.get(taken..).unwrap_or_default();
    }
    decoded.push_str(rest);
    decoded
}

/// The segments of one path. Needs no allocation.
#[derive(Clone, Copy, Debug)]
pub struct Split<'p> {
    segments: [&'p str; MAX_SEGMENTS],
    len: usize,
}

impl<'p> Split<'p> {
    /// The raw segments from left to right. Empty for the root path.
    pub fn segments(&self) -> &[&'p str] {
        &self.segments[..self.len]
    }

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
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            continue;
        }
        match encoded(&mut bytes) {
            Some(b'/' | b'\\') | None => return false,
            Some(byte) if is_unreserved(byte) => return false,
            Some(_) => {}
        }
    }
    true
}

/// Decodes the two hexadecimal digits after a `%`.
pub(super) fn encoded(digits: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let high = char::from(digits.next()?).to_digit(16)?;
    let low = char::from(digits.next()?).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

/// Decodes a raw segment. `None` if it is not UTF-8.
pub(super) fn decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            encoded(&mut bytes)?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

/// The path parameters of one request, percent-decoded, in the order of the template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(Arc<str>, String)>);

impl Params {
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
    pub(super) fn capture(template: &[Segment], path: &[&str]) -> Option<Self> {
        let mut params = Vec::new();
        for (segment, raw) in template.iter().zip(path) {
            if let Segment::Parameter(name) = segment {
                params.push((name.clone(), decode(raw)?));
            }
        }
        Some(Self(params))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Parameter(name) => write!(f, "{{{name}}}"),
        }
    }
}

#[cfg(test)]
mod tests;
