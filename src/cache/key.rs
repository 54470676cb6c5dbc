//! Pure. The key of a stored response.
//!
//! Promises that two requests have the same key only if they agree in credential, operation, path,
//! canonical query, `Accept`, `Origin`, every field that may shape the response and, for a GET with
//! a body, in the body, `Content-Type` and `Content-Encoding`. Every variable part is preceded by
//! its length, so that no value can imitate the boundary between two parts.
//!
//! No part has a default: the code that builds a key must name everything that separates the
//! readers of one upstream. Several lines of one header are joined with a comma, which does not
//! change their meaning (RFC 9110, section 5.3). Nothing else is normalised. A key too many costs
//! one fetch; a key too few serves someone the wrong response.

use super::vary::SelectionHash;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, GetAll, HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(test)]
mod tests;

/// The keyed hash of a token. The token itself is never known here.
pub type CredentialHash = [u8; 16];

/// The length of the fixed parts at the start: credential and operation.
const PREFIX: usize = 16 + 4;
/// The length that stands for an absent part. No real part is that long.
const ABSENT: u32 = u32::MAX;

/// The byte before the part that only variants have.
const VARIANT: u8 = 2;
/// The byte before the part that only requests with additional fields have.
const FIELDS: u8 = 3;

/// The separator of joined lines.
const SEPARATOR: &[u8] = b", ";

/// The parts of a key.
#[derive(Debug)]
pub struct KeyParts<'a> {
    /// The credential of the reader.
    pub credential: &'a CredentialHash,
    /// The operation, as an index in the route table.
    pub operation: u32,
    /// The path as received.
    pub path: &'a str,
    /// The canonical query.
    pub query: &'a str,
    /// The lines of `Accept`.
    pub accept: Lines<'a>,
    /// The lines of `Origin`.
    pub origin: Lines<'a>,
    /// The body of the request, if any.
    pub content: Option<Content<'a>>,
}

/// The body of a request, with the fields that describe it.
#[derive(Debug)]
pub struct Content<'a> {
    body: &'a [u8],
    content_type: Lines<'a>,
    content_encoding: Lines<'a>,
}

impl<'a> Content<'a> {
    /// The body of a request with these headers. `None` if it is empty.
    pub fn of(body: &'a [u8], headers: &'a HeaderMap) -> Option<Self> {
        (!body.is_empty()).then(|| Self {
            body,
            content_type: Lines::of(headers, CONTENT_TYPE),
            content_encoding: Lines::of(headers, CONTENT_ENCODING),
        })
    }
}

/// The key of a stored response. Two keys are equal only if all their parts are.
#[derive(Clone)]
pub struct CacheKey {
    /// Credential, operation, path, query, `Accept`, `Origin`, and the body if there is one. Then
    /// what only variants and requests with additional fields have.
    parts: Box<[u8]>,
    /// The public name, once something has asked for it. A miss asks several times, a hit never.
    name: OnceLock<CacheKeyHash>,
}

// Equality and hash ignore the name: it follows from the parts, and is not always there.
impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for CacheKey {}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.parts.hash(hasher);
    }
}

impl CacheKey {
    /// Joins the parts, in one allocation.
    pub fn new(parts: &KeyParts<'_>) -> Self {
        let content = parts.content.as_ref().map(|content| {
            let digest: [u8; 32] = Sha256::digest(content.body).into();
            (digest, [&content.content_type, &content.content_encoding])
        });
        // Each part with a length takes four bytes more; the flag for a body takes one.
        let mut size = PREFIX + 4 * 4 + 1 + parts.path.len() + parts.query.len();
        size += parts.accept.len() + parts.origin.len();
        if let Some((digest, [kind, encoding])) = &content {
            size += digest.len() + 4 * 2 + kind.len() + encoding.len();
        }
        let mut bytes = Vec::with_capacity(size);
        // The fixed parts come first, so that they can be read back from a key.
        bytes.extend_from_slice(parts.credential);
        bytes.extend_from_slice(&parts.operation.to_le_bytes());
        push(&mut bytes, parts.path.as_bytes());
        push(&mut bytes, parts.query.as_bytes());
        parts.accept.push_to(&mut bytes);
        parts.origin.push_to(&mut bytes);
        bytes.push(u8::from(content.is_some()));
        if let Some((digest, described)) = &content {
            bytes.extend_from_slice(digest);
            described.iter().for_each(|lines| lines.push_to(&mut bytes));
        }
        Self::framed(bytes)
    }

