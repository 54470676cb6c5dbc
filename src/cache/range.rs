//! Pure. Byte ranges of a complete stored body (RFC 9110, section 14).
//!
//! Promises a single range of bytes or the whole body. Several ranges, other units and malformed
//! ranges yield the whole, as section 14.2 permits. A range that begins after the end is rejected
//! with the length of the body (section 15.5.17).

use http::header::{self, HeaderMap, HeaderValue};

/// The part of a body that a reader gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSelection {
    /// The whole body.
    Whole,
    /// The bytes from the first to the second position, both included.
    Bytes(usize, usize),
    /// None: the range cannot be satisfied.
    None,
}

/// The part that `Range` requests of a body of `length` bytes.
pub fn part(request: &HeaderMap, length: usize) -> RangeSelection {
    let mut values = request.get_all(header::RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return RangeSelection::Whole;
    };
    parse(value.as_bytes(), length).unwrap_or(RangeSelection::Whole)
}

fn parse(value: &[u8], length: usize) -> Option<RangeSelection> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty list elements mean nothing (RFC 9110, section 5.6.1).
    let mut ranges = set
        .split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty());
    let (range, None) = (ranges.next()?, ranges.next()) else {
        return None;
    };
    let (first, last) = range.split_once('-')?;
    if first.is_empty() {
        let most = number(last)?;
        return Some(match (most.min(length), length) {
            (0, _) | (_, 0) => RangeSelection::None,
            (count, length) => RangeSelection::Bytes(length - count, length - 1),
        });
    }
    let first = number(first)?;
    let last = if last.is_empty() {
        usize::MAX
    } else {
        number(last)?
    };
    if last < first {
        return None;
    }
    Some(if first >= length {
        RangeSelection::None
    } else {
        RangeSelection::Bytes(first, last.min(length - 1))
    })
}

/// Parses digits. A number too large for the type is larger than any body.
fn number(digits: &str) -> Option<usize> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(usize::MAX))
}

/// The `Content-Range` of a part, or of a rejected range without one, for a body of `length` bytes.
pub fn content_range(part: Option<(usize, usize)>, length: usize) -> HeaderValue {
    let text = match part {
        Some((first, last)) => format!("bytes {first}-{last}/{length}"),
        None => format!("bytes */{length}"),
    };
    // Digits only, so the value is always valid.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bytes */0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(value: &str, length: usize) -> RangeSelection {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(value).unwrap());
        part(&headers, length)
    }

    #[test]
    fn one_range_of_bytes_or_the_whole() {
        for (value, expected) in [
            ("bytes=0-0", RangeSelection::Bytes(0, 0)),
            ("bytes=2-4", RangeSelection::Bytes(2, 4)),
            ("Bytes = 2-4", RangeSelection::Bytes(2, 4)),
            ("bytes=,2-4,", RangeSelection::Bytes(2, 4)),
            ("bytes=2-", RangeSelection::Bytes(2, 9)),
            (
                "bytes=2-99999999999999999999999",
                RangeSelection::Bytes(2, 9),
            ),
            ("bytes=-3", RangeSelection::Bytes(7, 9)),
            ("bytes=-99", RangeSelection::Bytes(0, 9)),
            ("bytes=9-", RangeSelection::Bytes(9, 9)),
            ("bytes=10-", RangeSelection::None),
            ("bytes=99999999999999999999999-", RangeSelection::None),
            ("bytes=-0", RangeSelection::None),
            ("bytes=4-2", RangeSelection::Whole),
            ("bytes=0-1,3-4", RangeSelection::Whole),
            ("bytes=", RangeSelection::Whole),
            ("bytes=-", RangeSelection::Whole),
            ("bytes=a-b", RangeSelection::Whole),
            ("bytes=+1-2", RangeSelection::Whole),
            ("items=0-1", RangeSelection::Whole),
            ("bytes", RangeSelection::Whole),
            ("", RangeSelection::Whole),
        ] {
            assert_eq!(of(value, 10), expected, "{value:?}");
        }
        assert_eq!(of("bytes=0-", 0), RangeSelection::None);
        assert_eq!(of("bytes=-1", 0), RangeSelection::None);
        let mut twice = HeaderMap::new();
        twice.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        twice.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(part(&twice, 10), RangeSelection::Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_always_within_the_body(value in "(bytes)?=?[0-9, -]{0,12}", length in 0usize..20) {
            if let RangeSelection::Bytes(first, last) = of(&value, length) {
                prop_assert!(first <= last && last < length);
            }
        }
    }
}
