//! Users, invites and groups through the gateway, as the reference and the SDKs write requests.

use super::support::scripted::{Script, Step, answer, field};
use super::support::{World, request, with};
use http::Method;
use segment_gateway::sandbox::SandboxSpec;
use serde_json::Value;

const PERMISSIONS: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s1","type":"SOURCE"}]}]}"#;
const MEDIA_TYPES: [&str; 4] = [
    "application/json",
    "application/vnd.segment.v1+json",
    "application/vnd.segment.v1beta+json",
    "application/vnd.segment.v1alpha+json",
];

/// Sends each request and compares the status and one member of the answer; `*` is anything.
async fn walk(world: &World, steps: &[(Method, &str, &str, u16, &str, &str)]) {
    for (method, target, body, status, pointer, expected) in steps {
        let answer = world.write(method.clone(), target, "a", body).await;
        assert_eq!(answer.status, *status, "{method} {target}: {answer:?}");
        let document = answer.json();
        let found = document.pointer(pointer);
        assert!(found.is_some(), "{method} {target}: {document}");
        if *expected != "*" {
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(found, Some(&expected), "{method} {target}");
        }
        let last = world.sandbox.arrivals().pop().unwrap();
        assert_eq!(&*last.target, *target, "sent on byte for byte");
        assert_eq!(&*last.body, *body, "sent on byte for byte");
    }
}

