//! Other spellings of a path or an address that a lenient API may take for the same: they draw on
//! one budget, and writes wait for each other. And the spellings of a page of a list.

use super::support::scripted::{Script, Step, answer};
use super::support::{Answer, Setup, World, request};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::sandbox::SandboxSpec;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the API takes to answer.
const TAKES: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
const NOTHING: &str = r#"{"permissions":[]}"#;

/// `/users/{user}/permissions` as it is documented, and as a lenient server may read it.
fn spellings(user: &str) -> [String; 8] {
    [
        format!("/users/{user}/permissions"),
        format!("/users/{user}/permissions/"),
        format!("//users/{user}/permissions"),
        format!("/users//{user}//permissions"),
        format!("/users/{user}/%70ermissions"),
        format!("/USERS/{user}/Permissions"),
        format!("/users/./{user}/x/../permissions"),
        format!("/users/{user}%2Fpermissions;v=1"),
    ]
}

fn put(target: &str) -> Request<Full<Bytes>> {
    request(Method::PUT, target, "a", NOTHING)
}

/// An API that takes its time, and a gateway in front of it with this limit where 60 are documented.
fn slow_api(limit: &str) -> (Arc<Script>, Arc<World>) {
    let script = Script::new(|_, _| Step::Later(TAKES, answer(200, "{}")));
    let routes = include_str!("../../config/segment.toml");
    let setup = Setup {
        routes: Some(routes.replace("\"60 per 1m\"", &format!("\"{limit}\""))),
        ..Setup::new(SandboxSpec::default())
    };
    let world = script.world_of(setup);
    (script, world)
}

/// Sends these one shortly after the other; their answers.
async fn in_turn(world: &Arc<World>, asks: Vec<Request<Full<Bytes>>>) -> Vec<Answer> {
    let mut asked = Vec::new();
    for ask in asks {
        asked.push(world.spawn(ask));
        sleep(Duration::from_millis(1)).await;
    }
    let mut answers = Vec::new();
    for ask in asked {
        answers.push(ask.await.unwrap());
    }
    answers
}

/// What arrived, in order, and asserts that each arrived when the one before it was answered.
fn one_by_one(script: &Script) -> Vec<String> {
    let seen = script.seen();
    for pair in seen.windows(2) {
        let apart = pair[1].at - pair[0].at;
        assert!(apart >= TAKES, "{} {apart:?}", pair[1].target);
    }
    seen.into_iter().map(|seen| seen.target).collect()
}

#[tokio::test(start_paused = true)]
async fn another_spelling_of_a_path_draws_on_the_budget_of_the_operation() {
    let (script, world) = slow_api("3 per 1m");
    let began = Instant::now();
    // One in each lane: nothing but the budget holds them up.
    let targets = (0..8).map(|n| spellings(&format!("u{n}"))[n].clone());
    let targets: Vec<_> = targets.collect();
    let asks = targets.iter().map(|target| put(target)).collect();
    for answer in in_turn(&world, asks).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let seen = script.seen();
    let mut arrived: Vec<_> = seen.iter().map(|seen| seen.target.clone()).collect();
    let within = |from: Duration| {
        let at = seen.iter().map(|seen| seen.at - began);
        at.filter(|at| *at >= from && *at < from + MINUTE).count()
    };
    for one in &seen {
        let from = one.at - began;
        assert!(within(from) <= 3, "{} from {from:?}", within(from));
    }
    arrived.sort_unstable();
    let mut sent = targets;
    sent.sort_unstable();
    assert_eq!(arrived, sent, "sent on byte for byte");
}

#[tokio::test(start_paused = true)]
async fn writes_to_one_user_wait_for_each_other_however_the_path_is_spelled() {
    let (script, world) = slow_api("60 per 1m");
    let targets = spellings("u1");
    let asks = targets.iter().map(|target| put(target)).collect();
    for answer in in_turn(&world, asks).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(one_by_one(&script), targets);
}

