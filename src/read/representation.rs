//! Pure. The representation of a response for one reader: whole, in part, as a 304, without a body,
//! and in a coding that the reader accepts.
//!
//! Promises RFC 9110, sections 8.8, 9.3.2, 13 and 14, for complete responses. The order is that of
//! section 13.2.2: conditions first, then the range.

use crate::cache::coding::{self, Coding, Decoder};
use crate::cache::conditional::{self, weakened};
use crate::cache::range::{self, RangeSelection};
use crate::exchange::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use std::time::SystemTime;

/// The reader of a response.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// The method: GET or HEAD.
    pub method: &'a Method,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
}

impl Recipient<'_> {
    /// Returns whether the reader accepts `gzip`.
    pub fn accepts_gzip(&self) -> bool {
        coding::accepts_gzip(self.headers.get_all(header::ACCEPT_ENCODING))
    }
}

/// A complete response.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The status.
    pub status: StatusCode,
    /// The headers, complete.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The coding of the body.
    pub coding: Coding,
    /// The time of its arrival.
    pub received: SystemTime,
}

/// Headers that describe the bytes, and are left out of a response without them (RFC 9110, section
/// 15.4.5).
const OF_THE_BYTES: [HeaderName; 6] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::LAST_MODIFIED,
];

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Headers that hold only for the coded bytes (for digests: RFC 9530, sections 2 and 3).
const OF_THE_CODED_BYTES: [HeaderName; 4] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    CONTENT_DIGEST,
    HeaderName::from_static("repr-digest"),
];

/// Returns the response for this reader.
pub fn show(reader: &Recipient<'_>, whole: Whole) -> Response<Body> {
    let Whole {
        status,
        mut headers,
        body,
        coding,
        received,
    } = whole;
    let decoded = match coding {
        Coding::Gzip(length) if !reader.accepts_gzip() => {
            plain(&mut headers);
            Some(length)
        }
        _ => None,
    };
    if status == StatusCode::OK {
        if conditional::is_not_modified(reader.headers, &headers, received) {
            return not_modified(headers);
        }
        // A range of decoded bytes is not served: the stored bytes are coded ones.
        if decoded.is_none()
            && *reader.method == Method::GET
            && conditional::permits_range(reader.headers, &headers, received)
        {
            match range::part(reader.headers, body.len()) {
                RangeSelection::Whole => {}
                RangeSelection::Bytes(first, last) => return part(headers, &body, first, last),
                RangeSelection::None => return no_part(headers, body.len()),
            }
        }
    }
    let length = decoded.unwrap_or(body.len());
    let body = match decoded {
        _ if *reader.method == Method::HEAD => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            Body::default()
        }
        Some(length) => Body::Decoded(Box::new(Decoder::new(body, length))),
        None => Body::held(body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Changes the headers to those of the decoded response. Its bytes differ, so its entity tag
/// becomes weak (RFC 9110, section 8.8.3.3).
pub fn plain(headers: &mut HeaderMap) {
    for name in OF_THE_CODED_BYTES {
        headers.remove(name);
    }
    if let Some(tag) = headers.get(header::ETAG) {
        let tag = weakened(tag);
        headers.insert(header::ETAG, tag);
    }
}

fn not_modified(mut headers: HeaderMap) -> Response<Body> {
    let has_tag = headers.contains_key(header::ETAG);
    for name in OF_THE_BYTES {
        // Without an entity tag, `Last-Modified` is what the reader can compare.
        if name != header::LAST_MODIFIED || has_tag {
            headers.remove(name);
        }
    }
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.headers_mut() = headers;
    response
}

fn part(mut headers: HeaderMap, body: &Bytes, first: usize, last: usize) -> Response<Body> {
    let of = range::content_range(Some((first, last)), body.len());
    headers.insert(header::CONTENT_RANGE, of);
    headers.remove(header::CONTENT_LENGTH);
    // This digest is of the whole content. `Repr-Digest` is of the representation and stays.
    headers.remove(CONTENT_DIGEST);
    let mut response = Response::new(Body::held(body.slice(first..=last)));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    *response.headers_mut() = headers;
    response
}

fn no_part(mut headers: HeaderMap, length: usize) -> Response<Body> {
    for name in OF_THE_BYTES {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_RANGE, range::content_range(None, length));
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    *response.headers_mut() = headers;
    response
}
