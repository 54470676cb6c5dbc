//! Pure. Fields, each behind its length, and what follows them: how the journal's contents are
//! written and read. What the fields mean is said in `record.rs` and `summary.rs`.

use crate::credential::SECRET_HEADERS;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

const VERSION: u8 = 1;

/// Writes the version and fields.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Begins with the version.
    pub(super) fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(VERSION);
        Self(bytes)
    }

    /// Writes a field. Nothing that passed the edge is as long as four bytes can say.
    pub(super) fn field(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// Writes a header: the number of its lines, and then each.
    pub(super) fn headers(&mut self, headers: &HeaderMap) {
        self.field(headers.len().to_string().as_bytes());
        for (name, value) in headers {
            self.field(name.as_str().as_bytes());
            self.field(value.as_bytes());
        }
    }

    /// Writes the body, and returns all bytes.
    pub(super) fn end(mut self, body: &Bytes) -> Bytes {
        self.0.extend_from_slice(body);
        self.0.into()
    }
}

/// Reads what a [`Writer`] has written.
pub(super) struct Reader<'b> {
    all: &'b Bytes,
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    /// Begins behind the version. `None` if it is another one.
    pub(super) fn new(all: &'b Bytes) -> Option<Self> {
        let (version, rest) = all.split_first()?;
        (*version == VERSION).then_some(Self { all, rest })
    }

    /// Reads a field. `None` if the bytes end before it does.
    pub(super) fn field(&mut self) -> Option<&'b [u8]> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(field)
    }

    /// Reads a header. Values of headers that may carry a secret are marked, as at the entrance.
    pub(super) fn headers(&mut self) -> Option<HeaderMap> {
        let count: usize = std::str::from_utf8(self.field()?).ok()?.parse().ok()?;
        let mut headers = HeaderMap::new();
        for _ in 0..count {
            let name = HeaderName::from_bytes(self.field()?).ok()?;
            let mut value = HeaderValue::from_bytes(self.field()?).ok()?;
            value.set_sensitive(SECRET_HEADERS.contains(&name));
            headers.try_append(name, value).ok()?;
        }
        Some(headers)
    }

    /// Returns what follows the fields.
    pub(super) fn rest(self) -> Bytes {
        self.all.slice_ref(self.rest)
    }
}
