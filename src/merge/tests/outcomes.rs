//! Pure. What each member of a batch hears.

use super::*;

fn invites(lists: &[&str]) -> Vec<Member> {
    let list = |emails: &&str| {
        let emails: Vec<String> = emails
            .split(' ')
            .map(|email| format!(r#"{{"email":"{email}"}}"#))
            .collect();
        let body = format!(r#"{{"invites":[{}]}}"#, emails.join(","));
        member("POST /invites", &body)
    };
    lists.iter().map(list).collect()
}

fn deletions(ids: &[&str]) -> Vec<Member> {
    let one = |id: &&str| member(&format!("DELETE /users?userIds={id}"), "");
    ids.iter().map(one).collect()
}

/// `200 body`, `unknown` (with the status of the answer, if any), `unattributed`, `refused`.
fn heard(members: &[Member], answer: Option<&Response<Bytes>>) -> Vec<String> {
    let parts: Vec<_> = members.iter().map(|member| &member.parts).collect();
    let shown = |outcome| match outcome {
        MemberOutcome::Answer(answer) => {
            let body = std::str::from_utf8(answer.body()).unwrap();
            format!("{} {body}", answer.status().as_u16())
        }
        MemberOutcome::Unknown(None) => "unknown".to_owned(),
        MemberOutcome::Unknown(Some(answer)) => format!("unknown {}", answer.status().as_u16()),
        MemberOutcome::Unattributed => "unattributed".to_owned(),
        MemberOutcome::Refused => "refused".to_owned(),
    };
    outcomes(answer, &parts).into_iter().map(shown).collect()
}

#[test]
fn a_status_says_whom_it_is_about() {
    let members = deletions(&["a", "b"]);
    let of = |status| heard(&members, Some(&answer(status, "{}")));
    for status in [200, 202, 204, 303, 307, 401, 429] {
        assert_eq!(
            of(status),
            [format!("{status} {{}}"), format!("{status} {{}}")]
        );
    }
    for status in (400..500).filter(|status| ![401, 429].contains(status)) {
        assert_eq!(of(status), ["refused"; 2], "{status}");
    }
    for status in [500, 502, 503, 504, 599] {
        assert_eq!(
            of(status),
            [format!("unknown {status}"), format!("unknown {status}")]
        );
    }
    // It has a status for each element, in a form that is not known.
    assert_eq!(of(207), ["unattributed"; 2]);
    assert_eq!(heard(&members, None), ["unknown"; 2]);
}

#[test]
fn each_hears_of_its_own_invites() {
    let members = invites(&["A@x", "b@x c@x"]);
    let all = r#"201 {"data":{"emails":["a@x"],"x":1}}"#;
    for (body, expected) in [
        (
            r#"{"data":{"emails":["c@x","a@x","b@x"],"x":1}}"#,
            [all, r#"201 {"data":{"emails":["c@x","b@x"],"x":1}}"#],
        ),
        // The API leaves some out, as it would if they were asked for alone.
        (
            r#"{"data":{"emails":["a@x"],"x":1}}"#,
            [all, r#"201 {"data":{"emails":[],"x":1}}"#],
        ),
        // It names one that nobody has asked for; the first has all of its own.
        (
            r#"{"data":{"emails":["a@x","C@y"],"x":1}}"#,
            [all, "unattributed"],
        ),
        // Nothing is repeated.
        ("", ["201 ", "201 "]),
        (r#"{"data":{}}"#, [r#"201 {"data":{}}"#; 2]),
        // A list in another form, a text that names one, or nothing that can be read.
        (
            r#"{"data":{"emails":[{"email":"a@x"},{"email":"b@x"}]}}"#,
            ["unattributed"; 2],
        ),
        (
            r#"{"data":{"emails":["a@x","b@x","c@x"]},"note":"invited: (B@x)."}"#,
            [
                "unattributed",
                r#"201 {"data":{"emails":["b@x","c@x"]},"note":"invited: (B@x)."}"#,
            ],
        ),
        (r#"{"data":{"emails":"a@x, b@x"}}"#, ["unattributed"; 2]),
        // A name within a longer one that is another's is no name of its own.
        (
            r#"{"data":{"emails":["a@x","b@x","c@x"]},"note":"za@x"}"#,
            [
                r#"201 {"data":{"emails":["a@x"]},"note":"za@x"}"#,
                r#"201 {"data":{"emails":["b@x","c@x"]},"note":"za@x"}"#,
            ],
        ),
        ("a@x, b@x", ["unattributed"; 2]),
    ] {
        assert_eq!(
            heard(&members, Some(&answer(201, body))),
            expected,
            "{body}"
        );
    }
}

#[test]
fn no_other_answer_names_what_others_asked_for() {
    let members = deletions(&["u1", "u2"]);
    let one = r#"{"errors":[{"message":"cannot delete 'u2'"}]}"#;
    let of = |status| heard(&members, Some(&answer(status, one)));
    assert_eq!(of(200), ["unattributed".to_owned(), format!("200 {one}")]);
    assert_eq!(of(500), ["unknown", "unknown 500"]);
}

#[test]
fn an_element_is_found_in_any_spelling() {
    let members = invites(&["Ann@x.com", "jos\u{e9}+1@y.com"]);
    for (note, named) in [
        ("/invites?emails=ann@x.com", 0),
        ("/invites?emails=ANN%40X.com&more", 0),
        ("https://h/?next=%2Finvites%3Femails%3Dann%2540x.com", 0),
        ("to:ann@x.com.", 0),
        ("mailto:ann@x.com;x", 0),
        ("/invites?emails=jos%C3%A9%2B1%40y.com", 1),
        ("/invites?emails.0=JOSE%CC%81%2b1@y.com", 1),
        ("<jos\u{e9}+1@y.com>", 1),
    ] {
        for (body, status) in [
            (serde_json::json!({ "data": { "self": note } }), 201),
            (serde_json::json!({ "data": { note: 1 } }), 500),
        ] {
            let found = heard(&members, Some(&answer(status, &body.to_string())));
            for (at, found) in found.into_iter().enumerate() {
                let is_shown = !matches!(&*found, "unknown" | "unattributed");
                assert_eq!(is_shown, at == named, "{at} {note}: {found}");
            }
        }
    }
    for note in ["ann@x.comet", "hann@x.com", "ann%4x.com", "ann", "%", "%C3"] {
        let body = serde_json::json!({ "data": { "self": note } }).to_string();
        let expected = format!("201 {body}");
        assert_eq!(
            heard(&members, Some(&answer(201, &body))),
            [expected.clone(), expected]
        );
    }
}

#[test]
fn one_name_within_another_is_not_named() {
    let members = invites(&["a@x", "b+a@x"]);
    let body = r#"{"data":{"self":"b+a@x"}}"#;
    let whole = format!("201 {body}");
    assert_eq!(
        heard(&members, Some(&answer(201, body))),
        ["unattributed".to_owned(), whole]
    );
    let body = r#"{"data":{"self":"c@x+a@x"}}"#;
    let whole = format!("201 {body}");
    assert_eq!(
        heard(&members, Some(&answer(201, body))),
        [whole, "unattributed".to_owned()]
    );
}

#[test]
fn an_answer_that_is_no_json_names_nobody_else_either() {
    let members = deletions(&["u1", "u2"]);
    for (body, shown) in [
        ("", [true, true]),
        ("deleted", [true, true]),
        ("<p>deleted u2</p>", [false, true]),
        (r#"{"took":0.5,"ids":["u1"]}"#, [true, false]),
        (r#"{"took":0.5,"ids":["\u0075\u0031"]}"#, [false, false]),
    ] {
        for status in [200, 503] {
            let found = heard(&members, Some(&answer(status, body)));
            let is_shown = |found: &String| !matches!(&**found, "unknown" | "unattributed");
            let found: Vec<_> = found.iter().map(is_shown).collect();
            assert_eq!(found, shown, "{status} {body}");
        }
    }
    let mut coded = answer(200, "");
    *coded.body_mut() = Bytes::from_static(b"\x1f\x8b\x08");
    assert_eq!(heard(&members, Some(&coded)), ["unattributed"; 2]);
}

#[test]
fn a_member_is_shown_only_fields_that_name_no_element() {
    let fields = [
        "x-ratelimit-remaining",
        "ratelimit-policy",
        "cache-control",
        "date",
        "retry-after",
        "location",
        "content-location",
        "link",
        "set-cookie",
        "x-created",
        "content-length",
        "content-encoding",
        "etag",
    ];
    for (status, body) in [
        (201, r#"{"data":{"emails":["a","b"]}}"#),
        (201, r#"{"data":{}}"#),
        (303, ""),
        (503, "{}"),
    ] {
        let members = invites(&["a", "b"]);
        let mut whole = answer(status, body);
        for name in fields {
            whole.headers_mut().insert(name, "7".parse().unwrap());
        }
        let parts: Vec<_> = members.iter().map(|member| &member.parts).collect();
        let own = match outcomes(Some(&whole), &parts).into_iter().next() {
            Some(MemberOutcome::Answer(own) | MemberOutcome::Unknown(Some(own))) => own,
            other => panic!("{status} {other:?}"),
        };
        let mut shown: Vec<_> = own.headers().keys().map(|name| name.as_str()).collect();
        shown.sort_unstable();
        assert_eq!(
            shown,
            [
                "cache-control",
                "content-type",
                "date",
                "ratelimit-policy",
                "retry-after",
                "x-ratelimit-remaining"
            ],
            "{status}"
        );
    }
}
