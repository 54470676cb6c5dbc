//! Pure. Detection of requests whose framing can be read in two ways.
//!
//! A message with both `Transfer-Encoding` and `Content-Length` is a means of request smuggling and
//! is rejected (RFC 9112, section 6.3). hyper drops the length of such a message before a service
//! sees its headers. So this state machine reads the bytes of a connection as they arrive.
//!
//! It reads heads only. Bodies are skipped by the framing that their head declares, so that nothing
//! in a body is taken for a header. If hyper does not accept the framing, it ends the connection,
//! and what is found here afterwards has no effect. Even an overlooked ambiguous request would do
//! no harm: hyper then uses `Transfer-Encoding` alone and closes the connection.

const LENGTH: &[u8] = b"content-length";
const ENCODING: &[u8] = b"transfer-encoding";
/// One byte more than the longer name. A name that does not fit is neither.
const KEPT: usize = ENCODING.len() + 1;

/// The part of a message that the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// A line of a head, before any colon.
    #[default]
    Name,
    /// The rest of a line of a head.
    Value,
    /// The value of `Content-Length`.
    Length,
    /// A body, of which so many bytes are to come.
    Body(u64),
    /// The size of a chunk.
    Size(u64),
    /// The rest of the line after the size of a chunk.
    Extension(u64),
    /// A chunk and the end of its line, of which so many bytes are to come.
    Chunk(u64),
    /// A trailer line, which is empty so far or not.
    Trailer { is_empty: bool },
}

/// The state of one connection's bytes.
#[derive(Debug, Default)]
pub struct Framing {
    place: Place,
    /// The beginning of the present line of a head.
    name: [u8; KEPT],
    kept: usize,
    /// The `Content-Length` of the present head.
    length: Option<u64>,
    /// Whether the present head has a `Transfer-Encoding`.
    encoding: bool,
    /// Whether any head had both.
    ambiguous: bool,
}

impl Framing {
    /// Reads the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        // The head of every hit passes here, almost always alone, complete and without a body.
        if self.is_before_head() && ends_head(bytes) && !may_frame_body(bytes) {
            return;
        }
        self.feed_parts(bytes);
    }

    /// Returns whether some head had both headers.
    pub fn ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Returns whether the next byte begins a head.
    fn is_before_head(&self) -> bool {
        self.place == Place::Name && self.kept == 0 && self.length.is_none() && !self.encoding
    }

    // Bodies and values are skipped as a whole; everything else advances byte by byte.
    fn feed_parts(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            let skipped = match self.place {
                Place::Body(left) | Place::Chunk(left) => self.skip(left, bytes.len()),
                Place::Value => {
                    let line_end = memchr::memchr(b'\n', bytes);
                    if line_end.is_some() {
                        self.place = Place::Name;
                    }
                    line_end.map_or(bytes.len(), |at| at + 1)
                }
                _ => {
                    self.step(*byte);
                    bytes = rest;
                    continue;
                }
            };
            bytes = bytes.get(skipped..).unwrap_or_default();
        }
    }

    /// Skips the available part of a body or chunk, and returns its length.
    fn skip(&mut self, left: u64, there: usize) -> usize {
        let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        let left = left.saturating_sub(skipped as u64);
        self.place = match (self.place, left) {
            (Place::Body(_), 0) => Place::Name,
            (Place::Body(_), left) => Place::Body(left),
            (_, 0) => Place::Size(0),
            (_, left) => Place::Chunk(left),
        };
        skipped
    }

    // One byte of a head, of a size line or of a trailer. A wrong size or length needs no handling:
    // hyper rejects the message.
    fn step(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::Name, b'\n') => self.end_line(),
            (Place::Name, b':') => self.end_name(),
            (Place::Name, _) => self.keep(byte),
            (Place::Length, b'\n') => Place::Name,
            (Place::Length, digit) => {
                if digit.is_ascii_digit() {
                    let length = self.length.unwrap_or_default().saturating_mul(10);
                    self.length = Some(length.saturating_add(u64::from(digit - b'0')));
                }
                Place::Length
            }
            (Place::Size(size) | Place::Extension(size), b'\n') => match size {
                0 => Place::Trailer { is_empty: true },
                // The chunk, and CR and LF after it.
                size => Place::Chunk(size.saturating_add(2)),
            },
            (Place::Size(size), digit) => match char::from(digit).to_digit(16) {
                Some(digit) => Place::Size(size.saturating_mul(16).saturating_add(digit.into())),
                None => Place::Extension(size),
            },
            (Place::Trailer { is_empty: true }, b'\n') => Place::Name,
            (Place::Trailer { .. }, b'\n') => Place::Trailer { is_empty: true },
            (Place::Trailer { is_empty: true }, b'\r') => Place::Trailer { is_empty: true },
            (Place::Trailer { .. }, _) => Place::Trailer { is_empty: false },
            (place, _) => place,
        };
    }

    /// Keeps a byte of a line that may be a name. A line longer than every name of interest is
    /// skipped like a value.
    fn keep(&mut self, byte: u8) -> Place {
        match self.name.get_mut(self.kept) {
            Some(place) => {
                *place = byte;
                self.kept += 1;
                Place::Name
            }
            None => {
                self.kept = 0;
                Place::Value
            }
        }
    }

    /// Ends a name at its colon, and decides what is read of its value.
    fn end_name(&mut self) -> Place {
        let name = self.name.get(..self.kept).unwrap_or_default();
        let is_length = name.eq_ignore_ascii_case(LENGTH);
        self.encoding |= name.eq_ignore_ascii_case(ENCODING);
        self.kept = 0;
        if is_length {
            self.length = Some(0);
        }
        self.ambiguous |= self.length.is_some() && self.encoding;
        if is_length {
            Place::Length
        } else {
            Place::Value
        }
    }

    /// Ends a line without a colon. An empty one ends the head.
    fn end_line(&mut self) -> Place {
        let line = self.name.get(..self.kept).unwrap_or_default();
        let is_empty = matches!(line, b"" | b"\r");
        self.kept = 0;
        if !is_empty {
            return Place::Name;
        }
        match (self.length.take(), std::mem::take(&mut self.encoding)) {
            // As hyper does, `Transfer-Encoding` wins.
            (_, true) => Place::Size(0),
            (None | Some(0), false) => Place::Name,
            (Some(length), false) => Place::Body(length),
        }
    }
}

/// Returns whether the bytes end with an empty line.
fn ends_head(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n")
}

/// Returns whether any line may begin with `Transfer-Encoding` or `Content-Length`. Only the
/// beginnings of lines are looked at, and the library finds these faster than a loop over all bytes
/// that the compiler may or may not vectorise.
fn may_frame_body(bytes: &[u8]) -> bool {
    let may_frame = |line: &[u8]| match line {
        [first, ..] if first.eq_ignore_ascii_case(&b't') => true,
        [first, _, _, _, _, _, _, _, ninth, ..] => {
            first.eq_ignore_ascii_case(&b'c') && ninth.eq_ignore_ascii_case(&b'l')
        }
        _ => false,
    };
    let mut ends = memchr::memchr_iter(b'\n', bytes);
    may_frame(bytes) || ends.any(|end| bytes.get(end + 1..).is_some_and(may_frame))
}

#[cfg(test)]
mod tests;