    /// The key of a variant: the response chosen by these fields when they have this selection.
    pub fn variant(&self, fields: &[HeaderName], selection: &SelectionHash) -> Self {
        self.selected(VARIANT, fields, selection)
    }

    /// The key of a request with additional fields that have this selection. See
    /// [`fields`](super::fields).
    pub fn with_fields(&self, fields: &[HeaderName], selection: &SelectionHash) -> Self {
        self.selected(FIELDS, fields, selection)
    }

    /// Appends fields with their selection. `begin` keeps the two kinds of such parts apart.
    fn selected(&self, begin: u8, fields: &[HeaderName], selection: &SelectionHash) -> Self {
        // The size is computed first, so that the key is allocated once.
        let names = fields.iter().map(|name| name.as_str().len() + 4);
        let size = self.parts.len() + 1 + names.sum::<usize>() + selection.len();
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&self.parts);
        bytes.push(begin);
        for name in fields {
            push(&mut bytes, name.as_str().as_bytes());
        }
        bytes.extend_from_slice(selection);
        Self::framed(bytes)
    }

    /// Takes parts that are framed already.
    fn framed(parts: Vec<u8>) -> Self {
        // The vector has the exact size, so this does not copy. Most keys are only compared, so the
        // name is left to those who ask for it.
        Self {
            parts: parts.into_boxed_slice(),
            name: OnceLock::new(),
        }
    }

    /// A short name for the key that does not reveal its parts.
    pub fn hash(&self) -> CacheKeyHash {
        // Hashing costs more than all else that a miss does with its key.
        *self.name.get_or_init(|| {
            let digest: [u8; 32] = Sha256::digest(&self.parts).into();
            CacheKeyHash(digest.first_chunk().copied().unwrap_or_default())
        })
    }

    /// The credential of the reader.
    pub fn credential(&self) -> CredentialHash {
        self.parts.first_chunk().copied().unwrap_or_default()
    }

    /// The operation, as an index in the route table.
    pub fn operation(&self) -> u32 {
        let bytes = self
            .parts
            .get(16..PREFIX)
            .and_then(|part| part.first_chunk());
        bytes.copied().map(u32::from_le_bytes).unwrap_or_default()
    }

    /// The length of the key in bytes.
    pub fn len_bytes(&self) -> usize {
        self.parts.len()
    }
}

/// The public name of a key: 64 bits of a hash over all its parts. The parts include the keyed hash
/// of the credential, so no path can be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKeyHash([u8; 8]);

impl fmt::Display for CacheKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for CacheKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CacheKeyHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| hex);
        let number = number.ok_or("16 hexadecimal digits, as `key` in Cache-Status has them")?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// Omits the parts, because a path may name a person.
impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({} bytes)", self.parts.len())
    }
}

/// The encoded length of a part. An oversized length is clamped; request heads are bounded far
/// below it.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(ABSENT - 1)
}

/// Appends a part after its length, so that no value can imitate the boundary between two parts.
fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&length(part.len()).to_le_bytes());
    bytes.extend_from_slice(part);
}

/// All lines of one field of a request.
pub enum Lines<'h> {
    /// The only line, or none. For a caller that has already gone through the header, this saves
    /// the lookup by name.
    Only(Option<&'h HeaderValue>),
    /// Any number of lines.
    All(GetAll<'h, HeaderValue>),
}

impl<'h> Lines<'h> {
    /// The lines of this field in these headers.
    pub fn of(headers: &'h HeaderMap, name: HeaderName) -> Self {
        Self::All(headers.get_all(name))
    }

    fn len(&self) -> usize {
        match self {
            Self::Only(line) => line.map_or(0, HeaderValue::len),
            Self::All(lines) => {
                let lines = lines.iter().map(|line| line.len() + SEPARATOR.len());
                lines.sum::<usize>().saturating_sub(SEPARATOR.len())
            }
        }
    }

    /// Appends the lines as one part. Absence differs from an empty line.
    fn push_to(&self, bytes: &mut Vec<u8>) {
        let (first, further) = match self {
            Self::Only(line) => (*line, None),
            Self::All(lines) => {
                let mut lines = lines.iter();
                (lines.next(), Some(lines))
            }
        };
        let Some(first) = first else {
            bytes.extend_from_slice(&ABSENT.to_le_bytes());
            return;
        };
        bytes.extend_from_slice(&length(self.len()).to_le_bytes());
        bytes.extend_from_slice(first.as_bytes());
        for line in further.into_iter().flatten() {
            bytes.extend_from_slice(SEPARATOR);
            bytes.extend_from_slice(line.as_bytes());
        }
    }
}

/// Omits the lines and the header that contains them.
impl fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}
