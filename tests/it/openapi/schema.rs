//! A judge of JSON by the part of JSON Schema that the description uses. It is stricter than a client may
//! be: a member that is not described is a mistake. A keyword that it does not know fails the test.

use serde_json::Value;

/// What is wrong with the value, each with its place.
pub fn mistakes(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().expect("a schema") {
        match keyword.as_str() {
            "description" | "format" | "default" | "required" => {}
            "$ref" => {
                let name = rule.as_str().and_then(|name| name.strip_prefix('#'));
                let named = root.pointer(name.expect("a reference")).expect("a schema");
                found.extend(mistakes(root, named, value, at));
            }
            "anyOf" => {
                let mut any = rule.as_array().expect("schemas").iter();
                if !any.any(|one| mistakes(root, one, value, at).is_empty()) {
                    found.push(format!("{at}: {value} is none of {rule}"));
                }
            }
            "type" => {
                let names = rule
                    .as_array()
                    .map_or(vec![rule], |names| names.iter().collect());
                if !names
                    .iter()
                    .any(|name| is_of(name.as_str().expect("a type"), value))
                {
                    found.push(format!("{at}: {value} is not {rule}"));
                }
            }
            "enum" => {
                if !rule.as_array().expect("values").contains(value) {
                    found.push(format!("{at}: {value} is none of {rule}"));
                }
            }
            "minimum" | "maximum" => {
                let (limit, number) = (rule.as_f64().expect("a number"), value.as_f64());
                let is_low = keyword == "minimum";
                if number.is_some_and(|number| {
                    if is_low {
                        number < limit
                    } else {
                        number > limit
                    }
                }) {
                    found.push(format!("{at}: {value}: {keyword} {rule}"));
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(mistakes(root, rule, item, &format!("{at}[{n}]")));
                }
            }
            "properties" | "additionalProperties" => {}
            other => panic!("{at}: this test does not know {other}"),
        }
    }
    if let Some(members) = value.as_object() {
        found.extend(of_members(root, schema, members, at));
    }
    found
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no such type: {other}"),
    }
}

/// What is wrong with the members of an object, if the schema says anything of them.
fn of_members(
    root: &Value,
    schema: &Value,
    members: &serde_json::Map<String, Value>,
    at: &str,
) -> Vec<String> {
    let (known, others) = (schema.get("properties"), schema.get("additionalProperties"));
    if known.is_none() && others.is_none() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (name, member) in members {
        let at = format!("{at}.{name}");
        match (known.and_then(|known| known.get(name)), others) {
            (Some(rule), _) => found.extend(mistakes(root, rule, member, &at)),
            (None, Some(rule)) if rule.is_object() => {
                found.extend(mistakes(root, rule, member, &at));
            }
            (None, Some(_)) => {}
            (None, None) => found.push(format!("{at} is not described")),
        }
    }
    let required = schema["required"].as_array().into_iter().flatten();
    let missing = required.filter(|name| !members.contains_key(name.as_str().expect("a name")));
    found.extend(missing.map(|name| format!("{at} has no {name}")));
    found
}

#[test]
fn the_judge_sees_what_is_wrong() {
    let schema = serde_json::json!({
        "type": "object",
        "properties": { "n": { "type": ["integer", "null"], "minimum": 1 }, "s": { "enum": ["a"] } },
        "required": ["n"],
    });
    let wrong = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        mistakes(&schema, &schema, &value, "").len()
    };
    for (text, mistakes) in [
        (r#"{"n":1}"#, 0),
        (r#"{"n":null,"s":"a"}"#, 0),
        (r#"{"n":0}"#, 1),
        (r#"{"n":"1","s":"b"}"#, 2),
        (r#"{"s":"a"}"#, 1),
        (r#"{"n":1,"new":1}"#, 1),
        ("[]", 1),
    ] {
        assert_eq!(wrong(text), mistakes, "{text}");
    }
}
