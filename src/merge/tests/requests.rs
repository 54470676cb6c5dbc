use super::*;
use std::collections::BTreeSet;

/// Requests, in every documented spelling, that are merged with `with`, and what leaves then.
#[test]
fn two_requests_become_one() {
    let table = [
        (
            "DELETE /users?userIds.0=u1&userIds.1=U1",
            "",
            "DELETE /users?userIds=u2",
            "",
            "DELETE /users?userIds.0=u1&userIds.1=U1&userIds.2=u2",
        ),
        (
            "DELETE /invites?emails%5B0%5D=A%40b.c",
            "",
            "DELETE /invites?emails=d%40e.f&emails=g@h.i",
            "",
            "DELETE /invites?emails.0=A%40b.c&emails.1=d%40e.f&emails.2=g%40h.i",
        ),
        (
            "DELETE /group/g%20h/users?x[y]=1&emails[0]=a%2Bb@c&b=%2f",
            "",
            "DELETE /group/g%20h/users?b=%2F&x%5By%5D=1&emails%5B0%5D=d@c",
            "",
            "DELETE /group/g%20h/users?b=%2F&x.y=1&emails.0=a%2Bb%40c&emails.1=d%40c",
        ),
        (
            "POST /invites",
            r#" {"invites": [{"permissions": [{"roleId": "r"}], "email": "a@b"}], "x": {"b": 1, "a": 2}}"#,
            "POST /invites?",
            r#"{"x":{"a":2,"b":1},"invites":[{"email":"\u0061c@b"},{"email":"d@b"}]}"#,
            r#"POST /invites {"invites":[{"email":"a@b","permissions":[{"roleId":"r"}]},{"email":"ac@b"},{"email":"d@b"}],"x":{"a":2,"b":1}}"#,
        ),
        (
            "POST /groups/g/users?a=1",
            r#"{"emails":["a@b"]}"#,
            "POST /groups/g/users?a=1",
            r#"{"emails":["c@b","D@b"]}"#,
            r#"POST /groups/g/users?a=1 {"emails":["a@b","c@b","D@b"]}"#,
        ),
        (
            "POST /users/u/permissions",
            r#"{"permissions":[{"roleId":"r","resources":[{"id":"w","type":"WORKSPACE"}]}]}"#,
            "POST /users/u/permissions",
            r#"{"permissions":[{"roleId":"r","resources":[]}]}"#,
            r#"POST /users/u/permissions {"permissions":[{"resources":[{"id":"w","type":"WORKSPACE"}],"roleId":"r"},{"resources":[],"roleId":"r"}]}"#,
        ),
        (
            "POST /groups/g/permissions",
            r#"{"permissions":[{"roleId":"r"}]}"#,
            "POST /groups/g/permissions",
            r#"{"permissions":[{"roleId":"s"}]}"#,
            r#"POST /groups/g/permissions {"permissions":[{"roleId":"r"},{"roleId":"s"}]}"#,
        ),
    ];
    for (line, body, other, other_body, expected) in table {
        let (a, b) = (member(line, body), member(other, other_body));
        let chosen = choose((0, &a.parts), [(1, &b.parts)], Bounds::default(), |_, _| {
            true
        });
        assert_eq!(chosen, [0, 1], "{line}");
        let union = union(&a.request, &[&a.parts, &b.parts]).unwrap();
        assert_eq!(shown(&union), expected);
        assert_eq!(union.headers(), a.request.headers());
        assert_eq!(parts(&union).unwrap().len(), a.parts.len() + b.parts.len());
    }
}

