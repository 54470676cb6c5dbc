use super::*;
use crate::route::pattern::is_unreserved;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn canon(query: &str) -> Result<String, Odd> {
    canonical(Some(query), &["emails".into(), "userIds".into()])
}

#[test]
fn the_documented_spellings_are_one() {
    for (group, expected) in [
        (
            &[
                "pagination.count=2&pagination.cursor=Mw%3D%3D",
                "pagination%5Bcount%5D=2&pagination%5Bcursor%5D=Mw%3D%3D",
                "pagination%5bcount%5d=2&pagination%5bcursor%5d=Mw%3d%3d",
                "pagination[count]=2&pagination[cursor]=Mw==",
                "pagination[cursor]=Mw==&pagination[count]=2",
                "pagination.cursor=Mw==&pagination.count=%32",
                // As Segment's Python SDK writes it.
                "pagination=%7B%22cursor%22%3A%20%22Mw%3D%3D%22%2C%20%22count%22%3A%202%7D",
                "%70agination={\"count\":2,\"cursor\":\"\\u004dw==\"}",
            ][..],
            "pagination.count=2&pagination.cursor=Mw%3D%3D",
        ),
        (
            &[
                "emails.0=a%40b.c&emails.1=d@e.f",
                "emails%5B0%5D=a%40b.c&emails%5B1%5D=d%40e.f",
                "emails[0]=a@b.c&emails[1]=d@e.f",
                "emails=a%40b.c&emails=d%40e%2Ef",
            ],
            "emails.0=a%40b.c&emails.1=d%40e.f",
        ),
        (&["emails=a", "emails.0=a", "emails[0]=a"], "emails.0=a"),
        (&["a[b][c]=1", "a.b.c=1"], "a.b.c=1"),
        (
            &[
                "pagination={\"count\":2}&x[y]=1",
                "x.y=1&pagination.count=2",
            ],
            "pagination.count=2&x.y=1",
        ),
        (
            &["pagination={\"cursor\":\"\"}", "pagination[cursor]="],
            "pagination.cursor=",
        ),
        (&["emails=a&x.y=1", "x.y=1&emails.0=a"], "emails.0=a&x.y=1"),
    ] {
        for query in group {
            assert_eq!(canon(query).as_deref(), Ok(expected), "{query}");
        }
    }
    assert_eq!(canonical(None, &[]).as_deref(), Ok(""));
    assert_eq!(canon("").as_deref(), Ok(""));
}

#[test]
fn different_meanings_stay_different() {
    let queries = [
        "",
        "a=",
        "a=1",
        "a=+",
        "a=%20",
        "a=%2B",
        "a=%26b=1",
        "a=1&b=1",
        "a.b=1",
        "emails=a",
        "emails=a&emails=b",
        "emails=b&emails=a",
        "emails=a%26emails.1=b",
        "userIds=a",
        "emails=",
        "emails.0=a&emails.1=b&emails.2=b",
        "a=1%26b%3D1",
        "A=1",
        "a=%5B",
        "a=%5D",
        "a+b=1",
        "a%20b=1",
        "a%2Bb=1",
        "a.0=1",
        // Only what is clearly a page is one.
        "pagination.count=2",
        "pagination=2",
        "pagination={\"count\":\"2\"}",
        "pagination={\"count\":2,\"count\":2}",
        "pagination={\"count\":2,\"cursor\":null}",
        "pagination={\"count\":+2}",
        "pagination=[null,2]",
        "pagination={\"count\":2}x",
        "page={\"count\":2}",
        "pagination.page={\"count\":2}",
        "pagination={\"cursor\":\"2\"}",
        "pagination={}",
    ];
    let mut seen = BTreeMap::new();
    for query in queries {
        let key = canon(query).unwrap();
        if let Some(other) = seen.insert(key.clone(), query) {
            panic!("{query} and {other} are both {key}");
        }
    }
}

