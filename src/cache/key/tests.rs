use super::*;
use http::HeaderValue;
use http::header::{ACCEPT, ORIGIN};
use proptest::prelude::*;

/// The parts as a reader would compare them: the oracle of equality.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    credential: CredentialHash,
    operation: u32,
    path: String,
    query: String,
    accept: Option<String>,
    origin: Option<String>,
    /// With its type and its encoding.
    body: Option<(Vec<u8>, Option<String>, Option<String>)>,
}

fn key(parts: &Owned) -> CacheKey {
    let mut headers = HeaderMap::new();
    let mut set = |name, value: &Option<String>| {
        if let Some(value) = value {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
    };
    set(ACCEPT, &parts.accept);
    set(ORIGIN, &parts.origin);
    if let Some((_, content_type, content_encoding)) = &parts.body {
        set(CONTENT_TYPE, content_type);
        set(CONTENT_ENCODING, content_encoding);
    }
    CacheKey::new(&KeyParts {
        credential: &parts.credential,
        operation: parts.operation,
        path: &parts.path,
        query: &parts.query,
        accept: Lines::of(&headers, ACCEPT),
        origin: Lines::of(&headers, ORIGIN),
        content: parts
            .body
            .as_ref()
            .and_then(|(body, ..)| Content::of(body, &headers)),
    })
}

/// Few letters, so that parts are often equal and often shifted against each other.
fn parts() -> impl Strategy<Value = Owned> {
    let text = "[a,]{0,3}";
    let body = prop::collection::vec(0u8..2, 1..3);
    (
        prop::array::uniform16(0u8..2).prop_map(|mut c| {
            c[1..15].fill(0);
            c
        }),
        0u32..2,
        text,
        text,
        prop::option::of(text),
        prop::option::of(text),
        prop::option::of((body, prop::option::of(text), prop::option::of(text))),
    )
        .prop_map(
            |(credential, operation, path, query, accept, origin, body)| Owned {
                credential,
                operation,
                path,
                query,
                accept,
                origin,
                body,
            },
        )
}

proptest! {
    #[test]
    fn keys_are_equal_exactly_when_all_parts_are(a in parts(), b in parts()) {
        prop_assert_eq!(key(&a) == key(&b), a == b);
    }

    #[test]
    fn one_changed_part_changes_the_key(a in parts(), b in parts(), which in 0usize..7) {
        let mut c = a.clone();
        match which {
            0 => c.credential = b.credential,
            1 => c.operation = b.operation,
            2 => c.path = b.path,
            3 => c.query = b.query,
            4 => c.accept = b.accept,
            5 => c.origin = b.origin,
            _ => c.body = b.body,
        }
        prop_assert_eq!(key(&a) == key(&c), a == c);
    }

    #[test]
    fn variants_are_equal_exactly_when_key_fields_and_selection_are(
        a in parts(), b in parts(),
        fields in prop::array::uniform2(prop::collection::vec("[ab]{1,2}", 0..3)),
        selections in prop::array::uniform2(0u8..2),
    ) {
        let names = |fields: &[String]| -> Vec<HeaderName> {
            let names = fields.iter().map(|name| name.parse().unwrap());
            names.collect()
        };
        let of = |parts: &Owned, which: usize| {
            key(parts).variant(&names(&fields[which]), &[selections[which]; 32])
        };
        let same = a == b && fields[0] == fields[1] && selections[0] == selections[1];
        prop_assert_eq!(of(&a, 0) == of(&b, 1), same);
        prop_assert!(of(&a, 0) != key(&b), "a variant is no plain key");
        prop_assert_eq!(of(&a, 0).credential(), a.credential);
        prop_assert_eq!(of(&a, 0).operation(), a.operation);
    }

    #[test]
    fn a_key_tells_its_credential_and_operation(a in parts()) {
        prop_assert_eq!(key(&a).credential(), a.credential);
        prop_assert_eq!(key(&a).operation(), a.operation);
    }
}

#[test]
fn neighbouring_parts_do_not_run_into_each_other() {
    let base = Owned {
        credential: [1; 16],
        operation: 3,
        path: "/users".into(),
        query: "a=1".into(),
        accept: None,
        origin: None,
        body: None,
    };
    let shifted = Owned {
        path: "/usersa".into(),
        query: "=1".into(),
        ..base.clone()
    };
    let empty_accept = Owned {
        accept: Some(String::new()),
        ..base.clone()
    };
    let body = Owned {
        body: Some((b"{}".to_vec(), None, None)),
        ..base.clone()
    };
    let with_type = Owned {
        body: Some((b"{}".to_vec(), Some("gzip".into()), None)),
        ..base.clone()
    };
    let encoded = Owned {
        body: Some((b"{}".to_vec(), None, Some("gzip".into()))),
        ..base.clone()
    };
    assert_ne!(key(&body), key(&encoded));
    assert_ne!(key(&with_type), key(&encoded));
    for other in [shifted, empty_accept, body] {
        assert_ne!(key(&base), key(&other), "{other:?}");
    }
}

#[test]
fn header_lines_are_joined_and_an_empty_body_is_none() {
    let build = |lines: &[&str], content_type: &str| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, HeaderValue::from_str(line).unwrap());
        }
        headers.append(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        let parts = KeyParts {
            credential: &[0; 16],
            operation: 0,
            path: "/",
            query: "",
            accept: Lines::of(&headers, ACCEPT),
            origin: Lines::of(&headers, ORIGIN),
            content: Content::of(b"", &headers),
        };
        let key = CacheKey::new(&parts);
        assert_eq!(key.parts.len(), key.len_bytes());
        key
    };
    assert_eq!(build(&["a", "b"], "x"), build(&["a, b"], "y"));
    assert_ne!(build(&["a", "b"], "x"), build(&["b", "a"], "x"));
    let known = |accept: Option<&'static str>| {
        let accept = accept.map(HeaderValue::from_static);
        CacheKey::new(&KeyParts {
            credential: &[0; 16],
            operation: 0,
            path: "/",
            query: "",
            accept: Lines::Only(accept.as_ref()),
            origin: Lines::Only(None),
            content: None,
        })
    };
    assert_eq!(known(Some("a, b")), build(&["a", "b"], "x"));
    assert_eq!(known(None), build(&[], "x"));
}

#[test]
fn debug_output_shows_no_part() {
    let key = key(&Owned {
        credential: *b"secretsecretsecr",
        operation: 0,
        path: "/users/jane".into(),
        query: String::new(),
        accept: None,
        origin: None,
        body: None,
    });
    assert!(format!("{key:?}").starts_with("CacheKey("));
    assert!(!format!("{key:?}").contains("jane"));
}
