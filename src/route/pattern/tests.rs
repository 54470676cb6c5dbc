use super::*;
use proptest::prelude::*;

#[test]
fn templates_are_segments() {
    assert_eq!(parse("/").unwrap(), vec![]);
    assert_eq!(
        parse("/users/{userId}/groups").unwrap(),
        vec![
            TemplateSegment::Literal("users".into()),
            TemplateSegment::Parameter("userId".into()),
            TemplateSegment::Literal("groups".into()),
        ]
    );
}

#[test]
fn wrong_templates_are_refused() {
    for template in [
        "",
        "users",
        "//",
        "/users/",
        "/users//x",
        "/.",
        "/a/../b",
        "/us%20ers",
        "/a b",
        "/{}",
        "/{a-b}",
        "/{1}",
        "/x{a}",
        "/{a}/{a}",
        "/a?b",
        "/a/{b",
        "/1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/h",
    ] {
        assert!(parse(template).is_err(), "{template}");
    }
}

#[test]
fn paths_with_one_reading_are_split() {
    for (path, segments) in [
        ("/", &[][..]),
        ("/users", &["users"]),
        ("/users/a%40b.c", &["users", "a%40b.c"]),
        (
            "/users/a%2fb".replace("%2f", "%3A").as_str(),
            &["users", "a%3Ab"],
        ),
        ("/users/...", &["users", "..."]),
        (
            "/users/a:b,c=d,e!$&'()*+@",
            &["users", "a:b,c=d,e!$&'()*+@"],
        ),
        ("/users/a%3Bb", &["users", "a%3Bb"]),
        ("/users/%C3%A9", &["users", "%C3%A9"]),
    ] {
        assert_eq!(split(path).unwrap().segments(), segments, "{path}");
    }
}

#[test]
fn paths_that_can_be_read_in_two_ways_are_not() {
    for path in [
        "",
        "*",
        "users",
        "//",
        "/users/",
        "//users",
        "/users//x",
        "/.",
        "/..",
        "/users/./x",
        "/users/../x",
        "/users/%2e",
        "/users/%2E%2e",
        "/users/a%2Fb",
        "/users/a%2fb",
        "/users/a\\b",
        "/users\\a",
        "/users/a%5Cb",
        "/users/a%5cb",
        "/users/a;b",
        "/users;v=1/a",
        "/users/..;/a",
        "/users/%61",
        "/users/%7e",
        "/users/%",
        "/users/%4",
        "/users/%zz",
        "/users/%+1",
        "/users/%4/1",
        "/1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/h",
    ] {
        assert!(split(path).is_none(), "{path}");
    }
}

#[test]
fn values_are_decoded_or_refused() {
    assert_eq!(decode("a+b").as_deref(), Some("a+b"));
    assert_eq!(decode("a%40b%C3%A9").as_deref(), Some("a@bé"));
    assert_eq!(decode("%00").as_deref(), Some("\0"));
    assert_eq!(decode("%ff"), None);
    assert_eq!(decode("%C3"), None);
}

proptest! {
    #[test]
    fn no_path_panics(path in ".*") {
        if let Some(split) = split(&path) {
            for segment in split.segments() {
                decode(segment);
            }
        }
    }

    /// Two paths that match have different raw forms only where a byte that needs no encoding is
    /// written both ways or hexadecimal digits differ in case: then they decode alike.
    #[test]
    fn what_is_split_joins_to_the_same_path(path in "(/[a-c%0-9A-F.]{0,4}){0,5}") {
        if let Some(split) = split(&path) {
            prop_assert_eq!(format!("/{}", split.segments().join("/")), path);
        }
    }

    #[test]
    fn an_encoded_value_is_captured_whole(value in "\\PC{1,20}") {
        prop_assume!(value != "." && value != "..");
        // Neither can travel in a segment: their encoded forms match nothing.
        prop_assume!(!value.contains(['/', '\\']));
        let raw: String = value.bytes().map(|b| {
            if is_unreserved(b) { char::from(b).to_string() } else { format!("%{b:02X}") }
        }).collect();
        let path = format!("/users/{raw}");
        let split = split(&path).unwrap();
        let template = parse("/users/{userId}").unwrap();
        let params = PathParams::capture(&template, split.segments()).unwrap();
        prop_assert_eq!(params.get("userId"), Some(value.as_str()));
        prop_assert_eq!(params.get("other"), None);
    }
}
