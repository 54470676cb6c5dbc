//! The sandbox over in-memory connections with an ordinary HTTP client, under a paused clock.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::*;

mod pages;
mod statuses;

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

fn clock() -> Clock {
    // 13.25 s after a full minute.
    let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_461_973_250);
    Clock::simulated(wall, Duration::from_secs(100))
}

fn sandbox(spec: SandboxSpec) -> Arc<Sandbox> {
    Sandbox::new(spec, clock())
}

fn request(method: &str, target: &str, body: &str) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(target);
    let builder = builder
        .header("host", "sandbox")
        .header("authorization", "Bearer one");
    builder
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

/// Sends one request over a connection of its own.
async fn send(sandbox: &Arc<Sandbox>, request: Request<Full<Bytes>>) -> hyper::Result<Reply> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(Arc::clone(sandbox).serve_connection(far));
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    tokio::spawn(connection);
    let (head, body) = client.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Reply {
        status: head.status,
        headers: head.headers,
        body,
    })
}

async fn call(sandbox: &Arc<Sandbox>, method: &str, target: &str, body: &str) -> Reply {
    send(sandbox, request(method, target, body)).await.unwrap()
}

async fn status(sandbox: &Arc<Sandbox>, method: &str, target: &str, body: &str) -> u16 {
    call(sandbox, method, target, body).await.status.as_u16()
}

async fn data(sandbox: &Arc<Sandbox>, target: &str) -> Value {
    let reply = call(sandbox, "GET", target, "").await;
    assert_eq!(reply.status, 200, "{target}: {:?}", reply.body);
    reply.json()["data"].clone()
}

fn invites(emails: &[&str]) -> String {
    let invites: Vec<Value> = emails
        .iter()
        .map(|email| json!({ "email": email }))
        .collect();
    json!({ "invites": invites }).to_string()
}

const GRANT: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s1","type":"SOURCE"}]}]}"#;

/// Asserts that an error has the form of the SDKs' models `RequestErrorEnvelope` and
/// `RequestError`.
fn assert_error(reply: &Reply) {
    let (document, status) = (reply.json(), reply.status.as_u16());
    let envelope = document.as_object().unwrap();
    assert!(envelope.keys().eq(["errors"]), "{document}");
    let errors = envelope["errors"].as_array().unwrap();
    assert!(!errors.is_empty(), "{document}");
    for error in errors {
        let members = error.as_object().unwrap();
        assert!(members["type"].is_string(), "{document}");
        for (name, value) in members {
            let fits = match name.as_str() {
                "type" | "message" | "field" => value.is_string(),
                "status" => *value == status,
                "data" => true,
                _ => false,
            };
            assert!(fits, "{name}: {document}");
        }
    }
}

/// Method, target, body, expected status, and what the answer must contain.
type Row = (&'static str, &'static str, &'static str, u16, &'static str);

async fn walk(sandbox: &Arc<Sandbox>, rows: &[Row]) {
    for (method, target, body, expected, contained) in rows {
        let reply = call(sandbox, method, target, body).await;
        let text = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, *expected, "{method} {target} {body}: {text}");
        assert!(
            text.contains(contained),
            "{method} {target}: {contained} not in {text}"
        );
        let is_data = reply.json().get("data").is_some();
        assert_eq!(is_data, reply.json().get("errors").is_none(), "{text}");
        assert_eq!(is_data, reply.status.is_success());
        if !is_data {
            assert_error(&reply);
        }
        assert_eq!(
            is_data,
            reply.headers.contains_key("x-ratelimit-consumed"),
            "{method} {target}"
        );
    }
}

