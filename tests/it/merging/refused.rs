//! A batch that the API refuses: each member gets the API's own answer to its own request.

use super::super::support::scripted::{Script, Seen, Step, answer};
use super::super::support::{Answer, World, all, request, with};
use super::{invite, uninvite};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the API takes.
const TAKES: Duration = Duration::from_millis(200);

/// The invites of an API that validates a list as a whole, with their roles. It counts the writes.
#[derive(Default)]
struct Invites {
    roles: BTreeMap<String, Value>,
    writes: usize,
}

impl Invites {
    fn with(emails: &[&str]) -> Arc<Mutex<Self>> {
        let roles = emails
            .iter()
            .map(|email| ((*email).into(), json!("viewer")));
        Arc::new(Mutex::new(Self {
            roles: roles.collect(),
            writes: 0,
        }))
    }

    fn answer(&mut self, seen: &Seen) -> (u16, Value) {
        let (method, target) = (seen.method.clone(), &*seen.target);
        if method == Method::GET {
            let invites: Vec<_> = self.roles.keys().collect();
            return (
                200,
                json!({ "data": { "invites": invites, "pagination": {} } }),
            );
        }
        self.writes += 1;
        if method == Method::DELETE {
            let emails: Vec<String> = emails_of(target);
            if !emails.iter().all(|email| self.roles.contains_key(email)) {
                return (404, json!({ "errors": [{ "type": "NotFound" }] }));
            }
            emails
                .iter()
                .for_each(|email| drop(self.roles.remove(email)));
            return (200, json!({ "data": { "status": "SUCCESS" } }));
        }
        let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let invites = body["invites"].as_array().expect("a list");
        let email = |invite: &Value| invite["email"].as_str().expect("a string").to_owned();
        if invites.iter().any(|invite| !email(invite).contains('@')) {
            return (422, json!({ "errors": [{ "type": "Invalid" }] }));
        }
        if invites
            .iter()
            .any(|invite| self.roles.contains_key(&email(invite)))
        {
            return (409, json!({ "errors": [{ "type": "Conflict" }] }));
        }
        for invite in invites {
            self.roles.insert(email(invite), invite["role"].clone());
        }
        let emails: Vec<_> = invites.iter().map(email).collect();
        (201, json!({ "data": { "emails": emails } }))
    }
}

fn emails_of(target: &str) -> Vec<String> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let values = query.split('&').filter_map(|pair| pair.split_once('='));
    values.map(|(_, value)| value.replace("%40", "@")).collect()
}

fn api(invites: &Arc<Mutex<Invites>>) -> Arc<Script> {
    let invites = invites.clone();
    Script::new(move |seen, _| {
        let (status, body) = invites.lock().expect("not poisoned").answer(seen);
        Step::Later(TAKES, answer(status, &body.to_string()))
    })
}

