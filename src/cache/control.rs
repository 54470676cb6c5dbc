//! Pure. `Cache-Control`, parsed so that nothing unclear counts as a permission.
//!
//! Promises (RFC 9111, sections 4.2.1 and 5.2):
//!
//! - Names are compared without regard to case. Unknown directives are ignored.
//! - An argument may be a token or a quoted string.
//! - A lifetime that is unreadable, or stated twice with different values, is 0.
//! - A number that is too large counts as 2^31 seconds.
//! - A quoted string without an end makes the field unreadable, which counts as `no-store`.
//! - A qualified `no-cache="…"` counts as an unqualified one, which section 5.2.2 permits.
//!
//! Requests and responses share the parser. [`request`](super::request) and
//! [`lifetime`](super::lifetime) say which directives count in which.

use http::header::{HeaderName, HeaderValue};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The largest lifetime, in seconds (RFC 9111, section 1.2.2).
const LONGEST: u64 = 1 << 31;

/// The directives of one message. Section numbers refer to RFC 9111.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `no-store` (5.2.1.5, 5.2.2.5).
    pub no_store: bool,
    /// `no-cache`, also with a list of fields (5.2.1.4, 5.2.2.4).
    pub no_cache: bool,
    /// `must-revalidate` (5.2.2.2).
    pub must_revalidate: bool,
    /// `proxy-revalidate` (5.2.2.8).
    pub proxy_revalidate: bool,
    /// `must-understand` (5.2.2.3).
    pub must_understand: bool,
    /// `public` (5.2.2.9).
    pub public: bool,
    /// `no-transform` (5.2.1.6, 5.2.2.6).
    pub no_transform: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `only-if-cached` (5.2.1.7).
    pub only_if_cached: bool,
    /// `max-age` (5.2.1.1, 5.2.2.1).
    pub max_age: Option<Duration>,
    /// `s-maxage`, which takes precedence over `max-age` in a shared cache (5.2.2.10).
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861, section 3).
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error`, in responses and in requests (RFC 5861, section 4).
    pub stale_if_error: Option<Duration>,
    /// `max-stale`, which without an argument accepts any staleness (5.2.1.2).
    pub max_stale: Option<Duration>,
    /// `min-fresh` (5.2.1.3).
    pub min_fresh: Option<Duration>,
}

impl CacheControl {
    /// Parses all values of `Cache-Control` of one message.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut found = Self::default();
        for value in values {
            found.read_line(value.as_bytes());
        }
        found
    }

    /// The lifetime of a response in a shared cache, where it is stated.
    pub fn lifetime(&self) -> Option<Duration> {
        self.s_maxage.or(self.max_age)
    }

    /// Whether nothing forbids serving a response after its lifetime. `s-maxage` implies
    /// `proxy-revalidate` (RFC 9111, section 5.2.2.10).
    pub fn may_be_stale(&self) -> bool {
        !(self.must_revalidate || self.proxy_revalidate || self.no_cache || self.s_maxage.is_some())
    }

    fn read_line(&mut self, mut line: &[u8]) {
        while !line.is_empty() {
            let piece = first_directive(line);
            self.read(piece.text);
            self.no_store |= piece.unclosed;
            line = piece.rest;
        }
    }

    fn read(&mut self, directive: &[u8]) {
        let mut halves = directive.splitn(2, |byte| *byte == b'=');
        // Stray quotes around a name must not hide the directive.
        let name = trim(halves.next().unwrap_or_default(), is_padding);
        let argument = halves.next();
        if !self.set_flag(name) {
            self.set_time(name, argument.map(seconds));
        }
    }

    /// Sets a directive without an argument. Returns whether the name is one of those.
    pub(super) fn set_flag(&mut self, name: &[u8]) -> bool {
        let flag = match name.to_ascii_lowercase().as_slice() {
            b"no-store" => &mut self.no_store,
            b"no-cache" => &mut self.no_cache,
            b"must-revalidate" => &mut self.must_revalidate,
            b"proxy-revalidate" => &mut self.proxy_revalidate,
            b"must-understand" => &mut self.must_understand,
            b"public" => &mut self.public,
            b"no-transform" => &mut self.no_transform,
            b"immutable" => &mut self.immutable,
            b"only-if-cached" => &mut self.only_if_cached,
            _ => return false,
        };
        *flag = true;
        true
    }

    /// Sets a directive with a number of seconds. `None` means no argument, `Some(None)` an
    /// argument that is not a number.
    pub(super) fn set_time(&mut self, name: &[u8], argument: Option<Option<Duration>>) {
        let read = argument.flatten();
        match name.to_ascii_lowercase().as_slice() {
            b"max-age" => state(&mut self.max_age, read),
            b"s-maxage" => state(&mut self.s_maxage, read),
            b"stale-while-revalidate" => state(&mut self.stale_while_revalidate, read),
            b"stale-if-error" => state(&mut self.stale_if_error, read),
            b"max-stale" => {
                let any = argument.is_none().then_some(Duration::from_secs(LONGEST));
                state(&mut self.max_stale, any.or(read));
            }
            b"min-fresh" => {
                // An unreadable `min-fresh` demands more than any response can meet.
                let read = read.unwrap_or(Duration::from_secs(LONGEST));
                self.min_fresh = Some(self.min_fresh.map_or(read, |old| old.max(read)));
            }
            _ => {}
        }
    }
}

/// Applies the rule for lifetimes: an unreadable value, or a second one that differs, makes the
/// lifetime 0 (RFC 9111, section 4.2.1).
fn state(time: &mut Option<Duration>, read: Option<Duration>) {
    let read = read.unwrap_or_default();
    *time = Some(match *time {
        Some(old) if old != read => Duration::ZERO,
        _ => read,
    });
}

/// Whether any value of a comma-separated field contains this token, without regard to case.
pub fn lists_token<'a>(values: impl IntoIterator<Item = &'a HeaderValue>, token: &str) -> bool {
    tokens(values).any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
}

/// The elements of a comma-separated field without quoted strings (RFC 9110, section 5.6.1). Empty
/// elements are skipped.
pub fn tokens<'a>(
    values: impl IntoIterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = &'a [u8]> {
    values
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|token| trim(token, |byte| byte.is_ascii_whitespace()))
        .filter(|token| !token.is_empty())
}

/// Whether a field belongs to one connection only, so that a stored copy must not contain it.
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // RFC 9110, section 7.6.1, and older names that are still in use.
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

struct Piece<'a> {
    text: &'a [u8],
    rest: &'a [u8],
    /// Whether the text ends inside a quoted string.
    unclosed: bool,
}

/// Splits at the first comma outside quotes. A semicolon also splits, because some senders mistake
/// it for a comma. A quote opens a string only after `=`; elsewhere it is stray and must not hide
/// directives.
fn first_directive(line: &[u8]) -> Piece<'_> {
    let mut quoted = false;
    let mut before = b' ';
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' if quoted => quoted = false,
            b'"' if before == b'=' => quoted = true,
            b',' | b';' if !quoted => break,
            _ => {}
        }
        before = byte;
        at += 1;
    }
    let end = at.min(line.len());
    Piece {
        text: &line[..end],
        rest: line.get(end + 1..).unwrap_or_default(),
        unclosed: quoted,
    }
}

/// Parses seconds from a token or a quoted string. `None` if the argument is not a number.
fn seconds(argument: &[u8]) -> Option<Duration> {
    let argument = argument.trim_ascii_end();
    let digits = match argument {
        [b'"', inner @ .., b'"'] => inner,
        plain => plain,
    };
    delta_seconds(digits)
}

/// Parses digits as seconds (RFC 9111, section 1.2.2): at least one digit, clamped to 2^31.
pub(super) fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| (sum * 10 + u64::from(digit - b'0')).min(LONGEST);
    Some(Duration::from_secs(digits.iter().fold(0, add)))
}

fn is_padding(byte: u8) -> bool {
    byte == b'"' || byte.is_ascii_whitespace()
}

fn trim(mut text: &[u8], padding: impl Fn(u8) -> bool) -> &[u8] {
    while let [first, rest @ ..] = text
        && padding(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && padding(*last)
    {
        text = rest;
    }
    text
}