#[tokio::test(start_paused = true)]
async fn writes_to_another_user_do_not_wait() {
    let (script, world) = slow_api("60 per 1m");
    let targets = ["/users/u1/permissions/", "//users/u2/permissions"];
    let began = Instant::now();
    in_turn(&world, targets.map(put).into()).await;
    assert!(began.elapsed() < TAKES + TAKES / 2, "{:?}", began.elapsed());
    assert_eq!(script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn writes_about_one_address_wait_for_each_other_however_it_is_written() {
    let addresses = [
        "jos\u{e9}@example.com",
        " JOSE\u{301}@Example.com",
        "Jos\u{e9}@example.com\u{a0}",
        "jose\u{301}@example.com",
    ];
    let invite = |address: &str| {
        let body = serde_json::json!({ "invites": [{ "email": address }] }).to_string();
        request(Method::POST, "/invites", "a", &body)
    };
    let add = |address: &str| {
        let body = serde_json::json!({ "emails": [address] }).to_string();
        request(Method::POST, "/groups/g1/users", "a", &body)
    };
    let (script, world) = slow_api("60 per 1m");
    let asks = vec![
        invite(addresses[0]),
        add(addresses[1]),
        invite(addresses[2]),
        add(addresses[3]),
    ];
    for answer in in_turn(&world, asks).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let (invites, group) = ("/invites", "/groups/g1/users");
    assert_eq!(one_by_one(&script), [invites, group, invites, group]);
    // Of one operation they would else travel together.
    let (script, world) = slow_api("60 per 1m");
    in_turn(&world, addresses.map(invite).into()).await;
    assert_eq!(one_by_one(&script), [invites; 4]);
}

/// The loop of Segment's Python SDK, which writes the page as `quote(json.dumps(page))`.
#[tokio::test(start_paused = true)]
async fn a_list_is_read_page_by_page_as_pythons_sdk_asks_for_it() {
    let world = World::new(SandboxSpec {
        users: 5,
        ..SandboxSpec::default()
    });
    let quoted = |text: &str| {
        // `quote` leaves the unreserved characters and the slash.
        let is_left = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        let encode = |b: u8| match is_left(b) {
            true => char::from(b).to_string(),
            false => format!("%{b:02X}"),
        };
        text.bytes().map(encode).collect::<String>()
    };
    let mut cursor: Option<String> = None;
    let (mut found, mut again) = (Vec::new(), Vec::new());
    for page in 1..=3 {
        let json = match &cursor {
            None => r#"{"count": 2}"#.to_owned(),
            Some(cursor) => format!(r#"{{"cursor": "{cursor}", "count": 2}}"#),
        };
        let target = format!("/users?pagination={}", quoted(&json));
        let answer = world.get(&target, "a").await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let data = &answer.json()["data"];
        let users = data["users"].as_array().unwrap();
        found.extend(users.iter().map(|user| user["id"].clone()));
        // The same page in the reference's spelling is the same response.
        let cursors = cursor
            .iter()
            .map(|cursor| format!("&pagination.cursor={cursor}"));
        let other = format!("/users?pagination.count=2{}", cursors.collect::<String>());
        again.push(world.get(&other, "a").await);
        assert_eq!(again.last().unwrap().body, answer.body, "{other}");
        cursor = data["pagination"]["next"].as_str().map(ToOwned::to_owned);
        assert_eq!(
            cursor.is_none(),
            page == 3,
            "the loop ends after three pages"
        );
    }
    let all: Vec<serde_json::Value> = (1..=5).map(|n| format!("user-{n:05}").into()).collect();
    assert_eq!(found, all);
    let are_hits = |answer: &Answer| answer.header("cache-status").contains("; hit;");
    assert!(again.iter().all(are_hits), "{again:?}");
    assert_eq!(world.sandbox.arrivals().len(), 3);
}
