//! Pure. Recognition of the HTTP/2 preface at the start of a connection.
//!
//! hyper would answer the preface like any malformed request, and its caller would not learn what
//! is wrong. Only the first bytes of a connection can be the preface.

/// The first line of HTTP/2 with prior knowledge (RFC 9113, section 3.4).
const FIRST_LINE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The bytes of a connection so far, compared with the preface.
#[derive(Debug)]
pub(super) struct Preface {
    /// The length of the preface read so far; `None` once the connection began otherwise.
    matched: Option<usize>,
}

/// What a connection has in common with the preface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PrefaceMatch {
    /// The connection began otherwise, or ended.
    None,
    /// All bytes so far are its beginning.
    Part,
    /// The first line is complete.
    Whole,
}

impl Preface {
    /// Creates the state of a connection of which nothing was read.
    pub(super) fn new() -> Self {
        Self { matched: Some(0) }
    }

    /// Returns whether the bytes read next may still belong to the preface.
    pub(super) fn may_continue(&self) -> bool {
        self.matched.is_some()
    }

    /// Compares the bytes that were read next; none means the end of the input.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> PrefaceMatch {
        let Some(matched) = self.matched else {
            return PrefaceMatch::None;
        };
        let expected = FIRST_LINE.get(matched..).unwrap_or_default();
        let common = bytes.len().min(expected.len());
        if common == 0 || bytes.get(..common) != expected.get(..common) {
            self.matched = None;
            return PrefaceMatch::None;
        }
        self.matched = Some(matched + common);
        if common == expected.len() {
            PrefaceMatch::Whole
        } else {
            PrefaceMatch::Part
        }
    }
}
