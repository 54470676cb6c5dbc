//! Pure. Content codings. A response is stored as received, in `gzip` or plain, and each reader
//! gets it in a coding that the reader accepts (RFC 9110, section 12.5.3).
//!
//! Promises that a response stored in `gzip` can be decoded and that its decoded length is within
//! the bound: the body is decoded once before it is stored. A reader without `Accept-Encoding` gets
//! plain bytes, although the RFC would permit any coding.

use super::control::tokens;
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use http::header::{self, HeaderMap, HeaderValue};
use std::io::{self, Read};

/// The `Accept-Encoding` of every shared fetch. Plain bytes are always acceptable.
pub const ASKED: HeaderValue = HeaderValue::from_static("gzip");

/// The coding in which a body is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not compressed.
    Plain,
    /// Compressed with gzip. The number is the decoded length in bytes.
    Gzip(usize),
}

/// Whether a response with these headers has a coding that can be stored.
pub fn is_known(headers: &HeaderMap) -> bool {
    is_gzip(headers).is_some()
}

/// Whether a response is compressed with gzip. `None` for any other compression.
pub fn is_gzip(headers: &HeaderMap) -> Option<bool> {
    let mut gzip = false;
    for coding in tokens(headers.get_all(header::CONTENT_ENCODING)) {
        match coding {
            coding if coding.eq_ignore_ascii_case(b"identity") => {}
            coding if names_gzip(coding) && !gzip => gzip = true,
            _ => return None,
        }
    }
    Some(gzip)
}

fn names_gzip(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
}

/// The reason why a body cannot be stored in its coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The body does not match its `Content-Encoding`, or the coding is not supported.
    Malformed,
    /// The decoded body is longer than the bound.
    TooLong,
}

/// Finds the coding of a complete body and checks that a compressed one decodes to at most `most`
/// bytes. The length of a plain body is not checked.
///
/// # Errors
/// [`Unfit::Malformed`] if the body does not match its header, [`Unfit::TooLong`] if its decoded
/// length exceeds `most`.
pub fn examine(headers: &HeaderMap, body: &[u8], most: usize) -> Result<Coding, Unfit> {
    if !is_gzip(headers).ok_or(Unfit::Malformed)? {
        return Ok(Coding::Plain);
    }
    let mut decoder = MultiGzDecoder::new(body).take(most as u64 + 1);
    let length = io::copy(&mut decoder, &mut io::sink()).map_err(|_| Unfit::Malformed)?;
    let length = usize::try_from(length).map_err(|_| Unfit::TooLong)?;
    if length <= most {
        Ok(Coding::Gzip(length))
    } else {
        Err(Unfit::TooLong)
    }
}

/// Whether these values of `Accept-Encoding` prefer gzip to plain bytes.
pub fn accepts_gzip<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
    let (mut gzip, mut any, mut plain) = (None, None, None);
    for element in tokens(values) {
        let mut parts = element.split(|byte| *byte == b';');
        let coding = parts.next().unwrap_or_default().trim_ascii();
        let weight = weight(parts);
        if names_gzip(coding) {
            gzip = gzip.max(Some(weight));
        } else if coding == b"*" {
            any = any.max(Some(weight));
        } else if coding.eq_ignore_ascii_case(b"identity") {
            plain = plain.max(Some(weight));
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && plain.is_none_or(|plain| gzip >= plain)
}

/// The weight of an element in thousandths: 1000 without a `q` parameter, 0 if the parameter is
/// malformed.
fn weight<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> u16 {
    for parameter in parameters {
        let parameter = parameter.trim_ascii();
        let Some((name, value)) = parameter.split_at_checked(2) else {
            continue;
        };
        if name.eq_ignore_ascii_case(b"q=") {
            return thousandths(value).unwrap_or(0);
        }
    }
    1_000
}

/// Parses a `qvalue` (RFC 9110, section 12.4.2) into thousandths.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut value = u16::from(whole - b'0') * 1_000;
    let mut place = 100;
    for digit in fraction {
        if !digit.is_ascii_digit() {
            return None;
        }
        value += u16::from(digit - b'0') * place;
        place /= 10;
    }
    (value <= 1_000).then_some(value)
}