#[test]
fn what_is_unclear_is_odd() {
    for (query, odd) in [
        ("a=%", Odd::Encoding),
        ("a=%4", Odd::Encoding),
        ("a=%zz", Odd::Encoding),
        ("a=%ff", Odd::Encoding),
        ("a=%C3", Odd::Encoding),
        ("%ff=a", Odd::Encoding),
        ("a", Odd::Pair),
        ("=a", Odd::Pair),
        ("a=1&", Odd::Pair),
        ("&a=1", Odd::Pair),
        ("a=1&&b=1", Odd::Pair),
        ("a=1;b=2", Odd::Pair),
        ("a..b=1", Odd::Name),
        (".a=1", Odd::Name),
        ("a.=1", Odd::Name),
        ("a[]=1", Odd::Name),
        ("[a]=1", Odd::Name),
        ("a[b=1", Odd::Name),
        ("a]=1", Odd::Name),
        ("a][b]=1", Odd::Name),
        ("a[b]c=1", Odd::Name),
        ("a[[b]]=1", Odd::Name),
        ("a[b]]=1", Odd::Name),
        ("a[b].c=1", Odd::Name),
        ("a.b[c]=1", Odd::Name),
        ("a[b.c]=1", Odd::Name),
        ("emails[]=1", Odd::Name),
        ("emails.x=1", Odd::Name),
        ("emails.0.x=1", Odd::Name),
        ("emails.+0=1", Odd::Name),
        ("a=1&a=1", Odd::Repeated),
        ("a.b=1&c=2&a.b=3", Odd::Repeated),
        ("emails.1=a", Odd::Gap),
        ("emails.00=a", Odd::Gap),
        ("emails.0=a&emails.2=b", Odd::Gap),
        ("emails.0=a&emails.0=b", Odd::Gap),
        ("emails.1=a&emails.0=b", Odd::Gap),
        ("emails.0=a&emails.99999999999999999999=b", Odd::Gap),
        ("emails.0=a&emails=b", Odd::Mixed),
        ("emails=a&emails[1]=b", Odd::Mixed),
        ("emails.0=a&emails[1]=b", Odd::Mixed),
        ("a.b=1&a[c]=2", Odd::Mixed),
        ("pagination={\"count\":2}&pagination.cursor=x", Odd::Mixed),
        ("pagination[count]=2&pagination={\"count\":2}", Odd::Mixed),
        ("pagination={\"count\":2}&pagination=x", Odd::Mixed),
        (
            "pagination={\"count\":2}&pagination={\"cursor\":\"x\"}",
            Odd::Mixed,
        ),
    ] {
        assert_eq!(canon(query), Err(odd), "{query}");
    }
}

#[test]
fn values_of_a_list_are_found_in_any_spelling() {
    for (query, values) in [
        (None, &[][..]),
        (Some(""), &[]),
        (Some("emailsx=a&xemails=b&x.emails=c&x[emails]=d"), &[]),
        (
            Some("emails=a%40b.c&x=1&emails.1=d&emails[2]=e&emails%5B%5D=f"),
            &["a@b.c", "d", "e", "f"],
        ),
        (Some("%65mails=a"), &["a"]),
        (Some("emails=a+b"), &["a+b", "a b"]),
        (Some("emails=a%2Bb"), &["a+b"]),
        (Some("emails=a,b%2Cc"), &["a,b,c", "a", "b", "c"]),
        (
            Some("emails.0=a,b+c&emails.1=d"),
            &["a,b+c", "a", "b+c", "a,b c", "a", "b c", "d"],
        ),
        // A list within a value.
        (
            Some("emails=emails.0%3Da%2540b%26emails%5B1%5D%3Dc"),
            &["emails.0=a%40b&emails[1]=c", "a@b", "c"],
        ),
        (Some("emails=other.0%3Da"), &["other.0=a"]),
        (Some("emails"), &[""]),
        (Some("emails=%zz"), &["%zz"]),
    ] {
        assert_eq!(list_values(query, "emails"), values, "{query:?}");
    }
}

