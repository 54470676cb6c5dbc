//! Pure. Finds requests whose framing could be read in two ways.
//!
//! A message with both `Transfer-Encoding` and `Content-Length` is the means of request smuggling
//! and is refused (RFC 9112, section 6.3). The HTTP library drops the length of such a message
//! before anybody sees its header, so the bytes of a connection themselves are looked at, line by
//! line, as they come.
//!
//! Where a head begins is not known here: a block of lines without an empty one is taken for one.
//! A head is never divided by that. A body that has both fields in neighbouring lines of its own
//! may be taken for a head; the connection's later requests with `Transfer-Encoding` are then
//! refused without need, which nobody has to suffer who does not provoke it.

const LENGTH: &[u8] = b"content-length";
const ENCODING: &[u8] = b"transfer-encoding";
/// One byte more than the longer name: what is longer is neither.
const KEPT: usize = ENCODING.len() + 1;

/// What is known of the bytes of one connection so far.
#[derive(Debug, Default)]
pub struct Blocks {
    /// The beginning of the present line, up to a colon.
    name: [u8; KEPT],
    kept: usize,
    past_name: bool,
    length: bool,
    encoding: bool,
    ambiguous: bool,
}

impl Blocks {
    /// Looks at the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        // Every hit's head comes by here, nearly always alone and whole.
        if self.begins() && ends_block(bytes) && !may_name_encoding(bytes) {
            self.length = false;
            return;
        }
        self.feed_lines(bytes);
    }

    /// Whether the next byte begins a line, in a block without an encoding so far.
    fn begins(&self) -> bool {
        self.kept == 0 && !self.past_name && !self.encoding
    }

    fn feed_lines(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.past_name || (self.kept == 0 && begins_neither(*byte)) {
                // What is of no interest is skipped line by line.
                let line_end = memchr::memchr(b'\n', bytes);
                self.past_name = line_end.is_none();
                self.kept = 0;
                bytes = line_end
                    .and_then(|at| bytes.get(at + 1..))
                    .unwrap_or_default();
                continue;
            }
            match byte {
                b'\n' => self.end_line(),
                b':' => self.end_name(),
                _ => self.keep(*byte),
            }
            bytes = rest;
        }
    }

    /// Whether some block had both fields.
    pub fn ambiguous(&self) -> bool {
        self.ambiguous
    }

    fn keep(&mut self, byte: u8) {
        match self.name.get_mut(self.kept) {
            Some(place) => {
                *place = byte;
                self.kept += 1;
            }
            None => self.past_name = true,
        }
    }

    fn end_name(&mut self) {
        let name = self.name.get(..self.kept).unwrap_or_default();
        self.length |= name.eq_ignore_ascii_case(LENGTH);
        self.encoding |= name.eq_ignore_ascii_case(ENCODING);
        self.ambiguous |= self.length && self.encoding;
        self.past_name = true;
    }

    fn end_line(&mut self) {
        let line = self.name.get(..self.kept).unwrap_or_default();
        if !self.past_name && matches!(line, b"" | b"\r") {
            (self.length, self.encoding) = (false, false);
        }
        (self.kept, self.past_name) = (0, false);
    }
}

/// Whether an empty line is the last one.
fn ends_block(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n")
}

/// Whether any line begins like `Transfer-Encoding`. All bytes are compared, without a branch, so
/// that the compiler can compare many at once.
fn may_name_encoding(bytes: &[u8]) -> bool {
    let begins = |byte: u8| byte | 0x20 == b't';
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    let later = pairs.fold(false, |any, (before, byte)| {
        any | ((*before == b'\n') & begins(*byte))
    });
    later | bytes.first().copied().is_some_and(begins)
}

/// Whether a line that begins so is neither field, nor the end of a block.
fn begins_neither(byte: u8) -> bool {
    !matches!(byte, b'c' | b'C' | b't' | b'T' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_fields_in_one_head_are_found_however_the_bytes_come() {
        let cases: &[(&str, bool)] = &[
            (
                "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                true,
            ),
            (
                "POST / HTTP/1.1\nTRANSFER-ENCODING: chunked\nx: y\ncontent-length: 3\n\n",
                true,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                false,
            ),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", false),
            (
                "a\r\ncontent-length: 1\r\n\r\nb\r\ntransfer-encoding: chunked\r\n\r\n",
                false,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
                true,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
                false,
            ),
            (
                "a\r\nx-content-length: 1\r\ncontent-length-x: 1\r\ntransfer-encoding: b\r\n",
                false,
            ),
            ("", false),
        ];
        for (bytes, expected) in cases {
            for size in 1..=bytes.len().max(1) {
                let mut blocks = Blocks::default();
                for part in bytes.as_bytes().chunks(size) {
                    blocks.feed(part);
                }
                assert_eq!(blocks.ambiguous(), *expected, "{bytes:?} by {size}");
            }
        }
    }

    /// All that matters for what comes next.
    fn state(blocks: &Blocks) -> (&[u8], [bool; 4]) {
        let Blocks {
            past_name,
            length,
            encoding,
            ambiguous,
            ..
        } = *blocks;
        let name = &blocks.name[..blocks.kept];
        (name, [past_name, length, encoding, ambiguous])
    }

    proptest! {
        #[test]
        fn looking_at_whole_heads_at_once_finds_the_same(
            lines in prop::collection::vec(
                prop::sample::select(vec![
                    "GET / HTTP/1.1", "Host: a", "", "", "Content-Length: 1", "connection: close",
                    "transfer-encoding: chunked", "Transfer-Encoding: x", "te: trailers",
                    " transfer-encoding: folded", "\r", "tx",
                ]),
                0..12,
            ),
            ends in prop::collection::vec(prop::sample::select(vec!["\r\n", "\n"]), 12),
            cuts in prop::collection::vec(0usize..100, 0..4),
        ) {
            let text: String = lines.iter().zip(&ends).flat_map(|(line, end)| [*line, *end]).collect();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| (*cut).min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut whole, mut by_lines) = (Blocks::default(), Blocks::default());
            for cut in cuts.windows(2) {
                let part = &text.as_bytes()[cut[0]..cut[1]];
                whole.feed(part);
                by_lines.feed_lines(part);
                prop_assert_eq!(state(&whole), state(&by_lines), "{:?}", text);
            }
        }
    }

    #[test]
    fn what_lies_between_the_fields_may_be_of_any_length() {
        let filler = "x: ".to_owned() + &"y".repeat(100_000);
        let head = format!("P\r\ncontent-length: 1\r\n{filler}\r\ntransfer-encoding: chunked\r\n");
        let mut blocks = Blocks::default();
        blocks.feed(head.as_bytes());
        assert!(blocks.ambiguous());
    }
}