/// Decodes a stored body piece by piece.
#[derive(Debug)]
pub struct Decoder {
    source: MultiGzDecoder<io::Cursor<Bytes>>,
    left: usize,
}

/// The largest piece, in bytes.
const PIECE: usize = 32 * 1024;

impl Decoder {
    /// A decoder for a body that [`examine`] found to be compressed, with this decoded length in
    /// bytes.
    pub fn new(body: Bytes, length: usize) -> Self {
        Self {
            source: MultiGzDecoder::new(io::Cursor::new(body)),
            left: length,
        }
    }

    /// The number of decoded bytes that are still to come.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Returns the next piece, or `None` at the end.
    ///
    /// # Errors
    /// If the body does not decode to the length that [`examine`] found, which cannot happen with
    /// an unchanged body.
    pub fn piece(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; self.left.min(PIECE)];
        self.source.read_exact(&mut piece)?;
        self.left -= piece.len();
        Ok(Some(piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn encoded(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_a_reader_understands() {
        for (field, expected) in [
            ("gzip", true),
            ("GZIP, deflate", true),
            ("x-gzip", true),
            ("deflate, br", false),
            ("", false),
            ("identity", false),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0", false),
            ("gzip; q=0.5, identity;q=1", false),
            ("gzip;q=0.5, identity;q=0.5", true),
            ("gzip;Q=0.001", true),
            ("gzip;q=0.0000", false),
            ("gzip;q=soon", false),
            ("gzip;x=1", true),
            ("gzip, identity;q=0", true),
        ] {
            let value = HeaderValue::from_static(field);
            assert_eq!(accepts_gzip([&value]), expected, "{field:?}");
        }
        assert!(!accepts_gzip([]));
    }

    #[test]
    fn a_body_is_what_its_header_says_or_is_not_stored() {
        let text = vec![b'a'; 10_000];
        let packed = gzip(&text);
        let two = [gzip(b"abc"), gzip(b"de")].concat();
        let cut = &packed[..packed.len() - 1];
        let trailing = [&packed[..], b"x"].concat();
        for (codings, body, most, expected) in [
            (&[][..], &text[..], 0, Ok(Coding::Plain)),
            (&["identity"], &packed[..], 0, Ok(Coding::Plain)),
            (&["gzip"], &packed, 10_000, Ok(Coding::Gzip(10_000))),
            (&["x-gzip"], &packed, 10_000, Ok(Coding::Gzip(10_000))),
            (&["identity, gzip"], &two, 10, Ok(Coding::Gzip(5))),
            (&["gzip"], &packed, 9_999, Err(Unfit::TooLong)),
            (&["gzip"], &text, 10_000, Err(Unfit::Malformed)),
            (&["gzip"], cut, 10_000, Err(Unfit::Malformed)),
            (&["gzip"], &trailing, 10_000, Err(Unfit::Malformed)),
            (&["gzip"], b"", 10_000, Err(Unfit::Malformed)),
            (&["gzip, gzip"], &packed, 10_000, Err(Unfit::Malformed)),
            (&["gzip", "br"], &packed, 10_000, Err(Unfit::Malformed)),
            (&["br"], &packed, 10_000, Err(Unfit::Malformed)),
        ] {
            let found = examine(&encoded(codings), body, most);
            assert_eq!(found, expected, "{codings:?} {} bytes", body.len());
        }
    }

    #[test]
    fn pieces_make_up_the_whole() {
        let text: Vec<u8> = (0..100_000u32).map(|n| (n / 7 % 251) as u8).collect();
        let mut decoder = Decoder::new(gzip(&text).into(), text.len());
        let mut all = Vec::new();
        while let Some(piece) = decoder.piece().unwrap() {
            assert!(piece.len() <= PIECE);
            all.extend_from_slice(&piece);
            assert_eq!(decoder.left(), text.len() - all.len());
        }
        assert_eq!(all, text);
    }

    proptest::proptest! {
        #[test]
        fn no_field_or_body_is_too_strange(field in "[a-z*;=,.0-9 ]{0,30}", body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_str(&field) {
                let _ = accepts_gzip([&value]);
            }
            let _ = examine(&encoded(&["gzip"]), &body, 100);
        }
    }
}