#[test]
fn what_can_be_understood_in_two_ways_travels_alone() {
    let long = "x".repeat(300);
    let many: Vec<String> = (0..51).map(|n| format!("userIds={n}")).collect();
    let (long, many) = (
        format!("DELETE /users?userIds={long}"),
        format!("DELETE /users?{}", many.join("&")),
    );
    let large = format!(r#"{{"emails":["a"],"x":"{}"}}"#, "x".repeat(128 * 1024));
    for (line, body) in [
        // Not there, empty, twice, too long, too many, or in two spellings.
        ("DELETE /users", ""),
        ("DELETE /users?userIds=", ""),
        ("DELETE /users?userIds=a&userIds=a", ""),
        ("DELETE /invites?emails.0=a%40b&emails.1=A%40b", ""),
        ("DELETE /users?userIds=a&userIds.1=b", ""),
        ("DELETE /users?userIds.1=a", ""),
        ("DELETE /users?userIds=a&x=1&x=2", ""),
        (&long, ""),
        (&many, ""),
        // Read differently by different servers.
        ("DELETE /users?userIds=a%20", ""),
        ("DELETE /users?userIds=a+b", ""),
        ("DELETE /users?userIds=a,b", ""),
        ("DELETE /invites?emails=emails.0%3Da%40b", ""),
        ("DELETE /users?userIds=a%2Cb", ""),
        ("DELETE /users?userIds=a;b", ""),
        ("DELETE /users?userIds=%ff", ""),
        ("DELETE /users?userIds=a", r#"{"userIds":["b"]}"#),
        // Not JSON, or JSON of another form.
        ("POST /invites", ""),
        ("POST /invites", "{"),
        ("POST /invites", r#"{"invites":[]}"#),
        ("POST /invites", r#"{"invites":{"email":"a"}}"#),
        ("POST /invites", r#"{"invites":["a@b"]}"#),
        ("POST /invites", r#"{"invites":[{"mail":"a@b"}]}"#),
        ("POST /invites", r#"{"invites":[{"email":["a@b"]}]}"#),
        (
            "POST /invites",
            r#"{"invites":[{"email":"a@b"},{"email":"A@b"}]}"#,
        ),
        (
            "POST /invites",
            r#"{"invites":[{"email":"a@b","email":"c@d"}]}"#,
        ),
        (
            "POST /invites",
            r#"{"invites":[{"email":"a@b"}],"invites":[]}"#,
        ),
        ("POST /invites", r#"{"invites":[{"email":"a@b","x":1.5}]}"#),
        ("POST /groups/g/users", r#"{"emails":["a@b",1]}"#),
        ("POST /groups/g/users", r#"{"emails":[" a@b"]}"#),
        ("POST /groups/g/users", r#"["a@b"]"#),
        ("POST /groups/g/users", &large),
        ("POST /groups/g/users?x=1&x=2", r#"{"emails":["a@b"]}"#),
        // Other operations.
        ("PUT /group/g/users", r#"{"emails":["a@b"]}"#),
        ("POST /groups", r#"{"name":"a"}"#),
        ("DELETE /users/?userIds=a", ""),
    ] {
        assert!(parts(&request(line, body)).is_none(), "{line} {body}");
    }
    let off = request(
        "POST /users/u/permissions",
        r#"{"permissions":[{"roleId":"r"}]}"#,
    );
    let found = TABLE.find(off.method(), off.uri().path());
    assert!(parts(&off).is_some() && Parts::of(&found.operation, &off).is_none());
}

#[test]
fn fields_that_matter_keep_requests_apart() {
    let base = || request("POST /groups/g/users", r#"{"emails":["a@b"]}"#);
    let of = |name: &'static str, value: &str| {
        let mut request = base();
        request.headers_mut().insert(name, value.parse().unwrap());
        parts(&request)
    };
    let (first, default) = (parts(&base()).unwrap(), Bounds::default());
    let joins = |other: &Parts| {
        let mut other = other.clone();
        other.elements[0].name = "other".into();
        choose((0, &first), [(1, &other)], default, |_, _| true) == [0, 1]
    };
    for (name, value, expected) in [
        ("user-agent", "x", Some(true)),
        ("x-request-id", "x", Some(true)),
        ("traceparent", "x", Some(true)),
        ("accept", "application/vnd.segment.v1+json", Some(false)),
        ("authorization", "Bearer U", Some(false)),
        ("cookie", "x", Some(false)),
        ("x-unknown", "x", Some(false)),
        (
            "content-type",
            "application/vnd.segment.v1+json",
            Some(false),
        ),
        (
            "content-type",
            "application/json; charset=utf-8",
            Some(false),
        ),
        ("content-type", "application/json; charset=utf-16", None),
        ("content-type", "text/plain", None),
        ("content-encoding", "gzip", None),
        ("content-digest", "x", None),
        ("if-match", "x", None),
        ("idempotency-key", "x", None),
    ] {
        let found = of(name, value).as_ref().map(joins);
        assert_eq!(found, expected, "{name}: {value}");
    }
}

#[test]
fn only_what_is_equal_disjoint_and_next_in_its_lanes_joins() {
    let of = |line: &str| member(line, "").parts;
    let first = of("DELETE /invites?emails=a%40b");
    let waiting = [
        "DELETE /invites?emails=A%40B&emails=x",
        "DELETE /invites?emails=c&x=1",
        "DELETE /group/g/users?emails=c",
        "DELETE /invites?emails=c&emails=d",
        "DELETE /invites?emails=d&emails=e",
        "DELETE /invites?emails=f",
        "DELETE /invites?emails=x",
    ]
    .map(of);
    let waiting: Vec<_> = (1..).zip(&waiting).collect();
    let choose = |bounds, follows: &dyn Fn(u32, &BTreeSet<u32>) -> bool| {
        choose((0, &first), waiting.clone(), bounds, follows)
    };
    let all = Bounds::default();
    assert_eq!(choose(all, &|_, _| true), [0, 4, 6, 7]);
    // The last shares an element with the first of those that wait, and the sixth follows it only.
    assert_eq!(choose(all, &|turn, _| turn != 7), [0, 4, 6]);
    assert_eq!(
        choose(all, &|turn, among| turn != 6 || among.contains(&7)),
        [0, 4, 7]
    );
    // The room is measured at the most that an index takes.
    let target = "/invites?emails.0=a%40b&emails.1=f".len() + 2 * 2 + 1;
    assert_eq!(choose(Bounds { target, ..all }, &|_, _| true), [0, 6]);
    let target = target - 1;
    assert_eq!(choose(Bounds { target, ..all }, &|_, _| true), [0]);
}

#[test]
fn a_dispatch_has_so_many_elements_and_bytes_at_most() {
    let emails = |from: usize, to: usize| {
        let emails: Vec<String> = (from..to).map(|n| format!(r#""{n:03}""#)).collect();
        let body = format!(r#"{{"emails":[{}]}}"#, emails.join(","));
        member("POST /groups/g/users", &body)
    };
    let members = [
        emails(0, 20),
        emails(20, 45),
        emails(45, 51),
        emails(51, 56),
    ];
    let bounds = |body| Bounds {
        body,
        ..Bounds::default()
    };
    let chosen = |bounds| {
        let waiting = (1..).zip(members[1..].iter().map(|member| &member.parts));
        choose((0, &members[0].parts), waiting, bounds, |_, _| true)
    };
    assert_eq!(chosen(Bounds::default()), [0, 1, 3]);
    assert_eq!(
        chosen(bounds(r#"{"emails":[]}"#.len() + 20 * 6 + 5 * 6 + 8)),
        [0, 3]
    );
    assert_eq!(chosen(bounds(10)), [0], "the first goes whatever its size");
    let parts = [0, 1, 3].map(|at: usize| &members[at].parts);
    let body = union(&members[0].request, &parts).unwrap().into_body();
    assert!(
        chosen(bounds(body.len() + 8)) == [0, 1, 3] && chosen(bounds(body.len() - 9)) != [0, 1, 3]
    );
}

#[test]
fn of_nobody_there_is_no_union() {
    assert!(union(&request("DELETE /users", ""), &[]).is_none());
}

#[test]
fn parts_show_nothing() {
    let parts = member("DELETE /users?userIds=secret", "").parts;
    assert_eq!(format!("{parts:?}"), "Parts(1 elements)");
    assert!(!parts.is_empty());
}