/// Four that leave at once, so that what comes after them waits together.
fn ahead() -> impl Iterator<Item = Request<Full<Bytes>>> {
    (0..4).map(|n| invite(&format!("ahead-{n}@x.com")))
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_invite_that_was_there_before_is_not_taken_for_the_effect_of_a_refused_batch() {
    let invites = Invites::with(&["old@x.com"]);
    let world = api(&invites).world();
    let body = r#"{"invites":[{"email":"old@x.com","role":"admin"}]}"#;
    let mut asks: Vec<_> = ahead().collect();
    asks.push(request(Method::POST, "/invites", "a", body));
    asks.push(invite("nonsense"));
    let answers = all(&world, asks).await;
    assert_eq!(statuses(&answers)[4..], [409, 422], "{answers:#?}");
    let roles = &invites.lock().unwrap().roles;
    assert_eq!(roles["old@x.com"], "viewer");
}

#[tokio::test(start_paused = true)]
async fn a_deferred_write_of_a_refused_batch_ends_as_its_own_request_does() {
    let invites = Invites::with(&["old@x.com"]);
    let world = api(&invites).world();
    let mut locations = Vec::new();
    let emails = [
        "a@x.com",
        "b@x.com",
        "c@x.com",
        "d@x.com",
        "old@x.com",
        "nonsense",
        "e@x.com",
    ];
    for email in emails {
        let answer = world
            .send(with(invite(email), "prefer", "respond-async"))
            .await;
        assert_eq!(answer.status, 202, "{answer:?}");
        locations.push(answer.header("location").to_owned());
    }
    let mut states = Vec::new();
    for location in &locations {
        states.push(loop {
            let write = world.get(location, "a").await.json()["data"]["write"].clone();
            if let Some(status) = write["answer"]["status"].as_u64() {
                break (write["state"].as_str().unwrap().to_owned(), status);
            }
            sleep(Duration::from_millis(50)).await;
        });
    }
    let expected = [201, 201, 201, 201, 409, 422, 201].map(|status| {
        let state = if status == 201 { "succeeded" } else { "failed" };
        (state.to_owned(), status)
    });
    assert_eq!(states, expected);
}

/// 403 says nothing of the others: the API may refuse one element for its owner's sake.
#[tokio::test(start_paused = true)]
async fn every_refusal_of_a_batch_is_divided_except_that_of_the_token() {
    for status in [400, 403, 404, 405, 408, 409, 410, 413, 415, 422, 431, 451] {
        let script = Script::new(move |seen, _| {
            let wrong = String::from_utf8_lossy(&seen.body).contains("wrong@");
            let status = if wrong { status } else { 201 };
            Step::Later(TAKES, answer(status, &echo(&seen.body)))
        });
        let world = script.world();
        let mut asks: Vec<_> = ahead().collect();
        asks.extend(["x@x.com", "wrong@x.com", "y@x.com"].map(invite));
        let answers = all(&world, asks).await;
        assert_eq!(statuses(&answers)[4..], [201, status, 201], "{answers:#?}");
    }
    let script = Script::new(|_, before| match before {
        0..4 => Step::Later(TAKES, answer(201, r#"{"data":{"emails":[]}}"#)),
        _ => Step::Later(TAKES, answer(401, "{}")),
    });
    let world = script.world();
    let mut asks: Vec<_> = ahead().collect();
    asks.extend(["x@x.com", "y@x.com"].map(invite));
    assert_eq!(statuses(&all(&world, asks).await)[4..], [401, 401]);
    assert_eq!(script.count(), 5);
}

/// A part of a list may have taken effect although the API refuses it: a list that was stored before
/// is not shown after it, although none of its members alone could have changed anything.
#[tokio::test(start_paused = true)]
async fn a_refused_batch_invalidates_what_a_part_of_it_may_have_changed() {
    for (merged, hits) in [(false, true), (true, false)] {
        let script = Script::new(|seen, _| match seen.method {
            Method::GET => Step::Later(TAKES, answer(200, r#"{"data":{"invites":[]}}"#)),
            _ => Step::Later(TAKES, answer(403, "{}")),
        });
        let world = script.world();
        world.get("/invites", "a").await;
        let mut asks: Vec<_> = ahead().collect();
        if merged {
            asks.extend(["x@x.com", "y@x.com"].map(invite));
        }
        let count = asks.len();
        assert_eq!(statuses(&all(&world, asks).await), vec![403; count]);
        let lists = |seen: &Seen| seen.body.iter().filter(|byte| **byte == b'@').count() > 1;
        assert_eq!(script.seen().iter().any(lists), merged);
        let shown = world.get("/invites", "a").await;
        let status = shown.header("cache-status");
        assert_eq!(status.contains("; hit"), hits, "{status}");
    }
}

/// The status says it all, also where the text is longer than what is read.
#[tokio::test(start_paused = true)]
async fn a_refusal_need_not_be_read_to_its_end() {
    let script = Script::new(|seen, _| {
        let several = seen.body.iter().filter(|byte| **byte == b'@').count() > 1;
        let refusal = || answer(422, &"x".repeat(5 << 20));
        match several {
            true => Step::Later(TAKES, refusal()),
            false => Step::Later(TAKES, answer(201, &echo(&seen.body))),
        }
    });
    let world = script.world();
    let mut asks: Vec<_> = ahead().collect();
    asks.extend(["x@x.com", "y@x.com"].map(invite));
    assert_eq!(statuses(&all(&world, asks).await), [201; 6]);
}

/// What the API answers to a list that it repeats.
fn echo(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    let invites = body["invites"].as_array().expect("a list");
    let emails: Vec<_> = invites.iter().map(|invite| &invite["email"]).collect();
    json!({ "data": { "emails": emails } }).to_string()
}

#[tokio::test(start_paused = true)]
async fn deletions_of_what_is_there_and_what_is_not_are_not_mixed_up() {
    let invites = Invites::with(&["here-1@x.com", "here-2@x.com"]);
    let world = api(&invites).world();
    let mut asks: Vec<_> = ahead().collect();
    assert_eq!(statuses(&all(&world, asks.split_off(0)).await), [201; 4]);
    asks.extend((0..4).map(|n| uninvite(&format!("ahead-{n}@x.com"))));
    let emails = [
        "gone-1@x.com",
        "here-1@x.com",
        "gone-2@x.com",
        "here-2@x.com",
    ];
    asks.extend(emails.map(uninvite));
    let answers = all(&world, asks).await;
    assert_eq!(
        statuses(&answers)[4..],
        [404, 200, 404, 200],
        "{answers:#?}"
    );
    assert!(invites.lock().unwrap().roles.is_empty());
}

/// An API that echoes some elements only.
#[tokio::test(start_paused = true)]
async fn an_answer_never_lists_the_elements_of_another_caller() {
    for listed in [
        json!(["x@x.com"]),
        json!(["y@x.com", "X@x.com"]),
        json!([{ "email": "x@x.com" }, { "email": "y@x.com" }]),
        json!("x@x.com, y@x.com"),
    ] {
        let echoed = json!({ "data": { "emails": listed } }).to_string();
        let script = Script::new(move |_, before| match before {
            0..4 => Step::Later(TAKES, answer(201, r#"{"data":{"emails":[]}}"#)),
            _ => Step::Later(TAKES, answer(201, &echoed)),
        });
        let world = script.world();
        let mut asks: Vec<_> = ahead().collect();
        asks.extend(["x@x.com", "y@x.com"].map(invite));
        let answers = all(&world, asks).await;
        for (answer, other) in answers[4..].iter().zip(["y@x", "x@x"]) {
            let shown = answer.json().to_string().to_lowercase();
            assert!(!shown.contains(other), "{listed}: {answer:?}");
        }
    }
}

/// After an answer that can be attributed to nobody, writes are sent alone for a while.
#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_attributed_ends_merging_for_a_while() {
    let script = Script::new(|seen, _| {
        let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        let answered = json!({ "data": { "emails": body["invites"] } });
        Step::Later(TAKES, answer(201, &answered.to_string()))
    });
    let world = script.world();
    let mut asks: Vec<_> = ahead().collect();
    asks.extend(["x@x.com", "y@x.com"].map(invite));
    let answers = all(&world, asks).await;
    for answer in &answers[4..] {
        assert_eq!(answer.error_type(), "gateway-outcome-unknown", "{answer:?}");
    }
    assert_eq!(script.count(), 5);
    let later = all(
        &world,
        (0..8)
            .map(|n| invite(&format!("later-{n}@x.com")))
            .collect(),
    )
    .await;
    assert_eq!(statuses(&later), [201; 8]);
    assert_eq!(script.count(), 13);
}

/// B names an invite that is gone; A and C hear as soon as their own requests are answered, and one
/// whose time is up hears that.
#[tokio::test(start_paused = true)]
async fn members_of_a_refused_batch_keep_their_own_deadlines() {
    let invites = Invites::with(&["a@x.com", "c@x.com", "d@x.com"]);
    let world = api(&invites).world();
    // All but seven slots of the minute are used.
    for n in 0..53 {
        assert_eq!(
            world.send(uninvite(&format!("no-{n}@x.com"))).await.status,
            404
        );
    }
    let ahead: Vec<_> = (0..4)
        .map(|n| world.spawn(uninvite(&format!("ahead-{n}@x.com"))))
        .collect();
    tokio::task::yield_now().await;
    let began = Instant::now();
    let wait = |email: &str| world.spawn(with(uninvite(email), "prefer", "wait=2"));
    let members = ["a@x.com", "b@x.com", "c@x.com", "d@x.com"].map(wait);
    let mut answers = Vec::new();
    for member in members {
        answers.push(member.await.unwrap());
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(statuses(&answers), [200, 404, 504, 504], "{answers:#?}");
    assert_eq!(answers[3].error_type(), "gateway-outcome-unknown");
    assert!(invites.lock().unwrap().roles.contains_key("d@x.com"));
    for ask in ahead {
        assert_eq!(ask.await.unwrap().status, 404);
    }
}

/// Against its documents this API applies the elements of a list that it refuses.
#[tokio::test(start_paused = true)]
async fn a_member_of_a_refused_batch_that_does_not_leave_again_hears_that_it_was_sent() {
    let applied = Arc::new(Mutex::new(BTreeSet::new()));
    let applies = applied.clone();
    let script = Script::new(move |seen, _| {
        let wrong = String::from_utf8_lossy(&seen.body).contains("wrong@");
        let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
        for invite in body["invites"].as_array().expect("a list") {
            applies.lock().unwrap().insert(invite["email"].to_string());
        }
        let status = if wrong { 422 } else { 201 };
        Step::Later(TAKES, answer(status, &echo(&seen.body)))
    });
    let world = script.world();
    // All but six slots of the minute are used.
    for n in 0..54 {
        let email = format!("early-{n}@x.com");
        assert_eq!(world.send(invite(&email)).await.status, 201);
    }
    let ahead: Vec<_> = ahead().map(|ask| world.spawn(ask)).collect();
    tokio::task::yield_now().await;
    let wait = |email: &str| world.spawn(with(invite(email), "prefer", "wait=2"));
    let members = ["x@x.com", "wrong@x.com", "y@x.com"].map(wait);
    let mut answers = Vec::new();
    for member in members {
        answers.push(member.await.unwrap());
    }
    assert_eq!(answers[0].status, 201, "{answers:#?}");
    assert!(applied.lock().unwrap().contains("\"y@x.com\""));
    for heard in &answers[1..] {
        assert_eq!(heard.error_type(), "gateway-outcome-unknown", "{heard:?}");
        let error = heard.json()["errors"][0].clone();
        assert_eq!(error["data"], json!({ "mayRetry": false, "sent": true }));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("a list that the API refused"), "{message}");
    }
    for ask in ahead {
        assert_eq!(ask.await.unwrap().status, 201);
    }
}

/// Half of the writes are wrong: they cost no more than a fifth above what they would cost apart.
#[tokio::test(start_paused = true)]
async fn refused_batches_cost_little() {
    for wrong_of_ten in [1, 3, 5] {
        let invites = Invites::with(&[]);
        let script = api(&invites);
        let world: Arc<World> = script.world();
        let email = |n: usize| match n % 10 < wrong_of_ten {
            true => format!("nonsense-{n}"),
            false => format!("guest-{n}@x.com"),
        };
        let answers = all(&world, (0..50).map(|n| invite(&email(n))).collect()).await;
        for (n, answer) in answers.iter().enumerate() {
            let expected = if n % 10 < wrong_of_ten { 422 } else { 201 };
            assert_eq!(answer.status, expected, "{n}: {answer:?}");
        }
        assert!(script.count() <= 60, "{wrong_of_ten}: {}", script.count());
    }
}

/// A value that some servers take for a list of its own.
#[tokio::test(start_paused = true)]
async fn a_list_within_a_value_travels_alone() {
    let invites = Invites::with(&[]);
    let script = api(&invites);
    let world = script.world();
    let mut asks: Vec<_> = ahead().collect();
    assert_eq!(statuses(&all(&world, asks.split_off(0)).await), [201; 4]);
    let nested = "/invites?emails=emails.0%3Dx%40x.com";
    asks.extend((0..4).map(|n| uninvite(&format!("ahead-{n}@x.com"))));
    asks.push(request(Method::DELETE, nested, "a", ""));
    asks.push(uninvite("y@x.com"));
    // The same element, so it comes after the value that may name it.
    asks.push(uninvite("x@x.com"));
    all(&world, asks).await;
    let targets: Vec<_> = script.seen()[8..]
        .iter()
        .map(|seen| seen.target.clone())
        .collect();
    assert_eq!(targets.len(), 3, "{targets:?}");
    let place = |wanted: &str| targets.iter().position(|target| target == wanted);
    let (own, same) = (place(nested), place("/invites?emails.0=x%40x.com"));
    assert!(own.is_some() && own < same, "{targets:?}");
}