#[test]
fn clearness() {
    for (query, clear) in [
        (None, true),
        (Some("a=1&b"), true),
        (Some("a=1;b=2"), false),
        (Some("a=%"), false),
        (Some("%ff"), false),
        (Some("a=%C3&b=%A9"), false),
    ] {
        assert_eq!(is_clear(query), clear, "{query:?}");
    }
}

/// What a query means: nested scalars and lists.
type Meaning = (
    BTreeMap<Vec<String>, String>,
    BTreeMap<&'static str, Vec<String>>,
);

fn meaning() -> impl Strategy<Value = Meaning> {
    let text = "[a-c.&=+%é \\[\\];0]{0,3}";
    // A part is a plain word: what else a name may contain is in the tables above.
    let path = prop::collection::vec("[a-c]{1,2}", 1..3);
    let list = prop::collection::vec(text, 1..4);
    (
        prop::collection::btree_map(path, text, 0..4),
        prop::collection::btree_map(prop::sample::select(vec!["emails", "userIds"]), list, 0..3),
    )
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Dotted,
    Bracketed,
    Encoded,
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if is_unreserved(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02x}")
            }
        })
        .collect()
}

fn render((scalars, lists): &Meaning, style: Style, repeat: bool, reverse: bool) -> String {
    let nest = |parts: &[String]| {
        let mut name = parts[0].clone();
        for part in &parts[1..] {
            name += &match style {
                Style::Dotted => format!(".{part}"),
                Style::Bracketed => format!("[{part}]"),
                Style::Encoded => format!("%5B{part}%5D"),
            };
        }
        name
    };
    let mut groups: Vec<String> = scalars
        .iter()
        .map(|(name, value)| format!("{}={}", nest(name), encode(value)))
        .collect();
    for (name, values) in lists {
        let element = |(index, value): (usize, &String)| {
            let parts = [(*name).to_owned(), index.to_string()];
            let name = if repeat {
                (*name).to_owned()
            } else {
                nest(&parts)
            };
            format!("{name}={}", encode(value))
        };
        groups.push(
            values
                .iter()
                .enumerate()
                .map(element)
                .collect::<Vec<_>>()
                .join("&"),
        );
    }
    if reverse {
        groups.reverse();
    }
    groups.join("&")
}

fn style() -> impl Strategy<Value = Style> {
    prop::sample::select(vec![Style::Dotted, Style::Bracketed, Style::Encoded])
}

proptest! {
    #[test]
    fn one_meaning_has_one_key(
        meaning in meaning(), a in style(), b in style(), repeat: (bool, bool), reverse: (bool, bool)
    ) {
        let a = canon(&render(&meaning, a, repeat.0, reverse.0));
        let b = canon(&render(&meaning, b, repeat.1, reverse.1));
        prop_assert!(a.is_ok(), "{:?}", a);
        prop_assert_eq!(a, b);
    }

    #[test]
    fn two_meanings_have_two_keys(
        left in meaning(), right in meaning(), a in style(), b in style(), repeat: (bool, bool)
    ) {
        prop_assume!(left != right);
        let left = canon(&render(&left, a, repeat.0, false)).unwrap();
        let right = canon(&render(&right, b, repeat.1, false)).unwrap();
        prop_assert_ne!(left, right);
    }

    /// The canonical form is a spelling of the same query, so it is its own canonical form.
    #[test]
    fn canonical_is_a_fixed_point(query in "([ab.\\[\\]%25bBdDemails0-2]{0,6}=[a+%201&]{0,3}&?){0,3}") {
        if let Ok(key) = canon(&query) {
            prop_assert_eq!(canon(&key), Ok(key));
        }
    }

    #[test]
    fn no_query_panics(query in ".*", name in ".*") {
        let _ = canon(&query);
        list_values(Some(&query), &name);
        is_clear(Some(&query));
    }

    #[test]
    fn every_element_is_among_the_values(meaning in meaning(), style in style(), repeat: bool) {
        let query = render(&meaning, style, repeat, true);
        for (name, values) in &meaning.1 {
            prop_assert_eq!(&list_values(Some(&query), name), values);
        }
    }
}
