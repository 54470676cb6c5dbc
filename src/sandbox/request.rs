//! Pure. The parts of a request: its query in all documented spellings, its body, its page.
//!
//! A list may arrive as `emails.0=`, as `emails[0]=` (brackets usually percent-encoded), or as a
//! repeated `emails=`. A member of an object may arrive as `pagination.count=` or
//! `pagination[count]=`, and a page as one JSON object, `pagination={"count":2}`. The page may also
//! be in the body of a GET.
//!
//! Names and indices in a query that mean nothing are ignored. A wrong body or page is a 422.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The reason to reject a request, which becomes the API's error envelope.
///
/// The media type is chosen later, from the request's `Accept`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    /// The status code.
    pub(super) status: u16,
    /// The `type` member.
    pub(super) kind: &'static str,
    /// The `message` member.
    pub(super) message: String,
    /// The `field` member: the part of the request that is wrong.
    pub(super) field: Option<String>,
}

impl ApiError {
    /// Returns an error of no particular field.
    pub(super) fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            field: None,
        }
    }

    /// Returns a 422: a part of the request is missing or has the wrong form.
    pub(super) fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.to_owned()),
            ..Self::new(422, "ValidationError", message)
        }
    }

    /// Returns a 404: the named thing does not exist.
    pub(super) fn missing(what: &str, name: &str) -> Self {
        Self::new(
            404,
            "NotFoundError",
            format!("{what} {name:?} was not found"),
        )
    }
}

/// The decoded pairs of a query, in order. Names may occur several times.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a query as a form: `+` is a space, and bytes that are not UTF-8 are replaced.
    pub(super) fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        // A name without `=` has an empty value.
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// Returns the first value of a scalar. Later values of the same name are ignored.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns a member of an object, in either spelling.
    pub(super) fn member(&self, object: &str, member: &str) -> Option<&str> {
        let bracketed = |key: &str| inside(key, object) == Some(member);
        let found = self
            .0
            .iter()
            .find(|(key, _)| dotted(key, object) == Some(member) || bracketed(key));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the elements of a list, in any spelling. Indexed ones are sorted by index.
    ///
    /// Elements without an index (`emails=`, `emails[]=`) count as if their index were the number
    /// of elements before them. Gaps are closed, and an index that is no number is ignored with its
    /// value.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let mut found: Vec<(usize, &str)> = Vec::new();
        for (key, value) in &self.0 {
            let index = if key == name {
                Some("")
            } else {
                dotted(key, name).or_else(|| inside(key, name))
            };
            match index {
                Some("") => found.push((found.len(), value)),
                Some(digits) => found.extend(
                    digits
                        .parse()
                        .ok()
                        .map(|index: usize| (index, value.as_str())),
                ),
                None => {}
            }
        }
        // Stable: elements with one index stay in the order of the query.
        found.sort_by_key(|(index, _)| *index);
        found
            .into_iter()
            .map(|(_, value)| value.to_owned())
            .collect()
    }
}

/// Returns `member` of `object.member`.
fn dotted<'a>(key: &'a str, object: &str) -> Option<&'a str> {
    key.strip_prefix(object)?.strip_prefix('.')
}

/// Returns `member` of `object[member]`.
fn inside<'a>(key: &'a str, object: &str) -> Option<&'a str> {
    key.strip_prefix(object)?
        .strip_prefix('[')?
        .strip_suffix(']')
}

/// The requested part of a list.
///
/// A cursor is an offset, so a page is not a snapshot. Items that are created or deleted between
/// two requests shift the later pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The number of items before the page.
    offset: usize,
    /// The most items on the page.
    count: usize,
}

