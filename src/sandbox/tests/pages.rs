//! The spellings of a page: what the gateway takes for one request is one page of the sandbox,
//! which reads queries by rules of its own.

use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::route::query::canonical;
use crate::sandbox::request::{Page, Query};

/// The members of a page as they are written.
#[derive(Clone, Debug, PartialEq)]
struct Written {
    cursor: Option<String>,
    count: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Dotted,
    Bracketed,
    /// One JSON object without blanks.
    Json,
    /// As Python's `json.dumps` and `quote` write it.
    Python,
}

fn written() -> impl Strategy<Value = Written> {
    let cursor = prop::option::of(prop::sample::select(vec![
        "MA==", "Mg==", "MTA=", "x\"", "",
    ]));
    let count = prop::option::of(0..4_u16);
    (cursor, count).prop_map(|(cursor, count)| Written {
        cursor: cursor.map(str::to_owned),
        count,
    })
}

fn style() -> impl Strategy<Value = Style> {
    prop::sample::select(vec![
        Style::Dotted,
        Style::Bracketed,
        Style::Json,
        Style::Python,
    ])
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn spelled(page: &Written, style: Style) -> String {
    let cursor = page.cursor.as_deref().map(|it| ("cursor", Value::from(it)));
    let count = page.count.map(|it| ("count", Value::from(it)));
    let members: Vec<(&str, Value)> = cursor.into_iter().chain(count).collect();
    let pairs = |name: &dyn Fn(&str) -> String| {
        let pair = |(member, value): &(&str, Value)| {
            let text = value.as_str().map_or(value.to_string(), str::to_owned);
            format!("{}={}", name(member), encoded(&text))
        };
        members.iter().map(pair).collect::<Vec<_>>().join("&")
    };
    if members.is_empty() {
        return String::new();
    }
    let object = || {
        let members = members.iter().cloned();
        let object: Map<String, Value> =
            members.map(|(name, value)| (name.into(), value)).collect();
        Value::Object(object).to_string()
    };
    match style {
        Style::Dotted => pairs(&|member| format!("pagination.{member}")),
        Style::Bracketed => pairs(&|member| format!("pagination%5B{member}%5D")),
        Style::Json => format!("pagination={}", encoded(&object())),
        Style::Python => {
            let spaced = object().replace("\":", "\": ").replace(",\"", ", \"");
            format!("pagination={}", encoded(&spaced))
        }
    }
}

fn key(query: &str) -> Option<String> {
    canonical(Some(query), &[]).ok()
}

fn page(query: &str) -> Result<Page, u16> {
    Page::read(&Query::parse(query), b"").map_err(|error| error.status)
}

proptest! {
    #[test]
    fn two_spellings_have_one_key_exactly_if_they_name_one_page(
        a in written(), b in written(), style_a in style(), style_b in style()
    ) {
        let (a_query, b_query) = (spelled(&a, style_a), spelled(&b, style_b));
        prop_assert_eq!(key(&a_query) == key(&b_query), a == b, "{} {}", a_query, b_query);
        if a == b {
            prop_assert_eq!(page(&a_query), page(&b_query), "{} {}", a_query, b_query);
        }
    }

    /// Whatever is in a query, one key means one page.
    #[test]
    fn what_has_one_key_is_one_page(
        a in prop::collection::vec(PAIRS, 1..3), b in prop::collection::vec(PAIRS, 1..3)
    ) {
        let (a, b) = (a.join("&"), b.join("&"));
        if let Some(key_a) = key(&a) && key(&b) == Some(key_a) {
            prop_assert_eq!(page(&a), page(&b), "{} {}", a, b);
        }
    }
}

/// Pairs about a page, most of them odd.
const PAIRS: &str = "pagination(\\.count|\\[count\\]|\\.cursor|)=\
    (1|2|Mg==|\\{\"(count|cursor|size)\":(1|2|\"1\"|\"Mg==\"|null|\\+1|1\\.0)\
    (,\"(count|cursor)\":(2|\"Mg==\"))?\\}|\\[\"Mg==\",2\\])";