const USERS: [Row; 22] = [
    (
        "GET",
        "/users?pagination.count=2",
        "",
        200,
        r#""next":"Mg==","totalEntries":5"#,
    ),
    (
        "GET",
        "/users?pagination%5Bcount%5D=2&pagination%5Bcursor%5D=NA%3D%3D",
        "",
        200,
        "user-00005",
    ),
    (
        "GET",
        "/users",
        r#"{"pagination":{"count":1,"cursor":"Mw=="}}"#,
        200,
        r#"{"users":[{"id":"user-00004""#,
    ),
    (
        "GET",
        "/users?pagination.count=0",
        "",
        422,
        "pagination.count",
    ),
    (
        "GET",
        "/users/user-00001",
        "",
        200,
        r#"{"user":{"id":"user-00001","name":"user-00001","email":"user-00001@example.com""#,
    ),
    ("GET", "/users/nobody", "", 404, "NotFoundError"),
    ("GET", "/users/user-00001/groups", "", 200, r#""groups":["#),
    ("GET", "/users/nobody/groups", "", 404, ""),
    (
        "POST",
        "/users/user-00001/permissions",
        GRANT,
        200,
        r#""policyId":"policy-1","subjectId":"user-00001","subjectType":"user""#,
    ),
    (
        "PUT",
        "/users/user-00001/permissions",
        GRANT,
        200,
        r#"{"permissions":[{"roleId":"source-admin","roleName":"Source Admin","resources":[{"id":"s1","type":"SOURCE"}]"#,
    ),
    (
        "GET",
        "/users/user-00001",
        "",
        200,
        r#""permissions":[{"roleId":"source-admin","#,
    ),
    (
        "PUT",
        "/users/user-00001/permissions",
        r#"{"permissions":[]}"#,
        200,
        r#""permissions":[]"#,
    ),
    (
        "PUT",
        "/users/user-00001/permissions",
        r#"{"permissions":7}"#,
        422,
        "must be a list",
    ),
    (
        "PUT",
        "/users/user-00001/permissions",
        r#"{"permissions":[{}]}"#,
        422,
        "permissions.roleId",
    ),
    (
        "PUT",
        "/users/user-00001/permissions",
        r#"{"permissions":[{"roleId":"king","resources":[]}]}"#,
        404,
        "king",
    ),
    (
        "PUT",
        "/users/user-00001/permissions",
        r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"x","type":"MOON"}]}]}"#,
        422,
        "resources",
    ),
    ("PUT", "/users/user-00001/permissions", "{", 422, "not JSON"),
    ("POST", "/users/nobody/permissions", GRANT, 404, ""),
    ("DELETE", "/users", "", 422, "userIds"),
    (
        "DELETE",
        "/users?userIds.0=user-00002&userIds.1=user-00003",
        "",
        200,
        r#"{"data":{"status":"SUCCESS"}}"#,
    ),
    ("DELETE", "/users?userIds=user-00002", "", 404, "user-00002"),
    ("GET", "/users", "", 200, r#""totalEntries":3"#),
];

#[tokio::test(start_paused = true)]
async fn users_and_their_permissions() {
    let sandbox = sandbox(SandboxSpec {
        users: 5,
        ..SandboxSpec::default()
    });
    walk(&sandbox, &USERS).await;
    assert_eq!(sandbox.users(), ["user-00001", "user-00004", "user-00005"]);
    assert_eq!(sandbox.permissions("user-00001"), Some(vec![]));
    assert_eq!(sandbox.permissions("user-00002"), None);
    assert_eq!(sandbox.version(), 4);
}

