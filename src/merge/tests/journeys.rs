//! Pure. Single journeys, against answers written by hand.

use super::*;

/// What the API is asked, in order, and what it answers; `None` is no answer.
type Script<'s> = &'s [(&'s str, Option<(u16, &'s str)>)];

const SUCCESS: &str = r#"{"data":{"status":"SUCCESS"}}"#;
const ABSENT: &str = r#"{"errors":[{"type":"NotFoundError"}]}"#;
const WRONG: &str = r#"{"errors":[{"type":"ValidationError"}]}"#;

/// Drives a journey along a script and says what each member got: `200 body`, `unknown` (with the
/// status of the answer, if any), `again`.
fn travel(mut members: Vec<Member>, atomic: bool, script: Script<'_>) -> Vec<String> {
    let operation = operation(&members[0].request, atomic);
    for Member { request, parts } in &mut members {
        *parts = Parts::of(&operation, request).unwrap();
    }
    let mut outcomes = vec![String::new(); members.len()];
    let mut journey = Journey::new(&operation, members);
    for (expected, came) in script {
        let asked = match journey.step().expect("a step") {
            Step::Send(request, _) => request,
            Step::Read(request, operation) => {
                let found = TABLE.find(request.method(), request.uri().path());
                assert_eq!(found.operation.name, operation);
                request
            }
        };
        assert_eq!(shown(&asked), *expected);
        journey.came(match came {
            Some((status, body)) => Came::Answer(answer(*status, body)),
            None => Came::Unknown,
        });
        for (member, outcome) in journey.settled() {
            assert_eq!(outcomes[member], "", "told twice");
            outcomes[member] = match outcome {
                Outcome::Answer(answer) => {
                    let body = std::str::from_utf8(answer.body()).unwrap();
                    format!("{} {body}", answer.status().as_u16())
                }
                Outcome::Unknown(None) => "unknown".to_owned(),
                Outcome::Unknown(Some(answer)) => format!("unknown {}", answer.status().as_u16()),
                Outcome::Again => "again".to_owned(),
            };
        }
    }
    assert!(journey.step().is_none(), "{:?}", journey.step());
    outcomes
}

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

fn deletions(lists: &[&str]) -> Vec<Member> {
    let list = |ids: &&str| {
        let ids: Vec<String> = ids.split(' ').map(|id| format!("userIds={id}")).collect();
        member(&format!("DELETE /users?{}", ids.join("&")), "")
    };
    lists.iter().map(list).collect()
}

fn success() -> String {
    format!("200 {SUCCESS}")
}

fn absent() -> String {
    format!("404 {ABSENT}")
}

#[test]
fn a_status_is_the_same_to_all() {
    let sent = "DELETE /users?userIds.0=a&userIds.1=b";
    let script = [(sent, Some((200, SUCCESS)))];
    let heard = travel(deletions(&["a", "b"]), false, &script);
    assert_eq!(heard, [success(), success()]);
}

#[test]
fn a_single_write_is_not_touched() {
    let member = member("DELETE /users?userIds%5B0%5D=a", "");
    let script = [("DELETE /users?userIds%5B0%5D=a", Some((404, "gone")))];
    assert_eq!(travel(vec![member], false, &script), ["404 gone"]);
    let echo = r#"{ "data": {"emails": ["a"]} }"#;
    let script = [(
        r#"POST /invites {"invites":[{"email":"a"}]}"#,
        Some((201, echo)),
    )];
    assert_eq!(
        travel(invites(&["a"]), false, &script),
        [format!("201 {echo}")]
    );
}

