//! Pure. Finds requests whose framing could be read in two ways.
//!
//! A message with both `Transfer-Encoding` and `Content-Length` is the means of request smuggling
//! and is refused (RFC 9112, section 6.3). The HTTP library drops the length of such a message
//! before anybody sees its header, so the bytes themselves are looked at.

/// Whether some head among `bytes` has both fields. A head is a block of lines without an empty
/// one.
pub fn is_ambiguous(bytes: &[u8]) -> bool {
    let (mut length, mut encoding) = (false, false);
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            (length, encoding) = (false, false);
            continue;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or(line);
        length |= name.eq_ignore_ascii_case(b"content-length");
        encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
        if length && encoding {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fields_in_one_head_are_found() {
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
            ("", false),
        ];
        for (bytes, expected) in cases {
            assert_eq!(is_ambiguous(bytes.as_bytes()), *expected, "{bytes:?}");
        }
    }
}
