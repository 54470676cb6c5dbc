use super::super::pattern;
use super::*;
use crate::route::template::parse;
use proptest::prelude::*;
use serde_json::Value;

fn templates(texts: &[&str]) -> Vec<NameTemplate> {
    texts.iter().map(|text| parse(text).unwrap()).collect()
}

fn params(template: &str, path: &str) -> PathParams {
    let template = pattern::parse(template).unwrap();
    PathParams::capture(&template, pattern::split(path).unwrap().segments()).unwrap()
}

fn names(texts: &[&str], query: Option<&str>, body: &str) -> Result<Vec<String>, Unreadable> {
    let params = params("/users/{userId}", "/users/a%40B.c");
    expand(
        &templates(texts),
        &params,
        query,
        &JsonBody::new(body.as_bytes()),
    )
}

#[test]
fn templates_round_trip() {
    for text in [
        "users",
        "user:{path.userId}",
        "person:{query.emails}",
        "x:{body.a.b.c}",
        "a:b",
    ] {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn wrong_templates_are_refused() {
    for text in [
        "",
        "a b",
        "user:{path.userId",
        "user:{path.userId}x",
        "user:{userId}",
        "user:{path.}",
        "user:{path.a.b}",
        "user:{query.a.b}",
        "user:{head.a}",
        "user:{body.}",
        "user:{body.a..b}",
        "user:{path.a}{path.b}",
        "user{path.a}",
        "{path.a}",
        "user:}",
        "usér",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn placeholders_are_filled() {
    let body =
        r#"{"emails":["A@b.C","d"],"invites":[{"email":"X"},{"email":"y","permissions":[]}]}"#;
    for (texts, query, expected) in [
        (
            &["users", "user:{path.userId}"][..],
            None,
            &["users", "user:a@B.c"][..],
        ),
        (&["person:{path.userId}"], None, &["person:a@b.c"]),
        (
            &["person:{body.emails}"],
            None,
            &["person:a@b.c", "person:d"],
        ),
        (&["mail:{body.emails}"], None, &["mail:A@b.C", "mail:d"]),
        (
            &["person:{body.invites.email}"],
            None,
            &["person:x", "person:y"],
        ),
        (
            &["user:{query.ids}"],
            Some("ids.0=a&ids[1]=B"),
            &["user:a", "user:B"],
        ),
        (
            &["user:{query.ids}", "user:{path.userId}"],
            Some("ids=a&ids=a%40B.c&ids=a"),
            &["user:a", "user:a@B.c"],
        ),
        (
            &["person:{query.ids}"],
            Some("ids=A+B"),
            &["person:a+b", "person:a b"],
        ),
    ] {
        let expected = expected.iter().map(ToString::to_string).collect();
        let body = if query.is_some() { "" } else { body };
        assert_eq!(names(texts, query, body), Ok(expected), "{texts:?}");
    }
    assert_eq!(
        names(&["person:{body.emails}"], None, r#"{"emails":[]}"#),
        Ok(vec![])
    );
    assert_eq!(
        names(&["person:{body.emails}"], None, r#"[{"emails":"a"}]"#).unwrap(),
        ["person:a"]
    );
}

#[test]
fn what_cannot_be_read_gives_no_names() {
    for (text, query, body, expected) in [
        ("p:{body.emails}", None, "", Unreadable::NotJson),
        ("p:{body.emails}", None, "{", Unreadable::NotJson),
        ("p:{body.emails}", None, "\u{feff}{}", Unreadable::NotJson),
        ("p:{body.emails}", None, "{}", Unreadable::Missing),
        ("p:{body.emails}", None, "3", Unreadable::WrongType),
        (
            "p:{body.emails}",
            None,
            r#"{"emails":null}"#,
            Unreadable::WrongType,
        ),
        (
            "p:{body.emails}",
            None,
            r#"{"emails":{"a":"b"}}"#,
            Unreadable::WrongType,
        ),
        (
            "p:{body.emails}",
            None,
            r#"{"emails":["a",1]}"#,
            Unreadable::WrongType,
        ),
        (
            "p:{body.invites.email}",
            None,
            r#"{"invites":["a"]}"#,
            Unreadable::WrongType,
        ),
        (
            "p:{body.invites.email}",
            None,
            r#"{"invites":[{"email":"a"},{}]}"#,
            Unreadable::Missing,
        ),
        ("p:{query.ids}", None, "", Unreadable::Missing),
        ("p:{query.ids}", Some("id=1"), "", Unreadable::Missing),
        ("p:{query.ids}", Some("ids=1&x=%"), "", Unreadable::Query),
        ("p:{query.ids}", Some("ids=1;ids=2"), "", Unreadable::Query),
        ("p:{query.ids}", Some("ids=1"), "{}", Unreadable::Elsewhere),
        ("p:{query.ids}", Some("ids=1"), " ", Unreadable::Elsewhere),
        ("p:{path.other}", None, "", Unreadable::Missing),
    ] {
        assert_eq!(
            names(&[text, "users"], query, body),
            Err(expected),
            "{text} {query:?} {body}"
        );
    }
    let deep = "[".repeat(100_000);
    assert_eq!(
        names(&["p:{body.a}"], None, &deep),
        Err(Unreadable::NotJson)
    );
}

#[test]
fn names_are_bounded() {
    let body = |count: usize| {
        let emails: Vec<String> = (0..count).map(|n| format!("\"{n}\"")).collect();
        format!("{{\"emails\":[{}]}}", emails.join(","))
    };
    assert_eq!(
        names(&["p:{body.emails}"], None, &body(MAX_NAMES))
            .unwrap()
            .len(),
        MAX_NAMES
    );
    let more = names(&["p:{body.emails}"], None, &body(MAX_NAMES + 1));
    assert_eq!(more, Err(Unreadable::TooMany));
}

#[test]
fn names_are_short() {
    let longest = MAX_NAME_BYTES - "p:".len();
    for (length, readable) in [(longest, true), (longest + 1, false), (30_000, false)] {
        let value = "x".repeat(length);
        let path = format!("/users/{value}");
        let of_path = expand(
            &templates(&["p:{path.userId}"]),
            &params("/users/{userId}", &path),
            None,
            &JsonBody::new(b""),
        );
        let query = format!("ids=a&ids={value}");
        let of_query = names(&["p:{query.ids}"], Some(&query), "");
        let body = serde_json::json!({ "emails": [value, "a"] }).to_string();
        let of_body = names(&["p:{body.emails}"], None, &body);
        for found in [of_path, of_query, of_body] {
            match found {
                Ok(names) => assert!(readable && names.contains(&format!("p:{value}"))),
                Err(why) => assert!(!readable && why == Unreadable::TooLong),
            }
        }
    }
}

/// The plain reading of a body, parsed as a whole: the oracle.
fn plainly(template: &str, body: &[u8]) -> Result<Vec<String>, Unreadable> {
    fn follow(value: &Value, members: &[&str], found: &mut Vec<String>) -> Found {
        match (value, members) {
            (Value::Array(elements), _) => elements
                .iter()
                .try_for_each(|element| follow(element, members, found)),
            (Value::Object(object), [member, rest @ ..]) => {
                let value = object.get(*member).ok_or(Unreadable::Missing)?;
                follow(value, rest, found)
            }
            (Value::String(text), []) if text.len() + "p:".len() > MAX_NAME_BYTES => {
                Err(Unreadable::TooLong)
            }
            (Value::String(text), []) => {
                found.push(format!("p:{text}"));
                Ok(())
            }
            _ => Err(Unreadable::WrongType),
        }
    }
    let path = template.strip_prefix("p:{body.").unwrap();
    let members: Vec<&str> = path.strip_suffix('}').unwrap().split('.').collect();
    let value = serde_json::from_slice(body).map_err(|_| Unreadable::NotJson)?;
    let mut found = Vec::new();
    follow(&value, &members, &mut found)?;
    let mut seen = HashSet::new();
    found.retain(|name| seen.insert(name.clone()));
    if found.len() > MAX_NAMES {
        return Err(Unreadable::TooMany);
    }
    Ok(found)
}

fn streamed(template: &str, body: &[u8]) -> Result<Vec<String>, Unreadable> {
    expand(
        &templates(&[template]),
        &PathParams::default(),
        None,
        &JsonBody::new(body),
    )
}

/// JSON in which members come twice, as no parsed value can have them.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "null",
        "1.5e2",
        "{}",
        "[]",
        "\"\\u00e9\"",
        "\"v\"",
        "\"w\"",
        "\"x\"",
        "\"y\"",
        "\"z\"",
    ]);
    leaf.prop_map(str::to_owned)
        .prop_recursive(4, 24, 4, |inner| {
            let name = prop::sample::select(vec!["a", "a", "b", "\\u0061"]);
            let member =
                (name, inner.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
                prop::collection::vec(member, 0..4)
                    .prop_map(|all| format!("{{{}}}", all.join(","))),
            ]
        })
}

#[test]
fn a_body_is_read_as_if_it_were_parsed_as_a_whole() {
    let many = |from: usize, to: usize| {
        let emails: Vec<String> = (from..to).map(|n| format!("\"{n}\"")).collect();
        emails.join(",")
    };
    let nested = |depth: usize| format!("{}\"x\"{}", "[".repeat(depth), "]".repeat(depth));
    let long = "x".repeat(MAX_NAME_BYTES);
    for body in [
        // Of a member given twice the last counts, and the first leaves no trace.
        r#"{"a":["x","y"],"a":["y","z"]}"#.to_owned(),
        r#"{"a":3,"a":"x"}"#.to_owned(),
        r#"{"a":"x","a":3}"#.to_owned(),
        r#"[{"a":"x"},{"a":["x","y"],"a":"z"},{"a":"y"}]"#.to_owned(),
        format!(r#"{{"a":[{}],"a":["x"]}}"#, many(0, 2_000)),
        format!(r#"{{"a":"x","a":[{}]}}"#, many(0, 2_000)),
        format!(r#"[{{"a":[{}]}},{{"a":"y","a":"z"}}]"#, many(0, MAX_NAMES)),
        format!(r#"[{{"a":[{}]}},{{"a":"1","a":"2"}}]"#, many(0, MAX_NAMES)),
        format!(r#"{{"a":["x",{}"x"]}}"#, "\"x\",".repeat(5_000)),
        format!(r#"{{"a":[{},3]}}"#, many(0, 2_000)),
        format!(r#"{{"a":"{long}"}}"#),
        format!(r#"{{"a":["{long}",3]}}"#),
        // What nobody wants has to be JSON all the same, and as shallow.
        format!(r#"{{"a":"x","b":{}}}"#, nested(100)),
        format!(r#"{{"a":"x","b":{}}}"#, nested(200)),
        format!(r#"{{"a":{}}}"#, nested(100)),
        format!(r#"{{"a":{}}}"#, nested(200)),
        r#"{"a":"x","b":1e999}"#.to_owned(),
        r#"{"a":"x","b":"\ud800"}"#.to_owned(),
        r#"{"a":"x","b":01}"#.to_owned(),
        r#"{"a":"x"} {}"#.to_owned(),
        r#"{"a":"x",}"#.to_owned(),
        r#" {"a" : "x"} "#.to_owned(),
    ] {
        for template in ["p:{body.a}", "p:{body.a.b}", "p:{body.b}"] {
            let body = body.as_bytes();
            assert_eq!(
                streamed(template, body),
                plainly(template, body),
                "{}",
                body.escape_ascii()
            );
        }
    }
    for body in [
        &b"{\"a\":\"x\",\"b\":\"\xff\"}"[..],
        b"{\"a\":\"x\",\"\xff\":1}",
    ] {
        assert_eq!(plainly("p:{body.a}", body), Err(Unreadable::NotJson));
        assert_eq!(streamed("p:{body.a}", body), Err(Unreadable::NotJson));
    }
}

#[test]
fn however_many_names_a_body_has_few_are_held() {
    let mut names = Names::default();
    let template = parse("p:{body.a}").unwrap();
    for n in 0..10_000 {
        names.add(&template, &n.to_string()).unwrap();
    }
    assert_eq!(names.list.len(), MAX_NAMES + 1);
    assert_eq!(names.seen.len(), MAX_NAMES + 1);
}

#[test]
fn a_body_is_not_shown() {
    assert_eq!(
        format!("{:?}", JsonBody::new(b"secret")),
        "JsonBody(6 bytes)"
    );
}

proptest! {
    #[test]
    fn any_document_is_read_as_if_it_were_parsed_as_a_whole(
        body in document(),
        cut in 0usize..200,
        template in prop::sample::select(vec!["p:{body.a}", "p:{body.a.b}", "p:{body.b.a}"]),
    ) {
        let whole = body.as_bytes();
        prop_assert_eq!(streamed(template, whole), plainly(template, whole));
        let part = &whole[..cut.min(whole.len())];
        prop_assert_eq!(streamed(template, part), plainly(template, part));
    }

    #[test]
    fn different_values_have_different_names(left in "\\PC{0,8}", right in "\\PC{0,8}") {
        prop_assume!(left != right);
        let template = templates(&["user:{body.id}"]);
        let name = |value: &str| {
            let body = serde_json::json!({ "id": value }).to_string();
            expand(&template, &PathParams::default(), None, &JsonBody::new(body.as_bytes())).unwrap()
        };
        prop_assert_ne!(name(&left), name(&right));
    }

    #[test]
    fn no_request_panics(text in "\\PC{0,20}", query in "\\PC{0,20}", body in "\\PC{0,20}") {
        if let Ok(template) = parse(&text) {
            let body = JsonBody::new(body.as_bytes());
            let _ = expand(&[template], &PathParams::default(), Some(&query), &body);
        }
    }
}

#[test]
fn a_person_is_known_in_every_spelling_of_the_address() {
    for address in [
        "jos\u{e9}@example.com",
        "JOS\u{c9}@Example.com",
        "jose\u{301}@example.com",
        "JOSE\u{301}@EXAMPLE.COM",
        " jos\u{e9}@example.com\t",
        "\u{a0}jos\u{e9}@example.com\r\n",
    ] {
        assert_eq!(person(address), "jos\u{e9}@example.com", "{address:?}");
    }
    assert_ne!(person("jose@example.com"), person("jos\u{e9}@example.com"));
}