#[tokio::test(start_paused = true)]
async fn the_nine_operations_of_users_work() {
    let world = World::new(SandboxSpec::default());
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let delete = Method::DELETE;
    let invites = r#"{"invites":[{"email":"a+1@new.example"},{"email":"b@new.example"}]}"#;
    walk(
        &world,
        &[
            (
                get.clone(),
                "/users?pagination.count=1",
                "",
                200,
                "/data/users/0/id",
                "\"user-00001\"",
            ),
            (
                get.clone(),
                "/users/user-00007",
                "",
                200,
                "/data/user/email",
                "\"user-00007@example.com\"",
            ),
            (
                get.clone(),
                "/users/user-00007/groups",
                "",
                200,
                "/data/groups",
                "*",
            ),
            (get.clone(), "/invites", "", 200, "/data/invites", "[]"),
            (
                post.clone(),
                "/users/user-00007/permissions",
                PERMISSIONS,
                200,
                "/data/permissions/1/roleId",
                "\"source-admin\"",
            ),
            (
                put,
                "/users/user-00007/permissions",
                PERMISSIONS,
                200,
                "/data/permissions/0/roleId",
                "\"source-admin\"",
            ),
            (
                post,
                "/invites",
                invites,
                201,
                "/data/emails",
                r#"["a+1@new.example","b@new.example"]"#,
            ),
            (
                get.clone(),
                "/invites",
                "",
                200,
                "/data/invites",
                r#"["a+1@new.example","b@new.example"]"#,
            ),
            (
                delete.clone(),
                "/invites?emails.0=a%2B1%40new.example",
                "",
                200,
                "/data/status",
                "\"SUCCESS\"",
            ),
            (
                get.clone(),
                "/invites",
                "",
                200,
                "/data/invites",
                r#"["b@new.example"]"#,
            ),
            (
                delete,
                "/users?userIds.0=user-00007",
                "",
                200,
                "/data/status",
                "\"SUCCESS\"",
            ),
            (
                get,
                "/users/user-00007",
                "",
                404,
                "/errors/0/type",
                "\"NotFoundError\"",
            ),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_operation_of_groups_works() {
    let world = World::new(SandboxSpec::default());
    let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
    let (patch, delete) = (Method::PATCH, Method::DELETE);
    let one = r#"{"emails":["user-00001@example.com"]}"#;
    let two = r#"{"emails":["user-00002@example.com"]}"#;
    walk(
        &world,
        &[
            (
                post.clone(),
                "/groups",
                r#"{"name":"Writers"}"#,
                200,
                "/data/userGroup/id",
                "\"group-new-1\"",
            ),
            (get.clone(), "/groups", "", 200, "/data/userGroups", "*"),
            (
                get.clone(),
                "/groups/group-new-1",
                "",
                200,
                "/data/userGroup/memberCount",
                "0",
            ),
            (
                post.clone(),
                "/groups/group-new-1/users",
                one,
                200,
                "/data/userGroup/memberCount",
                "1",
            ),
            (
                get.clone(),
                "/groups/group-new-1",
                "",
                200,
                "/data/userGroup/memberCount",
                "1",
            ),
            (
                get.clone(),
                "/groups/group-new-1/users",
                "",
                200,
                "/data/users/0/id",
                "\"user-00001\"",
            ),
            (
                get.clone(),
                "/groups/group-new-1/invites",
                "",
                200,
                "/data/emails",
                "[]",
            ),
            // In the singular, as the reference has it.
            (
                put.clone(),
                "/group/group-new-1/users",
                two,
                200,
                "/data/userGroup/memberCount",
                "1",
            ),
            (
                get.clone(),
                "/groups/group-new-1/users",
                "",
                200,
                "/data/users/0/id",
                "\"user-00002\"",
            ),
            (
                delete.clone(),
                "/group/group-new-1/users?emails.0=user-00002%40example.com",
                "",
                200,
                "/data/status",
                "\"SUCCESS\"",
            ),
            (
                get.clone(),
                "/groups/group-new-1",
                "",
                200,
                "/data/userGroup/memberCount",
                "0",
            ),
            (
                post,
                "/groups/group-new-1/permissions",
                PERMISSIONS,
                200,
                "/data/permissions/0/roleId",
                "\"source-admin\"",
            ),
            (
                put,
                "/groups/group-new-1/permissions",
                PERMISSIONS,
                200,
                "/data/permissions/0/subjectType",
                "*",
            ),
            (
                patch,
                "/groups/group-new-1",
                r#"{"name":"Readers"}"#,
                200,
                "/data/userGroup/name",
                "\"Readers\"",
            ),
            (
                get.clone(),
                "/groups/group-new-1",
                "",
                200,
                "/data/userGroup/name",
                "\"Readers\"",
            ),
            (
                delete,
                "/groups/group-new-1",
                "",
                200,
                "/data/status",
                "\"SUCCESS\"",
            ),
            (
                get,
                "/groups/group-new-1",
                "",
                404,
                "/errors/0/status",
                "404",
            ),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn lists_work_in_every_spelling_of_reference_and_sdks() {
    let world = World::new(SandboxSpec::default());
    for (first, second) in [
        ("emails.0", "emails.1"),
        ("emails%5B0%5D", "emails%5B1%5D"),
        ("emails[0]", "emails[1]"),
        ("emails", "emails"),
    ] {
        let body = r#"{"invites":[{"email":"x@new.example"},{"email":"y@new.example"}]}"#;
        let created = world.write(Method::POST, "/invites", "a", body).await;
        assert_eq!(created.status, 201, "{created:?}");
        let target = format!("/invites?{first}=x%40new.example&{second}=y%40new.example");
        let deleted = world.write(Method::DELETE, &target, "a", "").await;
        assert_eq!(deleted.status, 200, "{target}: {deleted:?}");
        assert_eq!(world.sandbox.invites(), Vec::<String>::new(), "{target}");
        assert_eq!(&*world.sandbox.arrivals().pop().unwrap().target, target);
    }
    for (number, name) in ["userIds.0", "userIds%5B0%5D", "userIds"]
        .iter()
        .enumerate()
    {
        let id = format!("user-{:05}", number + 1);
        let target = format!("/users?{name}={id}");
        assert_eq!(
            world.write(Method::DELETE, &target, "a", "").await.status,
            200
        );
        assert!(!world.sandbox.users().contains(&id));
    }
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other_in_query_and_in_a_get_with_a_body() {
    let world = World::new(SandboxSpec::default());
    let first = world.get("/users?pagination.count=3", "a").await.json();
    let next = first["data"]["pagination"]["next"]
        .as_str()
        .unwrap()
        .to_owned();
    let encoded = next.replace('=', "%3D");
    let by_query = world
        .get(
            &format!("/users?pagination%5Bcount%5D=3&pagination%5Bcursor%5D={encoded}"),
            "a",
        )
        .await;
    assert_eq!(by_query.json()["data"]["users"][0]["id"], "user-00004");
    let body = format!(r#"{{"pagination":{{"count":3,"cursor":"{next}"}}}}"#);
    let by_body = world.write(Method::GET, "/users", "a", &body).await;
    assert_eq!(by_body.json()["data"], by_query.json()["data"]);
    // Not confused with one without, nor with another body.
    let all = world.get("/users", "a").await;
    assert_eq!(all.json()["data"]["users"].as_array().unwrap().len(), 200);
    let four = r#"{"pagination":{"count":4}}"#;
    let four = world.write(Method::GET, "/users", "a", four).await;
    assert_eq!(four.json()["data"]["users"].as_array().unwrap().len(), 4);
    let again = world.write(Method::GET, "/users", "a", &body).await;
    assert!(again.header("cache-status").contains("; hit;"), "{again:?}");
    assert_eq!(again.body, by_body.body);
}

#[tokio::test(start_paused = true)]
async fn accept_chooses_the_version_and_its_answer_is_kept_apart() {
    let world = World::new(SandboxSpec::default());
    for round in ["; stored", "; hit;"] {
        for media in MEDIA_TYPES {
            let ask = with(request(Method::GET, "/roles", "a", ""), "accept", media);
            let answer = world.send(ask).await;
            assert_eq!(answer.header("content-type"), media);
            assert!(
                answer.header("cache-status").contains(round),
                "{media} {answer:?}"
            );
        }
    }
    let mut vendor = request(Method::POST, "/groups", "a", r#"{"name":"V"}"#);
    vendor
        .headers_mut()
        .insert("content-type", MEDIA_TYPES[1].parse().unwrap());
    assert_eq!(world.send(vendor).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_api_pass_as_they_are() {
    let world = World::new(SandboxSpec::default());
    for (method, target, body, status, kind) in [
        (Method::GET, "/users/nobody", "", 404, "NotFoundError"),
        (
            Method::GET,
            "/users?pagination.count=0",
            "",
            422,
            "ValidationError",
        ),
        (
            Method::PUT,
            "/users/nobody/permissions",
            PERMISSIONS,
            404,
            "NotFoundError",
        ),
        (
            Method::POST,
            "/invites",
            r#"{"invites":[{"email":"no"}]}"#,
            422,
            "ValidationError",
        ),
        (Method::DELETE, "/users", "", 422, "ValidationError"),
    ] {
        let answer = world.write(method.clone(), target, "a", body).await;
        assert_eq!(answer.status, status, "{method} {target} {answer:?}");
        assert_eq!(answer.error_type(), kind, "{method} {target}");
        assert!(answer.json().get("data").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn status_header_and_body_of_any_answer_pass_byte_for_byte() {
    let odd = "{\"errors\" : [ {\"type\":\"Odd\\u00e9\"} ] }\n";
    for status in [
        200, 201, 202, 400, 401, 403, 404, 409, 413, 422, 500, 502, 503,
    ] {
        let script = Script::new(move |_, _| {
            let odd = field(answer(status, odd), "x-odd", "1");
            let odd = field(field(odd, "x-odd", "2"), "connection", "x-hop");
            Step::Answer(field(odd, "x-hop", "1"))
        });
        let world = script.world();
        for method in [Method::GET, Method::PUT] {
            // Whoever does not wait hears of its only attempt.
            let request = request(method.clone(), "/users/u/permissions", "a", "{}");
            let answer = world.send(with(request, "prefer", "wait=0")).await;
            assert_eq!(answer.status, status, "{method}");
            assert_eq!(answer.body, odd.as_bytes(), "{method} {status}");
            let odd: Vec<_> = answer.headers.get_all("x-odd").iter().collect();
            assert_eq!(odd, ["1", "2"]);
            assert!(!answer.headers.contains_key("x-hop"));
        }
        assert_eq!(script.count(), 2, "nothing is sent twice");
    }
}
