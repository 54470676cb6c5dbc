//! Pure. A page of a list as one JSON object in a query: `pagination={"cursor":"Mw==","count":50}`.
//!
//! Segment's Python SDK asks for pages like this. Promises to read an object only if every reader
//! of JSON finds the same page in it; anything else is no page, and the parameter stands for
//! itself.

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::fmt;

/// The parameter that names a page.
pub(super) const NAME: &str = "pagination";

/// The members of a page as they are written in the other spellings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageMembers {
    /// The cursor.
    pub(super) cursor: Option<String>,
    /// The number of items, in decimal.
    pub(super) count: Option<String>,
}

/// Returns the page in a JSON text. `None` if the text is not one object of a string `cursor`, an
/// integer `count`, or both: a server may reject an unknown member, a `null` or a number in quotes,
/// and servers differ in which of two equal members counts.
pub(super) fn members(text: &str) -> Option<PageMembers> {
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json.deserialize_map(PageVisitor).ok()?;
    json.end().ok()?;
    (members.cursor.is_some() || members.count.is_some()).then_some(members)
}

struct PageVisitor;

impl<'de> Visitor<'de> for PageVisitor {
    type Value = PageMembers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a cursor and a count")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<PageMembers, A::Error> {
        let (mut cursor, mut count) = (None, None);
        while let Some(name) = object.next_key::<String>()? {
            match name.as_str() {
                "cursor" if cursor.is_none() => cursor = Some(object.next_value()?),
                "count" if count.is_none() => {
                    // A fraction or an exponent is no integer here, even if its value is one.
                    count = Some(object.next_value::<u64>()?.to_string());
                }
                _ => return Err(A::Error::custom("an unknown member, or one twice")),
            }
        }
        Ok(PageMembers { cursor, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        for (text, cursor, count) in [
            (
                r#"{"cursor": "Mw==", "count": 50}"#,
                Some("Mw=="),
                Some("50"),
            ),
            (r#"{"count":1,"cursor":""}"#, Some(""), Some("1")),
            (r#"{"count":0}"#, None, Some("0")),
            (r#" {"cursor":"\u004dw==\n"} "#, Some("Mw==\n"), None),
        ] {
            let expected = PageMembers {
                cursor: cursor.map(ToOwned::to_owned),
                count: count.map(ToOwned::to_owned),
            };
            assert_eq!(members(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_readers_may_take_differently_is_no_page() {
        for text in [
            "",
            "x",
            "{",
            "{}",
            "null",
            "50",
            r#"["Mw==",50]"#,
            r#"{"count":50}{}"#,
            r#"{"count":50,"count":50}"#,
            r#"{"cursor":"a","\u0063ursor":"a"}"#,
            r#"{"count":50,"size":1}"#,
            r#"{"Count":50}"#,
            r#"{"count":"50"}"#,
            r#"{"count":50.0}"#,
            r#"{"count":5e1}"#,
            r#"{"count":-0}"#,
            r#"{"count":-1}"#,
            r#"{"count":18446744073709551616}"#,
            r#"{"count":null}"#,
            r#"{"cursor":null,"count":50}"#,
            r#"{"cursor":3}"#,
            r#"{"cursor":"\ud800"}"#,
            r#"{"cursor":["Mw=="]}"#,
        ] {
            assert_eq!(members(text), None, "{text}");
        }
        assert_eq!(members(&"{\"count\":".repeat(10_000)), None);
    }
}
