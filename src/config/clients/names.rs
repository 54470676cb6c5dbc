//! Pure. The forms of names in the file of clients.

use super::values::shown;
use crate::config::read::Section;

/// The most clients, groups and tokens, of each. Clients are labels of metrics.
const MOST_NAMES: usize = 200;
/// The most characters of a name.
const LONGEST_NAME: usize = 64;

/// The form of a name, for messages.
pub const CLIENT_NAME: &str = "a name of 1 to 64 lower-case letters, digits, `.`, `_` and `-` that begins with a letter or digit";
/// The form of a name in a certificate, for messages.
pub(super) const CERTIFICATE: &str = "a name in client certificates: `spiffe://domain/path`, or a DNS name in lower \
                           case without wildcard";

/// Returns the names of the tables or keys of a section. Malformed ones, and those beyond the
/// bound, are reported and left out.
pub(super) fn names(section: &mut Section<'_>, what: &str) -> Vec<String> {
    let written = section.names();
    if written.len() > MOST_NAMES {
        let found = format!("{} {what}", written.len());
        section.wrong(found, format!("{MOST_NAMES} {what} at most"));
    }
    let (names, malformed): (Vec<_>, Vec<_>) =
        written.into_iter().partition(|name| is_client_name(name));
    for name in malformed {
        section.refuse(&name, shown(&name), CLIENT_NAME);
    }
    let (kept, beyond) = names.split_at(names.len().min(MOST_NAMES));
    beyond.iter().for_each(|name| section.skip(name));
    kept.to_vec()
}

/// Returns whether a text may be the name of a client, group or token.
pub fn is_client_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= LONGEST_NAME
        && text.bytes().next().is_some_and(is_plain)
        && text.bytes().all(|b| is_plain(b) || b"._-".contains(&b))
        && !text.starts_with("sgw_")
}

/// Returns whether a text has the form of a SPIFFE id (SPIFFE-ID, section 2) or of a host name in
/// lower case.
pub(super) fn is_certificate_name(text: &str) -> bool {
    let is_lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let is_domain = |text: &str| {
        let labels = text
            .split('.')
            .all(|label| !label.is_empty() && label.len() <= 63);
        text.len() <= 253 && labels && text.bytes().all(is_lower)
    };
    let Some(id) = text.strip_prefix("spiffe://") else {
        return is_domain(text);
    };
    let mut segments = id.split('/');
    let is_segment = |text: &str| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        !matches!(text, "" | "." | "..") && text.bytes().all(is_plain)
    };
    id.len() <= 2048 && segments.next().is_some_and(is_domain) && segments.all(is_segment)
}