impl Page {
    /// Reads the page from the query, or else from the body. In the query, a member of its own
    /// counts before one of a JSON object. The count is 200 by default, and from 1 to 1000.
    pub(super) fn read(query: &Query, body: &[u8]) -> Result<Self, ApiError> {
        let in_body = if body.is_empty() {
            Value::Null
        } else {
            json(body)?
        };
        let in_query = match query.get("pagination") {
            None => Value::Null,
            Some(text) => json(text.as_bytes())
                .map_err(|_| ApiError::invalid("pagination", "pagination must be a JSON object"))?,
        };
        // A count may be a number or a text; both are parsed as text below.
        let text = |member: &Value| match member {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let read = |member| {
            let own = query.member("pagination", member).map(str::to_owned);
            own.or_else(|| text(&in_query[member]))
                .or_else(|| text(&in_body["pagination"][member]))
        };
        let count = match read("count") {
            None => 200,
            Some(text) => text
                .parse()
                .ok()
                .filter(|count| (1..=1000).contains(count))
                .ok_or_else(|| {
                    ApiError::invalid("pagination.count", "count must be a number from 1 to 1000")
                })?,
        };
        let offset = match read("cursor") {
            None => 0,
            Some(text) => from_cursor(&text).ok_or_else(|| {
                ApiError::invalid("pagination.cursor", "cursor is not one of this API")
            })?,
        };
        Ok(Self { offset, count })
    }

    /// Returns the `data` of a response: the page of `items` under `name`, and the cursors. `items`
    /// are JSON texts, `total` of them.
    ///
    /// A page behind the end is empty and no error. It has a previous page but no next one.
    pub(super) fn render<T: AsRef<str>>(
        self,
        name: &str,
        total: usize,
        items: impl Iterator<Item = T>,
    ) -> String {
        let mut shown = String::with_capacity(256);
        for item in items.skip(self.offset).take(self.count) {
            if !shown.is_empty() {
                shown.push(',');
            }
            shown.push_str(item.as_ref());
        }
        let cursor = |name: &str, offset| format!(r#""{name}":"{}","#, to_cursor(offset));
        let mut cursors = cursor("current", self.offset);
        let end = self.offset.saturating_add(self.count);
        if end < total {
            cursors.push_str(&cursor("next", end));
        }
        if self.offset > 0 {
            cursors.push_str(&cursor("previous", self.offset.saturating_sub(self.count)));
        }
        format!(r#"{{"{name}":[{shown}],"pagination":{{{cursors}"totalEntries":{total}}}}}"#)
    }
}

/// Parses the body as a JSON object.
///
/// An empty body is not JSON. Operations without a body do not call this.
pub(super) fn json(body: &[u8]) -> Result<Value, ApiError> {
    match serde_json::from_slice(body) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(ApiError::invalid("body", "the body must be a JSON object")),
        Err(_) => Err(ApiError::invalid("body", "the body is not JSON")),
    }
}

/// Returns text as a JSON string with its quotes.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Returns a cursor: the offset in decimal, in base64 (RFC 4648, section 4), like the samples in
/// the reference.
fn to_cursor(offset: usize) -> String {
    STANDARD.encode(offset.to_string())
}

/// Returns the offset of a cursor, or `None` if it has not the form that `to_cursor` gives one.
fn from_cursor(cursor: &str) -> Option<usize> {
    let digits = STANDARD.decode(cursor).ok()?;
    str::from_utf8(&digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_read_in_every_spelling() {
        let table = [
            ("emails.0=a%40b.c&emails.1=d%40e.f", vec!["a@b.c", "d@e.f"]),
            ("emails.1=2&emails.0=1&emails.10=3", vec!["1", "2", "3"]),
            (
                "emails%5B0%5D=a%2Bb%40c&emails%5B1%5D=x",
                vec!["a+b@c", "x"],
            ),
            ("emails[0]=1&emails[1]=2", vec!["1", "2"]),
            ("emails=1&emails=2", vec!["1", "2"]),
            ("emails[]=1&emails[]=2", vec!["1", "2"]),
            ("emailsx.0=1&email=2&emails.x=3", vec![]),
            ("", vec![]),
        ];
        for (text, expected) in table {
            assert_eq!(Query::parse(text).list("emails"), expected, "{text}");
        }
    }

    #[test]
    fn pages_are_read_from_query_and_body() {
        let page = |offset, count| Ok(Page { offset, count });
        let table = [
            ("", "", page(0, 200)),
            ("pagination.count=2", "", page(0, 2)),
            (
                "pagination%5Bcount%5D=1000&pagination%5Bcursor%5D=Mw==",
                "",
                page(3, 1000),
            ),
            (
                "",
                r#"{"pagination":{"count":3,"cursor":"Mw=="}}"#,
                page(3, 3),
            ),
            (
                "pagination.count=7",
                r#"{"pagination":{"count":3}}"#,
                page(0, 7),
            ),
            (
                "pagination=%7B%22cursor%22%3A%20%22Mw%3D%3D%22%2C%20%22count%22%3A%2050%7D",
                "",
                page(3, 50),
            ),
            (
                r#"pagination={"count":50}&pagination[count]=7"#,
                r#"{"pagination":{"cursor":"Mw=="}}"#,
                page(3, 7),
            ),
        ];
        for (query, body, expected) in table {
            assert_eq!(
                Page::read(&Query::parse(query), body.as_bytes()),
                expected,
                "{query} {body}"
            );
        }
        let wrong = [
            ("pagination.count=0", ""),
            ("pagination.count=1001", ""),
            ("pagination.count=x", ""),
        ];
        let worse = [
            ("pagination.cursor=Mw", ""),
            ("pagination.cursor=____", ""),
            ("pagination=x", ""),
            ("pagination=[]", ""),
            (r#"pagination={"count":0}"#, ""),
            ("", "{"),
            ("", "[]"),
        ];
        for (query, body) in wrong.into_iter().chain(worse) {
            let problem = Page::read(&Query::parse(query), body.as_bytes()).unwrap_err();
            assert_eq!(problem.status, 422, "{query} {body}");
        }
    }

    #[test]
    fn pages_carry_their_neighbours() {
        let items = ["1", "2", "3", "4", "5"];
        let render = |offset, count| Page { offset, count }.render("n", 5, items.iter());
        let first = render(0, 2);
        assert_eq!(
            first,
            r#"{"n":[1,2],"pagination":{"current":"MA==","next":"Mg==","totalEntries":5}}"#
        );
        let last = render(4, 2);
        assert_eq!(
            last,
            r#"{"n":[5],"pagination":{"current":"NA==","previous":"Mg==","totalEntries":5}}"#
        );
        assert!(render(9, 2).starts_with(r#"{"n":[],"#));
    }

    proptest! {
        #[test]
        fn cursors_are_read_back(offset: usize) {
            prop_assert_eq!(from_cursor(&to_cursor(offset)), Some(offset));
        }

        #[test]
        fn nothing_read_panics(text in ".{0,60}", body in prop::collection::vec(any::<u8>(), 0..40)) {
            let query = Query::parse(&text);
            query.list("emails");
            let _ = Page::read(&query, &body);
            from_cursor(&text);
        }
    }
}