const INVITES: [Row; 11] = [
    (
        "POST",
        "/invites",
        r#"{"invites":[{"email":"A@x.y"},{"email":"b@x.y"},{"email":"c@x.y"}]}"#,
        201,
        r#"{"data":{"emails":["A@x.y","b@x.y","c@x.y"]}}"#,
    ),
    (
        "POST",
        "/invites",
        r#"{"invites":[{"email":"a@x.y"}]}"#,
        422,
        "already invited",
    ),
    (
        "POST",
        "/invites",
        r#"{"invites":[{"email":"d@x.y"},{"email":"d@x.y"}]}"#,
        422,
        "repeated",
    ),
    (
        "POST",
        "/invites",
        r#"{"invites":[{"email":"user-00001@example.com"}]}"#,
        422,
        "a user",
    ),
    ("POST", "/invites", r#"{"invites":[]}"#, 422, "invites"),
    (
        "POST",
        "/invites",
        r#"{"invites":[{"mail":"x"}]}"#,
        422,
        "email",
    ),
    (
        "GET",
        "/invites",
        "",
        200,
        r#"{"invites":["A@x.y","b@x.y","c@x.y"],"#,
    ),
    (
        "DELETE",
        "/invites?emails%5B0%5D=a%40x.y",
        "",
        200,
        "SUCCESS",
    ),
    (
        "DELETE",
        "/invites?emails=b%40x.y&emails=c%40x.y",
        "",
        200,
        "SUCCESS",
    ),
    ("DELETE", "/invites?emails.0=b%40x.y", "", 404, "invite"),
    ("DELETE", "/invites", "", 422, "emails"),
];

#[tokio::test(start_paused = true)]
async fn invites_in_all_spellings() {
    let sandbox = sandbox(SandboxSpec::default());
    walk(&sandbox, &INVITES).await;
    assert!(sandbox.invites().is_empty());
}

const GROUPS: [Row; 26] = [
    (
        "POST",
        "/groups",
        r#"{"name":"Ops"}"#,
        200,
        r#"{"userGroup":{"id":"group-new-1","name":"Ops","memberCount":0,"permissions":[]}}"#,
    ),
    ("POST", "/groups", r#"{"name":7}"#, 422, "name"),
    (
        "PATCH",
        "/groups/group-new-1",
        r#"{"name":"Dev"}"#,
        200,
        r#""name":"Dev""#,
    ),
    ("PATCH", "/groups/none", r#"{"name":"Dev"}"#, 404, ""),
    (
        "POST",
        "/invites",
        r#"{"invites":[{"email":"new@x.y"}]}"#,
        201,
        "",
    ),
    (
        "POST",
        "/groups/group-new-1/users",
        r#"{"emails":["user-00001@example.com","new@x.y"]}"#,
        200,
        r#""memberCount":2"#,
    ),
    (
        "POST",
        "/groups/group-new-1/users",
        r#"{"emails":["who@x.y"]}"#,
        404,
        "who@x.y",
    ),
    ("POST", "/groups/group-new-1/users", r#"{}"#, 422, "emails"),
    (
        "POST",
        "/groups/group-new-1/users",
        r#"{"emails":[1]}"#,
        422,
        "emails",
    ),
    (
        "GET",
        "/groups/group-new-1/users",
        "",
        200,
        r#"{"users":[{"id":"user-00001""#,
    ),
    (
        "GET",
        "/groups/group-new-1/invites",
        "",
        200,
        r#"{"emails":["new@x.y"]"#,
    ),
    ("GET", "/groups/none/users", "", 404, ""),
    (
        "GET",
        "/users/user-00001/groups",
        "",
        200,
        r#"{"groups":[{"id":"group-new-1","name":"Dev"}]"#,
    ),
    (
        "PUT",
        "/group/group-new-1/users",
        r#"{"emails":["user-00002@example.com","user-00003@example.com","new@x.y"]}"#,
        200,
        r#""memberCount":3"#,
    ),
    (
        "DELETE",
        "/group/group-new-1/users?emails.0=user-00003%40example.com",
        "",
        200,
        "SUCCESS",
    ),
    (
        "DELETE",
        "/group/group-new-1/users?emails.0=user-00003%40example.com",
        "",
        404,
        "member",
    ),
    ("DELETE", "/group/group-new-1/users", "", 422, "emails"),
    (
        "PUT",
        "/groups/group-new-1/permissions",
        GRANT,
        200,
        r#""subjectType":"group""#,
    ),
    (
        "GET",
        "/groups/group-new-1",
        "",
        200,
        r#""memberCount":2,"permissions":[{"roleId""#,
    ),
    // Who goes leaves the group.
    ("DELETE", "/invites?emails=new%40x.y", "", 200, ""),
    ("GET", "/groups/group-new-1", "", 200, r#""memberCount":1"#),
    ("DELETE", "/users?userIds=user-00002", "", 200, ""),
    ("GET", "/groups", "", 200, r#""memberCount":0"#),
    ("DELETE", "/groups/group-new-1", "", 200, "SUCCESS"),
    ("DELETE", "/groups/group-new-1", "", 404, ""),
    (
        "GET",
        "/roles",
        "",
        200,
        r#"{"roles":[{"id":"workspace-owner","name":"Workspace Owner""#,
    ),
];

#[tokio::test(start_paused = true)]
async fn groups_and_their_members() {
    let sandbox = sandbox(SandboxSpec {
        users: 3,
        groups: 0,
        ..SandboxSpec::default()
    });
    walk(&sandbox, &GROUPS).await;
    assert_eq!(sandbox.members("group-new-1"), None);
}

const OTHERS: [Row; 17] = [
    (
        "GET",
        "/",
        "",
        200,
        r#"{"data":{"workspace":{"id":"workspace-1""#,
    ),
    ("GET", "/sources", "", 200, r#"{"sources":[],"#),
    (
        "POST",
        "/sources",
        r#"{"slug":"s"}"#,
        201,
        r#"{"source":{"id":"source-new-1","slug":"s"}}"#,
    ),
    (
        "GET",
        "/sources/source-new-1",
        "",
        200,
        r#"{"source":{"id":"source-new-1""#,
    ),
    ("GET", "/sources", "", 200, r#""totalEntries":1"#),
    (
        "PATCH",
        "/sources/source-new-1",
        r#"{"enabled":true,"id":"x"}"#,
        200,
        r#"{"enabled":true,"id":"source-new-1","slug":"s"}"#,
    ),
    ("DELETE", "/sources/source-new-1", "", 200, "SUCCESS"),
    ("GET", "/sources/source-new-1", "", 404, "source-new-1"),
    ("DELETE", "/sources/source-new-1", "", 404, ""),
    (
        "GET",
        "/catalog/sources/abc",
        "",
        200,
        r#"{"source":{"id":"abc"}}"#,
    ),
    (
        "PUT",
        "/spaces/s/messaging-subscriptions",
        r#"{"a":1}"#,
        200,
        r#"{"messagingSubscriptions":{"a":1}}"#,
    ),
    (
        "GET",
        "/echo?message=hi",
        "",
        200,
        r#"{"data":{"message":"hi"}}"#,
    ),
    ("GET", "/echo?statusCode=503", "", 503, "EchoError"),
    ("GET", "/echo?triggerError=true", "", 422, ""),
    ("GET", "/echo?statusCode=x", "", 422, "statusCode"),
    ("GET", "/nothing/here", "", 404, ""),
    ("DELETE", "/groups", "", 404, ""),
];

#[tokio::test(start_paused = true)]
async fn everything_else_is_stored_and_returned() {
    let sandbox = sandbox(SandboxSpec::default());
    walk(&sandbox, &OTHERS).await;
}

#[tokio::test(start_paused = true)]
async fn tokens_media_types_and_bodies() {
    let tokens = Some(vec!["one".to_owned(), "two".to_owned()]);
    let spec = SandboxSpec {
        tokens,
        ..SandboxSpec::default()
    };
    assert!(!format!("{spec:?}").contains("two"));
    let sandbox = sandbox(spec);
    for authorization in [
        None,
        Some("Bearer three"),
        Some("Basic one"),
        Some("Bearer "),
        Some("one"),
    ] {
        let mut request = request("GET", "/users", "");
        request.headers_mut().remove("authorization");
        request.headers_mut().extend(
            authorization.map(|value| (http::header::AUTHORIZATION, value.parse().unwrap())),
        );
        let reply = send(&sandbox, request).await.unwrap();
        assert_eq!(reply.status, 401, "{authorization:?}");
        assert_error(&reply);
        assert_eq!(reply.json()["errors"][0]["type"], "UnauthorizedError");
    }
    for token in ["two", "one", "two"] {
        let mut request = request("HEAD", "/users", "");
        request
            .headers_mut()
            .insert("authorization", format!("bearer {token}").parse().unwrap());
        request.headers_mut().insert(
            "accept",
            "application/vnd.segment.v1beta+json".parse().unwrap(),
        );
        let reply = send(&sandbox, request).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
        assert_eq!(
            reply.header("content-type"),
            "application/vnd.segment.v1beta+json"
        );
    }
    let numbers: Vec<u32> = sandbox
        .arrivals()
        .iter()
        .map(|arrival| arrival.token)
        .collect();
    assert_eq!(numbers, [0, 0, 0, 0, 0, 1, 2, 1]);
    let large = "x".repeat((1 << 20) + 1);
    let reply = send(&sandbox, request("POST", "/groups", &large))
        .await
        .unwrap();
    assert_eq!(reply.status, 413);
    assert_error(&reply);
}

#[tokio::test(start_paused = true)]
async fn limits_are_those_documented_and_headers_say_so() {
    let sandbox = sandbox(SandboxSpec::default());
    let first = call(&sandbox, "PUT", "/users/user-00001/permissions", GRANT).await;
    assert_eq!(
        (
            first.header("x-ratelimit-consumed"),
            first.header("x-ratelimit-remaining")
        ),
        ("1", "59")
    );
    assert_eq!(first.header("date"), "Mon, 23 Nov 2026 19:26:13 GMT");
    assert_eq!(
        first.header("x-ratelimit-reset"),
        "Mon, 23 Nov 2026 19:27:13 GMT"
    );
    tokio::time::advance(Duration::from_micros(2_500_100)).await;
    for _ in 1..60 {
        assert_eq!(
            status(&sandbox, "PUT", "/users/user-00002/permissions", GRANT).await,
            200
        );
    }
    let refused = call(
        &sandbox,
        "PUT",
        "/users/user-00001/permissions",
        r#"{"permissions":[]}"#,
    )
    .await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("retry-after")),
        (429, "58")
    );
    let expected = json!({ "remainingPoints": 0, "msBeforeNext": 57_500, "consumedPoints": 61 });
    assert_eq!(refused.json()["errors"][0]["data"], expected);
    assert!(refused.headers.get("x-ratelimit-reset").is_none());
    // Refused: it had no effect, and another operation or token is not touched.
    assert_eq!(sandbox.permissions("user-00001").unwrap().len(), 1);
    assert_eq!(
        status(&sandbox, "POST", "/users/user-00001/permissions", GRANT).await,
        200
    );
    let mut other = request("PUT", "/users/user-00001/permissions", GRANT);
    other
        .headers_mut()
        .insert("authorization", "Bearer two".parse().unwrap());
    assert_eq!(send(&sandbox, other).await.unwrap().status, 200);
    // The window is half-open: exactly a minute after its first request it is over.
    tokio::time::advance(Duration::from_micros(57_499_899)).await;
    assert_eq!(
        status(&sandbox, "PUT", "/users/user-00001/permissions", GRANT).await,
        429
    );
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(
        status(&sandbox, "PUT", "/users/user-00001/permissions", GRANT).await,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn each_window_kind_admits_its_own_number() {
    // 55 at once after 13.25 s of a wall minute, then 60 more 50 s later.
    let table = [
        (WindowKind::Fixed, 60),
        (WindowKind::Aligned, 55 + 60),
        (WindowKind::Rolling, 60),
        (WindowKind::TokenBucket, 55 + 55),
    ];
    for (window, expected) in table {
        let sandbox = sandbox(SandboxSpec {
            window,
            time_scale: 10,
            ..SandboxSpec::default()
        });
        let mut admitted = 0;
        for number in 0..115 {
            if number == 55 {
                tokio::time::advance(Duration::from_secs(5)).await;
            }
            let status = status(&sandbox, "POST", "/users/user-00001/permissions", GRANT).await;
            admitted += u32::from(status == 200);
        }
        assert_eq!(admitted, expected, "{window}");
        let refused = sandbox.arrivals().iter().filter(|a| a.refused()).count() as u32;
        assert_eq!(refused, 115 - expected, "{window}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_takes_effect_exactly_once() {
    let faults = Faults {
        lost_reply: 1.0,
        ..Faults::default()
    };
    let sandbox = sandbox(SandboxSpec {
        faults,
        ..SandboxSpec::default()
    });
    let (mut closed, mut silent) = (0, 0);
    for number in 0..20 {
        let body = invites(&[&format!("p{number}@x.y")]);
        let sent = send(&sandbox, request("POST", "/invites", &body));
        match tokio::time::timeout(Duration::from_secs(9), sent).await {
            Ok(reply) => closed += u32::from(reply.is_err()),
            Err(_) => silent += 1,
        }
    }
    assert!(
        closed > 0 && silent > 0 && closed + silent == 20,
        "{closed} {silent}"
    );
    let arrivals = sandbox.arrivals();
    assert_eq!(arrivals.len(), 20);
    assert!(arrivals.iter().all(|a| a.applied && a.status == 201));
    assert_eq!((sandbox.invites().len(), sandbox.version()), (20, 20));
    sandbox.set_faults(Faults::default());
    assert_eq!(
        data(&sandbox, "/invites").await["pagination"]["totalEntries"],
        20
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_request_arrives_after_the_client_has_left() {
    let late_by = Duration::from_secs(40);
    let faults = Faults {
        late: 1.0,
        late_by,
        ..Faults::default()
    };
    let base = Duration::from_millis(200);
    let arrive = Delay {
        base,
        jitter: Duration::ZERO,
    };
    let sandbox = sandbox(SandboxSpec {
        faults,
        arrive,
        ..SandboxSpec::default()
    });
    let clock = clock();
    let begin = clock.now();
    let sent = send(
        &sandbox,
        request("POST", "/invites", &invites(&["late@x.y"])),
    );
    assert!(
        tokio::time::timeout(Duration::from_secs(5), sent)
            .await
            .is_err()
    );
    assert!(sandbox.arrivals().is_empty() && sandbox.invites().is_empty());
    tokio::time::sleep_until((begin + base + late_by + Duration::from_millis(1)).into()).await;
    let arrivals = sandbox.arrivals();
    assert_eq!(arrivals.len(), 1);
    // Timers have a resolution of a millisecond.
    let arrived = arrivals[0].at - begin;
    assert!(arrived >= base + late_by && arrived <= base + late_by + Duration::from_millis(1));
    assert!(arrivals[0].applied);
    assert_eq!(sandbox.invites(), ["late@x.y"]);
}

#[tokio::test(start_paused = true)]
async fn delays_lie_on_both_sides_of_the_count() {
    let delay = |millis| Delay {
        base: Duration::from_millis(millis),
        jitter: Duration::ZERO,
    };
    let spec = SandboxSpec {
        arrive: delay(3_000),
        reply: delay(7_000),
        time_scale: 10,
        ..SandboxSpec::default()
    };
    let sandbox = sandbox(spec);
    let begin = clock().now();
    call(&sandbox, "GET", "/users", "").await;
    let near = |found: Duration, millis: u128| {
        assert!(
            (millis..millis + 3).contains(&found.as_millis()),
            "{found:?}"
        )
    };
    near(sandbox.arrivals()[0].at - begin, 300);
    near(clock().now() - begin, 1_000);
    // `echo` adds what it is asked for.
    let begin = clock().now();
    call(&sandbox, "GET", "/echo?delay=2000", "").await;
    near(clock().now() - begin, 3_000);
}

#[tokio::test(start_paused = true)]
async fn reads_lag_behind_writes() {
    let sandbox = sandbox(SandboxSpec {
        replication_lag: Duration::from_secs(2),
        ..SandboxSpec::default()
    });
    let write = call(&sandbox, "POST", "/invites", &invites(&["a@x.y"])).await;
    assert_eq!(
        (write.status.as_u16(), write.header("x-sandbox-version")),
        (201, "1")
    );
    let read = call(&sandbox, "GET", "/invites", "").await;
    assert_eq!(
        (
            read.header("x-sandbox-version"),
            &read.json()["data"]["invites"]
        ),
        ("0", &json!([]))
    );
    // Writes see the state as it is.
    assert_eq!(
        status(&sandbox, "POST", "/invites", &invites(&["a@x.y"])).await,
        422
    );
    assert_eq!((sandbox.version(), sandbox.visible_version()), (1, 0));
    tokio::time::advance(Duration::from_secs(2)).await;
    let read = call(&sandbox, "GET", "/invites", "").await;
    assert_eq!(
        (
            read.header("x-sandbox-version"),
            &read.json()["data"]["invites"]
        ),
        ("1", &json!(["a@x.y"]))
    );
}

#[tokio::test(start_paused = true)]
async fn other_users_take_their_part() {
    let sandbox = sandbox(SandboxSpec {
        other_users: 30.0,
        ..SandboxSpec::default()
    });
    let mut refused = 0;
    for _ in 0..600 {
        tokio::time::advance(Duration::from_secs(1)).await;
        refused +=
            u32::from(status(&sandbox, "PUT", "/users/user-00001/permissions", GRANT).await == 429);
    }
    let arrivals = sandbox.arrivals();
    let others = arrivals.iter().filter(|a| a.by == By::Other).count();
    assert!(
        (240..360).contains(&others),
        "{others} in ten minutes at 30 a minute"
    );
    // A minute of 60 of ours and some 30 of theirs is too much by a third.
    assert!((100..280).contains(&refused), "{refused}");
    assert_eq!(arrivals.iter().filter(|a| a.by == By::Gateway).count(), 600);
    // A long silence is caught up within bounds.
    tokio::time::advance(Duration::from_secs(86_400 * 30)).await;
    call(&sandbox, "PUT", "/users/user-00001/permissions", GRANT).await;
    assert!(sandbox.arrivals().len() < 600 + others + 11_000);
}

#[tokio::test(start_paused = true)]
async fn a_list_with_an_error_is_refused_whole_or_applied_up_to_it() {
    for (lists, effective) in [(ListMode::Whole, 0_usize), (ListMode::Partly, 1)] {
        let sandbox = sandbox(SandboxSpec {
            lists,
            users: 5,
            groups: 1,
            ..SandboxSpec::default()
        });
        let body = invites(&["a@x.y", "user-00001@example.com", "b@x.y"]);
        assert_eq!(status(&sandbox, "POST", "/invites", &body).await, 422);
        assert_eq!(sandbox.invites().len(), effective, "{lists:?}");
        let gone = "/users?userIds.0=user-00002&userIds.1=none&userIds.2=user-00003";
        assert_eq!(status(&sandbox, "DELETE", gone, "").await, 404);
        assert_eq!(sandbox.users().len(), 5 - effective, "{lists:?}");
        let before = sandbox.permissions("user-00001").unwrap().len();
        let grants = r#"{"permissions":[{"roleId":"source-admin","resources":[]},{"roleId":"king","resources":[]}]}"#;
        assert_eq!(
            status(&sandbox, "POST", "/users/user-00001/permissions", grants).await,
            404
        );
        assert_eq!(
            sandbox.permissions("user-00001").unwrap().len(),
            before + effective,
            "{lists:?}"
        );
        let emails = r#"{"emails":["user-00005@example.com","none@x.y"]}"#;
        let members = sandbox.members("group-00001").unwrap();
        assert_eq!(
            status(&sandbox, "PUT", "/group/group-00001/users", emails).await,
            404
        );
        let expected = if effective == 0 {
            members
        } else {
            vec!["user-00005@example.com".to_owned()]
        };
        assert_eq!(
            sandbox.members("group-00001").unwrap(),
            expected,
            "{lists:?}"
        );
        let applied = sandbox.arrivals().iter().filter(|a| a.applied).count();
        assert_eq!(applied, 4 * effective, "{lists:?}");
        assert_eq!(sandbox.version(), applied as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn faults_are_set_and_arrivals_listed_over_http() {
    let sandbox = sandbox(SandboxSpec::default());
    let anonymous = |method: &str, target: &str, body: &str| {
        let mut request = request(method, target, body);
        request.headers_mut().remove("authorization");
        request
    };
    let put = |body: &'static str| send(&sandbox, anonymous("PUT", "/_sandbox/faults", body));
    for wrong in [
        "{\"throttle\":2}",
        "{\"throttle\":\"x\"}",
        "{\"unknown\":1}",
        "[",
        "{\"late_by_ms\":-1}",
    ] {
        assert_eq!(put(wrong).await.unwrap().status, 422, "{wrong}");
    }
    let set = put(r#"{"throttle":1,"late_by_ms":70}"#).await.unwrap();
    assert_eq!(
        (&set.json()["throttle"], &set.json()["late_by_ms"]),
        (&json!(1.0), &json!(70))
    );
    let refused = call(&sandbox, "GET", "/users?pagination.count=1", "").await;
    assert_eq!(refused.status, 429);
    assert_error(&refused);
    assert!(
        refused.json()["errors"][0]["data"]["msBeforeNext"]
            .as_u64()
            .unwrap()
            <= 3_000
    );
    put(r#"{"throttle":0}"#).await.unwrap();
    call(&sandbox, "POST", "/invites", &invites(&["a@x.y"])).await;
    let listed = |target: &'static str| send(&sandbox, anonymous("GET", target, ""));
    let all = listed("/_sandbox/requests").await.unwrap().json();
    assert_eq!(all["next"], 2);
    let (first, second) = (&all["requests"][0], &all["requests"][1]);
    assert_eq!(
        (&first["operation"], &first["count"], &first["refused"]),
        (&json!("listUsers"), &json!("injected"), &json!(true))
    );
    assert_eq!(
        (&second["target"], &second["applied"], &second["status"]),
        (&json!("/invites"), &json!(true), &json!(201))
    );
    assert!(second["body"].as_str().unwrap().contains("a@x.y"));
    let since = listed("/_sandbox/requests?since=1").await.unwrap().json();
    assert_eq!(since["requests"].as_array().unwrap().len(), 1);
    assert_eq!(
        listed("/_sandbox/requests?since=x").await.unwrap().status,
        422
    );
    send(&sandbox, anonymous("DELETE", "/_sandbox/requests", ""))
        .await
        .unwrap();
    let none = listed("/_sandbox/requests").await.unwrap().json();
    assert_eq!(
        (none["next"].clone(), none["requests"].clone()),
        (json!(2), json!([]))
    );
    assert_eq!(listed("/_sandbox/other").await.unwrap().status, 404);
}

#[tokio::test(start_paused = true)]
async fn server_errors_say_nothing_about_the_effect() {
    let faults = Faults {
        server_error: 1.0,
        ..Faults::default()
    };
    let sandbox = sandbox(SandboxSpec {
        faults,
        ..SandboxSpec::default()
    });
    for number in 0..50 {
        let reply = call(
            &sandbox,
            "POST",
            "/invites",
            &invites(&[&format!("p{number}@x.y")]),
        )
        .await;
        assert!(reply.status.is_server_error());
        assert!(!reply.headers.contains_key("x-ratelimit-consumed"));
    }
    let arrivals = sandbox.arrivals();
    let count = |is: &dyn Fn(&Arrival) -> bool| arrivals.iter().filter(|a| is(a)).count();
    let balancer = count(&|a| a.count == CountResult::Uncounted && a.status != 500 && !a.applied);
    let before = count(&|a| a.count == CountResult::Admitted && a.status == 500 && !a.applied);
    let after = count(&|a| a.count == CountResult::Admitted && a.status == 500 && a.applied);
    assert!(
        balancer > 5 && before > 5 && after > 5,
        "{balancer} {before} {after}"
    );
    assert_eq!(balancer + before + after, 50);
    assert_eq!(sandbox.invites().len(), after);
}

#[tokio::test(start_paused = true)]
async fn one_seed_is_one_run() {
    async fn run(seed: u64) -> Vec<(Duration, u16)> {
        let jitter = Delay {
            base: Duration::ZERO,
            jitter: Duration::from_secs(1),
        };
        let faults = Faults {
            throttle: 0.2,
            server_error: 0.2,
            ..Faults::default()
        };
        let sandbox = sandbox(SandboxSpec {
            seed,
            arrive: jitter,
            faults,
            other_users: 50.0,
            ..SandboxSpec::default()
        });
        let begin = clock().now();
        for _ in 0..60 {
            call(&sandbox, "POST", "/users/user-00001/permissions", GRANT).await;
        }
        sandbox
            .arrivals()
            .iter()
            .map(|a| (a.at - begin, a.status))
            .collect()
    }
    assert_eq!(run(3).await, run(3).await);
    assert_ne!(run(3).await, run(4).await);
}

#[tokio::test(start_paused = true)]
async fn an_invite_accepted_outside_becomes_a_user() {
    let sandbox = sandbox(SandboxSpec {
        users: 1,
        ..SandboxSpec::default()
    });
    assert_eq!(sandbox.accept_invite("a@x.y"), None);
    call(&sandbox, "POST", "/invites", &invites(&["a@x.y"])).await;
    let id = sandbox.accept_invite("a@x.y").unwrap();
    assert_eq!(
        data(&sandbox, &format!("/users/{id}")).await["user"]["email"],
        "a@x.y"
    );
    assert_eq!((sandbox.invites().len(), sandbox.version()), (0, 2));
}

#[tokio::test]
async fn it_serves_a_socket_until_told_to_stop() {
    let sandbox = Sandbox::new(SandboxSpec::default(), Clock::system());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(Arc::clone(&sandbox).serve(listener, async {
        stopped.await.ok();
    }));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    // Two requests on one connection.
    for _ in 0..2 {
        client.ready().await.unwrap();
        let reply = client
            .send_request(request("GET", "/users", ""))
            .await
            .unwrap();
        assert_eq!(reply.status(), 200);
        reply.into_body().collect().await.unwrap();
    }
    stop.send(()).unwrap();
    serving.await.unwrap();
    // The open connection is dropped.
    connection.await.unwrap().ok();
    assert_eq!(sandbox.arrivals().len(), 2);
}
