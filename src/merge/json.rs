//! Pure. JSON that keeps its meaning when it is taken apart and written again.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Parses a JSON text (RFC 8259). Members are sorted, so that their order makes no difference.
/// `None` if the text is malformed, or if a reader might understand the rewritten text differently:
/// an object has a member twice, or a number is not a 64-bit integer.
pub(super) fn read(text: &[u8]) -> Option<Value> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = Reading.deserialize(&mut json).ok()?;
    json.end().ok().map(|()| value)
}

struct Reading;

impl<'de> DeserializeSeed<'de> for Reading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members and fractions")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = array.next_element_seed(Reading)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            let value = object.next_value_seed(Reading)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_says_the_same_when_written() {
        for (text, written) in [
            (
                r#"{"b":[1,-2,true,null],"a":{"x":"é\u0041"}}"#,
                r#"{"a":{"x":"éA"},"b":[1,-2,true,null]}"#,
            ),
            (r#" "a" "#, r#""a""#),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_may_change_is_not_read() {
        for text in [
            "",
            "{",
            "{} {}",
            r#"{"a":1,"a":1}"#,
            r#"[{"a":{"b":1,"\u0062":2}}]"#,
            "[1.0]",
            "1e3",
            "18446744073709551616",
            r#""\ud800""#,
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(read(b"\"\xff\""), None);
        assert_eq!(read("[".repeat(1000).as_bytes()), None);
    }
}
