//! Something in front of the API answers in its place: a captive portal, a login page. Its page is
//! a 200 or a redirect, in HTML, and without the API's rate headers.

use super::support::scripted::{Script, Seen, Step, answer, field};
use super::support::{Answer, Setup, World, all, request, with};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::Full;
use segment_gateway::sandbox::SandboxSpec;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const PAGE: &str = "<html><title>Sign in to the network</title></html>";
const USER: &str = "/users/user-00001";
const GRANT: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;

/// The page of a portal.
fn page(status: u16) -> Response<Bytes> {
    let mut page = answer(status, PAGE);
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    page.headers_mut().insert("content-type", html);
    page
}

/// An API in front of which a portal stands for its first `pages` requests.
fn behind(pages: usize, page: impl Fn() -> Response<Bytes> + Send + Sync + 'static) -> Arc<Script> {
    Script::new(move |seen: &Seen, n| match &seen.method {
        _ if n < pages => Step::Answer(page()),
        &Method::POST => Step::Answer(answer(201, r#"{"data":{"emails":[]}}"#)),
        _ => Step::Answer(answer(200, r#"{"data":{}}"#)),
    })
}

fn write(method: Method) -> Request<Full<Bytes>> {
    let target = format!("{USER}/permissions");
    request(method, &target, "a", GRANT)
}

fn assert_unknown(answer: &Answer) {
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(answer.error_type(), "gateway-outcome-unknown", "{answer:?}");
    let said = answer.text();
    assert!(said.contains("could not be read"), "{said}");
}

fn is_hit(answer: &Answer) -> bool {
    answer.header("cache-status").contains("; hit;")
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_the_page_and_the_next_one_asks_the_api() {
    let script = behind(2, || page(200));
    let world = script.world();
    for _ in 0..2 {
        let shown = world.get(USER, "a").await;
        assert_eq!((shown.status.as_u16(), shown.text()), (200, PAGE.into()));
        assert_eq!(shown.header("content-type"), "text/html; charset=utf-8");
        let status = shown.cache_status();
        assert!(status.ends_with("detail=media-type"), "{status}");
    }
    let found = world.get(USER, "a").await;
    assert_eq!(found.json()["data"], serde_json::json!({}));
    assert!(is_hit(&world.get(USER, "a").await));
    assert_eq!(script.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_got_a_page_is_no_success() {
    for status in [200, 201, 302, 303, 307] {
        let script = behind(1, move || page(status));
        let world = script.world();
        assert_unknown(&world.send(write(Method::POST)).await);
        assert_eq!(script.count(), 1, "{status}: a POST is not sent again");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_write_is_sent_again_until_the_api_answers() {
    let script = behind(2, || page(200));
    let world = script.world();
    let done = world.send(write(Method::PUT)).await;
    assert_eq!(done.json()["data"], serde_json::json!({}), "{done:?}");
    assert_eq!(script.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_it_may_have_changed_is_not_shown_from_the_store() {
    let script = Script::new(|seen: &Seen, n| match &seen.method {
        &Method::POST => Step::Answer(page(200)),
        _ => Step::Answer(answer(200, &n.to_string())),
    });
    let world = script.world();
    world.get(USER, "a").await;
    assert!(is_hit(&world.get(USER, "a").await));
    assert_unknown(&world.send(write(Method::POST)).await);
    assert!(!is_hit(&world.get(USER, "a").await));
}

#[tokio::test(start_paused = true)]
async fn a_deferred_or_keyed_write_is_recorded_as_unknown() {
    let script = behind(2, || page(200));
    let world = script.world();
    let deferred = with(write(Method::POST), "prefer", "respond-async");
    let accepted = world.send(deferred).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let location = accepted.header("location");
    sleep(Duration::from_secs(1)).await;
    let shown = world.get(location, "a").await.json()["data"]["write"].clone();
    assert_eq!(shown["state"], "unknown", "{shown}");
    let other = request(Method::POST, "/users/user-00002/permissions", "a", GRANT);
    for _ in 0..2 {
        let keyed = with(other.clone(), "idempotency-key", "k");
        let heard = world.send(keyed).await;
        assert_eq!(heard.error_type(), "gateway-outcome-unknown", "{heard:?}");
    }
    assert_eq!(script.count(), 2, "the same key is not sent again");
}

#[tokio::test(start_paused = true)]
async fn no_member_of_a_batch_gets_the_page() {
    let script = Script::new(|_, _| Step::Later(Duration::from_secs(1), page(200)));
    let world = script.world();
    let invite = |n: usize| {
        let body = format!(r#"{{"invites":[{{"email":"guest-{n}@x.y"}}]}}"#);
        request(Method::POST, "/invites", "a", &body)
    };
    let answers = all(&world, (0..8).map(invite).collect()).await;
    answers.iter().for_each(assert_unknown);
    assert!(script.count() < 8, "some were batched: {}", script.count());
    let text = |seen: Seen| String::from_utf8_lossy(&seen.body).into_owned();
    let sent: Vec<String> = script.seen().into_iter().map(text).collect();
    for n in 0..8 {
        let guest = format!("guest-{n}@");
        let times = sent.iter().filter(|body| body.contains(&guest)).count();
        assert_eq!(times, 1, "{guest} {sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn writes_wait_behind_the_breaker_instead_of_being_lost_to_a_portal() {
    // Each of eight writes gets a page. The others are sent once the portal is gone.
    let script = behind(8, || page(200));
    let world = script.world();
    let mut locations = Vec::new();
    for user in 1..=20 {
        let target = format!("/users/user-{user:05}/permissions");
        let post = request(Method::POST, &target, "a", GRANT);
        let accepted = world.send(with(post, "prefer", "respond-async")).await;
        locations.push(accepted.header("location").to_owned());
    }
    sleep(Duration::from_secs(120)).await;
    let mut states = Vec::new();
    for location in &locations {
        let shown = world.get(location, "a").await.json();
        states.push(shown["data"]["write"]["state"].as_str().unwrap().to_owned());
    }
    let count = |state: &str| states.iter().filter(|found| *found == state).count();
    assert!(count("unknown") >= 8, "{states:?}");
    assert_eq!(count("unknown") + count("succeeded"), 20, "{states:?}");
    assert!(count("succeeded") >= 8, "{states:?}");
}

#[tokio::test(start_paused = true)]
async fn what_has_the_apis_rate_headers_or_no_media_type_is_the_apis() {
    let rated = || {
        let rated = field(page(200), "x-ratelimit-consumed", "1");
        field(rated, "x-ratelimit-remaining", "59")
    };
    let untyped = || {
        let mut untyped = answer(201, r#"{"data":{}}"#);
        untyped.headers_mut().remove("content-type");
        untyped
    };
    for (script, status) in [(behind(1, rated), 200), (behind(1, untyped), 201)] {
        let world = script.world();
        let done = world.send(write(Method::POST)).await;
        assert_eq!(done.status, status, "{done:?}");
    }
}

/// A path that the route table does not know may return anything.
#[tokio::test(start_paused = true)]
async fn nothing_is_expected_of_an_unknown_operation() {
    let script = Script::new(|_, _| Step::Answer(page(200)));
    let world: Arc<World> = script.world();
    let done = world.write(Method::POST, "/v9/exports", "a", "{}").await;
    assert_eq!((done.status.as_u16(), done.text()), (200, PAGE.into()));
}

/// A page in place of `GET /` does not admit the token of deferred writes: the API is asked again.
#[tokio::test(start_paused = true)]
async fn a_page_does_not_say_that_the_api_accepts_a_token() {
    let script = Script::new(|seen: &Seen, n| match seen.target.as_str() {
        "/" if n == 0 => Step::Answer(page(200)),
        _ => Step::Answer(answer(401, "{}")),
    });
    let mut setup = Setup::new(SandboxSpec::default());
    setup.config.journal.workspaces = true;
    let world = script.world_of(setup);
    let defer = || world.send(with(write(Method::POST), "prefer", "respond-async"));
    // Without an answer about the token the write is accepted, as after a failure of the API.
    assert_eq!(defer().await.status, 202);
    sleep(Duration::from_secs(20)).await;
    let refused = defer().await;
    assert_eq!(refused.error_type(), "gateway-token-refused", "{refused:?}");
}
