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
        Outcome::Answer(answer) => {
            let body = std::str::from_utf8(answer.body()).unwrap();
            format!("{} {body}", answer.status().as_u16())
        }
        Outcome::Unknown(None) => "unknown".to_owned(),
        Outcome::Unknown(Some(answer)) => format!("unknown {}", answer.status().as_u16()),
        Outcome::Unattributed => "unattributed".to_owned(),
        Outcome::Refused => "refused".to_owned(),
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
fn an_answer_that_is_reduced_has_the_fields_of_the_whole() {
    let members = invites(&["a", "b"]);
    let mut whole = answer(201, r#"{"data":{"emails":["a","b"]}}"#);
    for (name, value) in [
        ("x-ratelimit-remaining", "7"),
        ("content-length", "9"),
        ("etag", "x"),
    ] {
        whole.headers_mut().insert(name, value.parse().unwrap());
    }
    let parts: Vec<_> = members.iter().map(|member| &member.parts).collect();
    let Some(Outcome::Answer(own)) = outcomes(Some(&whole), &parts).into_iter().next() else {
        panic!("no answer")
    };
    let mut fields: Vec<_> = own.headers().keys().map(|name| name.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["content-type", "x-ratelimit-remaining"]);
}