#[test]
fn each_hears_of_its_own_invites() {
    let sent = r#"POST /invites {"invites":[{"email":"A@x"},{"email":"b@x"},{"email":"c@x"}]}"#;
    let hear = |body: &str| {
        travel(
            invites(&["A@x", "b@x c@x"]),
            false,
            &[(sent, Some((201, body)))],
        )
    };
    assert_eq!(
        hear(r#"{"data":{"emails":["c@x","a@x","b@x"],"x":1}}"#),
        [
            r#"201 {"data":{"emails":["a@x"],"x":1}}"#,
            r#"201 {"data":{"emails":["c@x","b@x"],"x":1}}"#
        ]
    );
    // What is not understood is passed on as it is.
    for body in [
        "",
        "{",
        r#"{"data":{"emails":["a@x"]}}"#,
        r#"{"data":{"emails":["A@x","b@x",1]}}"#,
        r#"{"data":{"invites":[]}}"#,
        r#"{"errors":[]}"#,
    ] {
        let second = format!("201 {body}");
        assert_eq!(hear(body)[1], second);
    }
}

#[test]
fn what_is_applied_as_a_whole_is_halved() {
    let script = [
        (
            "DELETE /users?userIds.0=a&userIds.1=b&userIds.2=c",
            Some((404, ABSENT)),
        ),
        ("DELETE /users?userIds=a", Some((404, ABSENT))),
        ("DELETE /users?userIds.0=b&userIds.1=c", Some((422, WRONG))),
        ("DELETE /users?userIds=b", Some((422, WRONG))),
        ("DELETE /users?userIds=c", Some((404, ABSENT))),
    ];
    let heard = travel(deletions(&["a", "b", "c"]), true, &script);
    assert_eq!(heard, [absent(), format!("422 {WRONG}"), absent()]);
}

#[test]
fn an_absent_element_is_found_in_both_modes() {
    let all = (
        "DELETE /users?userIds.0=a&userIds.1=b&userIds.2=c&userIds.3=d",
        Some((404, ABSENT)),
    );
    let ab = "DELETE /users?userIds.0=a&userIds.1=b";
    let cd = "DELETE /users?userIds.0=c&userIds.1=d";
    let one = ["a", "b", "c", "d"].map(|id| format!("DELETE /users?userIds={id}"));
    let (yes, no) = (Some((200, SUCCESS)), Some((404, ABSENT)));
    // Nothing of a list is applied: c is absent.
    let whole = [all, (ab, yes), (cd, no), (&*one[2], no), (&*one[3], yes)];
    // What stands before c is applied.
    let partly = [
        all,
        (ab, no),
        (&*one[0], no),
        (&*one[1], no),
        (cd, no),
        (&*one[2], no),
        (&*one[3], yes),
    ];
    for script in [&whole[..], &partly[..]] {
        let heard = travel(deletions(&["a", "b", "c", "d"]), false, script);
        assert_eq!(heard, [success(), success(), absent(), success()]);
    }
}

#[test]
fn what_was_perhaps_done_is_repeated_one_by_one() {
    let script = [
        (
            "DELETE /users?userIds.0=a&userIds.1=b&userIds.2=c",
            Some((404, ABSENT)),
        ),
        ("DELETE /users?userIds=a&userIds=b", Some((404, ABSENT))),
        ("DELETE /users?userIds=c", Some((422, WRONG))),
        ("DELETE /users?userIds.0=a", Some((404, ABSENT))),
        ("DELETE /users?userIds.0=b", Some((200, SUCCESS))),
    ];
    let heard = travel(deletions(&["a b", "c"]), false, &script);
    assert_eq!(heard, [success(), format!("422 {WRONG}")]);
}

/// What is asked to find out what a refused invitation came to.
const INVITES: &str = "GET /invites?pagination.count=1000";
const USERS: &str = "GET /users?pagination.count=1000";

#[test]
fn what_took_effect_is_read_and_only_the_rest_is_sent() {
    let script = [
        (
            r#"POST /invites {"invites":[{"email":"a"},{"email":"b"},{"email":"C"},{"email":"d"}]}"#,
            Some((422, WRONG)),
        ),
        (
            INVITES,
            Some((
                200,
                r#"{"data":{"invites":["A","x"],"pagination":{"next":"M/=","totalEntries":3}}}"#,
            )),
        ),
        (
            "GET /invites?pagination.count=1000&pagination.cursor=M%2F%3D",
            Some((
                200,
                r#"{"data":{"invites":["y"],"pagination":{"totalEntries":3}}}"#,
            )),
        ),
        (
            USERS,
            Some((
                200,
                r#"{"data":{"users":[{"email":"c","n":1}],"pagination":{}}}"#,
            )),
        ),
        (
            r#"POST /invites {"invites":[{"email":"b"},{"email":"d"}]}"#,
            Some((422, WRONG)),
        ),
        (INVITES, Some((200, r#"{"data":{"invites":[]}}"#))),
        (USERS, Some((200, r#"{"data":{"users":[]}}"#))),
        (
            r#"POST /invites {"invites":[{"email":"b"}]}"#,
            Some((201, r#"{"data":{"emails":["b"]}}"#)),
        ),
        (
            r#"POST /invites {"invites":[{"email":"d"}]}"#,
            Some((422, WRONG)),
        ),
    ];
    let heard = travel(invites(&["a", "b C", "d"]), false, &script);
    assert_eq!(
        heard,
        [
            r#"201 {"data":{"emails":["a"]}}"#,
            r#"201 {"data":{"emails":["b","C"]}}"#,
            &format!("422 {WRONG}"),
        ]
    );
}

#[test]
fn what_cannot_be_read_is_unknown() {
    let sent = r#"POST /invites {"invites":[{"email":"a"},{"email":"b"}]}"#;
    let first = (sent, Some((409, WRONG)));
    let page = r#"{"data":{"invites":["a"],"pagination":{"next":"2","totalEntries":9}}}"#;
    let more = "GET /invites?pagination.count=1000&pagination.cursor=2";
    let a = r#"201 {"data":{"emails":["a"]}}"#;
    let cases: [(Script<'_>, [&str; 2]); 5] = [
        (&[first, (INVITES, None)], ["unknown", "unknown"]),
        (&[first, (INVITES, Some((401, "")))], ["unknown", "unknown"]),
        (
            &[first, (INVITES, Some((200, r#"{"data":{}}"#)))],
            ["unknown", "unknown"],
        ),
        (
            &[first, (INVITES, Some((200, page))), (more, Some((500, "")))],
            [a, "unknown"],
        ),
        // A list without an end.
        (
            &[
                &[first, (INVITES, Some((200, page)))][..],
                &[(more, Some((200, page))); 19],
            ]
            .concat(),
            [a, "unknown"],
        ),
    ];
    for (script, expected) in cases {
        assert_eq!(travel(invites(&["a", "b"]), false, script), expected);
    }
}

#[test]
fn a_list_that_changes_between_its_pages_is_read_anew() {
    let more = "GET /invites?pagination.count=1000&pagination.cursor=2";
    let page = |names: &str, next: &str, total: u32| {
        format!(
            r#"{{"data":{{"invites":[{names}],"pagination":{{{next}"totalEntries":{total}}}}}}}"#
        )
    };
    let next = r#""next":"2","#;
    // x has gone when the second page is read, which therefore begins behind b.
    let (first, gone) = (page(r#""x","y""#, next, 3), page("", "", 2));
    let (again, users) = (page(r#""y","b""#, "", 2), r#"{"data":{"users":[]}}"#);
    let fewer = page("", "", 3);
    let a = r#"POST /invites {"invites":[{"email":"a"}]}"#;
    for second in [&gone, &fewer] {
        let script = [
            (
                r#"POST /invites {"invites":[{"email":"b"},{"email":"a"}]}"#,
                Some((409, WRONG)),
            ),
            (INVITES, Some((200, &*first))),
            (more, Some((200, second))),
            (INVITES, Some((200, &again))),
            (USERS, Some((200, users))),
            (a, Some((409, WRONG))),
        ];
        let heard = travel(invites(&["b", "a"]), false, &script);
        let b = r#"201 {"data":{"emails":["b"]}}"#.to_owned();
        assert_eq!(heard, [b, format!("409 {WRONG}")]);
    }
    // Without a total nobody knows.
    let first = r#"{"data":{"invites":["x"],"pagination":{"next":"2"}}}"#;
    let script = [
        (
            r#"POST /invites {"invites":[{"email":"b"},{"email":"a"}]}"#,
            Some((409, WRONG)),
        ),
        (INVITES, Some((200, first))),
    ];
    assert_eq!(travel(invites(&["b", "a"]), false, &script), ["unknown"; 2]);
}

#[test]
fn members_that_were_found_hear_the_state_of_their_group() {
    let add = |email: &str| {
        member(
            "POST /groups/g%20h/users",
            &format!(r#"{{"emails":["{email}"]}}"#),
        )
    };
    let group = r#"{"data":{"userGroup":{"id":"g h","memberCount":7}}}"#;
    let script = [
        (
            r#"POST /groups/g%20h/users {"emails":["a","b","c"]}"#,
            Some((404, ABSENT)),
        ),
        (
            "GET /groups/g%20h/invites?pagination.count=1000",
            Some((200, r#"{"data":{"emails":["B"]}}"#)),
        ),
        (
            "GET /groups/g%20h/users?pagination.count=1000",
            Some((200, r#"{"data":{"users":[{"email":"a"}]}}"#)),
        ),
        (
            r#"POST /groups/g%20h/users {"emails":["c"]}"#,
            Some((404, ABSENT)),
        ),
        ("GET /groups/g%20h", Some((200, group))),
    ];
    let heard = travel(vec![add("a"), add("b"), add("c")], false, &script);
    let group = format!("200 {group}");
    assert_eq!(heard, [&*group, &group, &absent()]);
}

#[test]
fn without_an_answer_all_are_unknown_and_nothing_follows() {
    let all = "DELETE /users?userIds.0=a&userIds.1=b&userIds.2=c";
    let cases: [(bool, Script<'_>, [&str; 3]); 6] = [
        (false, &[(all, None)], ["unknown"; 3]),
        (false, &[(all, Some((503, "")))], ["unknown 503"; 3]),
        (
            true,
            &[
                (all, Some((404, ABSENT))),
                ("DELETE /users?userIds=a", None),
            ],
            ["unknown", "again", "again"],
        ),
        (
            false,
            &[
                (all, Some((404, ABSENT))),
                ("DELETE /users?userIds=a", None),
            ],
            ["unknown"; 3],
        ),
        // The second half is sent anew, for nothing of it can have taken effect.
        (
            false,
            &[
                (all, Some((404, ABSENT))),
                ("DELETE /users?userIds=a", Some((200, SUCCESS))),
                ("DELETE /users?userIds.0=b&userIds.1=c", Some((404, ABSENT))),
                ("DELETE /users?userIds=b", Some((404, ABSENT))),
                ("DELETE /users?userIds=c", Some((500, ""))),
            ],
            [&success(), &success(), "unknown 500"],
        ),
        (
            false,
            &[
                (all, Some((404, ABSENT))),
                ("DELETE /users?userIds=a", Some((404, ABSENT))),
                ("DELETE /users?userIds.0=b&userIds.1=c", Some((401, "no"))),
            ],
            [&success(), "unknown 401", "unknown 401"],
        ),
    ];
    for (atomic, script, expected) in cases {
        assert_eq!(
            travel(deletions(&["a", "b", "c"]), atomic, script),
            expected
        );
    }
}

#[test]
fn what_is_too_long_for_one_target_goes_one_by_one() {
    // Ids of 200 bytes, of which more than 65,534 make no target.
    let ids = |from: usize| {
        let ids: Vec<_> = (from..from + 200)
            .map(|n| format!("userIds={n:0200}"))
            .collect();
        request(&format!("DELETE /users?{}", ids.join("&")), "")
    };
    let mut operation = operation(&ids(0), false);
    Arc::make_mut(operation.merge.as_mut().unwrap()).most = 400;
    let members = [ids(0), ids(200)].map(|request| Member {
        parts: Parts::of(&operation, &request).unwrap(),
        request,
    });
    let mut journey = Journey::new(&operation, members.into());
    for expected in [ids(0), ids(200)] {
        let Some(Step::Send(request, _)) = journey.step() else {
            panic!("no write")
        };
        assert_eq!(shown(&request), shown(&expected));
        journey.came(Came::Answer(answer(200, SUCCESS)));
    }
    assert!(journey.step().is_none());
}

#[test]
fn a_refusal_of_the_caller_is_not_divided() {
    for status in [401, 403, 429, 307] {
        let sent = "DELETE /users?userIds.0=a&userIds.1=b";
        let heard = travel(
            deletions(&["a", "b"]),
            false,
            &[(sent, Some((status, "no")))],
        );
        assert_eq!(heard, [format!("{status} no"), format!("{status} no")]);
    }
}

#[test]
fn an_answer_that_is_made_has_the_header_of_another() {
    let operation = operation(&request("DELETE /users?userIds=a", ""), false);
    let mut journey = Journey::new(&operation, deletions(&["a", "b"]));
    let mut refusal = answer(404, ABSENT);
    for (name, value) in [
        ("x-ratelimit-remaining", "7"),
        ("content-length", "9"),
        ("etag", "x"),
    ] {
        refusal.headers_mut().insert(name, value.parse().unwrap());
    }
    for _ in 0..3 {
        journey.came(Came::Answer(refusal.clone()));
    }
    let Some((0, Outcome::Answer(done))) = journey.settled().into_iter().next() else {
        panic!("no answer")
    };
    let mut fields: Vec<_> = done.headers().keys().map(|name| name.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["content-type", "x-ratelimit-remaining"]);
    assert_eq!(
        (done.status().as_u16(), &done.body()[..]),
        (200, SUCCESS.as_bytes())
    );
}
