//! What the answer to a batch shows to its members: their own elements alone, in its fields as well.

use super::super::support::scripted::{Script, Seen, Step, answer, field};
use super::super::support::{World, all, with};
use super::{guest, invite, merged};
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const TAKES: Duration = Duration::from_millis(200);

fn emails(seen: &Seen) -> Vec<String> {
    let body: Value = serde_json::from_slice(&seen.body).expect("JSON");
    let invites = body["invites"].as_array().expect("a list");
    let email = |invite: &Value| invite["email"].as_str().expect("a string").to_owned();
    invites.iter().map(email).collect()
}

fn created(emails: &[String]) -> Response<Bytes> {
    answer(201, &json!({ "data": { "emails": emails } }).to_string())
}

/// Names all elements wherever a field can.
fn telling(seen: &Seen) -> Response<Bytes> {
    let emails = emails(seen);
    let (plain, coded) = (emails.join(","), emails.join(",").replace('@', "%40"));
    let mut whole = created(&emails);
    for (name, value) in [
        ("location", format!("/invites?emails={plain}")),
        ("content-location", format!("/invites?emails={coded}")),
        ("link", format!("</invites?emails={coded}>; rel=\"self\"")),
        ("x-created", plain.clone()),
        ("set-cookie", format!("last={coded}")),
        ("etag", format!("\"{coded}\"")),
        ("cache-control", "no-store".into()),
        ("x-ratelimit-limit", "60".into()),
    ] {
        whole = field(whole, name, &value);
    }
    whole
}

#[tokio::test(start_paused = true)]
async fn no_field_names_an_element_of_another_caller() {
    let script = Script::new(|seen, _| Step::Later(TAKES, telling(seen)));
    let world = script.world();
    let answers = all(&world, (10..20).map(|n| invite(&guest(n))).collect()).await;
    for (n, answer) in (10..).zip(&answers) {
        assert_eq!(answer.status, 201, "{answer:?}");
        let shown = format!("{answer:?}");
        let others =
            (10..20).filter(|other| *other != n && shown.contains(&format!("guest-{other}")));
        assert_eq!(others.count(), 0, "{n}: {shown}");
        let is_merged = merged(answer) > 1;
        assert_eq!(is_merged, n >= 14, "{n}");
        assert_eq!(answer.headers.contains_key("location"), !is_merged, "{n}");
        for kept in ["content-type", "cache-control"] {
            assert!(answer.headers.contains_key(kept), "{n} {kept}: {answer:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nor_does_a_field_that_is_recorded() {
    let script = Script::new(|seen, _| match seen.method.as_str() {
        "POST" => Step::Later(TAKES, telling(seen)),
        _ => Step::Answer(answer(200, "{}")),
    });
    let world = script.world();
    let mut locations = Vec::new();
    for n in 10..20 {
        let accepted = world
            .send(with(invite(&guest(n)), "prefer", "respond-async"))
            .await;
        locations.push(accepted.header("location").to_owned());
    }
    sleep(Duration::from_secs(5)).await;
    for (n, location) in (10..).zip(&locations) {
        let write = world.get(location, "a").await.json()["data"]["write"].clone();
        assert_eq!(write["state"], "succeeded", "{write}");
        let shown = write.to_string();
        let others =
            (10..20).filter(|other| *other != n && shown.contains(&format!("guest-{other}")));
        assert_eq!(others.count(), 0, "{n}: {shown}");
    }
    assert!(
        script
            .seen()
            .iter()
            .filter(|seen| seen.method == "POST")
            .count()
            < 10
    );
}

/// What no member is shown makes stale what is stored all the same.
#[tokio::test(start_paused = true)]
async fn a_location_that_is_not_shown_makes_stale_what_it_names() {
    let group = "/groups/group-00001";
    for named in [true, false] {
        let script = Script::new(move |seen, _| match seen.method.as_str() {
            "GET" => Step::Answer(answer(200, r#"{"data":{}}"#)),
            _ => {
                let emails = emails(seen);
                let whole = created(&emails);
                let tells = named && emails.len() > 1;
                Step::Later(
                    TAKES,
                    if tells {
                        field(whole, "location", group)
                    } else {
                        whole
                    },
                )
            }
        });
        let world = script.world();
        assert_eq!(world.get(group, "a").await.status, 200);
        let hit = world.get(group, "a").await;
        assert!(hit.cache_status().contains("hit"), "{}", hit.cache_status());
        let answers = all(&world, (10..20).map(|n| invite(&guest(n))).collect()).await;
        assert!(merged(&answers[9]) > 1);
        let after = world.get(group, "a").await.cache_status();
        assert_eq!(after.contains("hit"), !named, "{after}");
    }
}

async fn messages(world: &Arc<World>) -> Vec<(u16, String)> {
    let answers = all(world, (10..20).map(|n| invite(&guest(n))).collect()).await;
    let batched = answers[4..].iter().map(|answer| {
        assert_eq!(answer.error_type(), "gateway-outcome-unknown", "{answer:?}");
        let message = answer.json()["errors"][0]["message"].clone();
        (answer.status.as_u16(), message.as_str().unwrap().to_owned())
    });
    batched.collect()
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_of_a_batch_has_its_true_reason() {
    let unattributed = Script::new(|seen, _| {
        let emails = emails(seen);
        let note = json!({ "data": { "emails": emails, "note": emails.join(" ") } });
        Step::Later(TAKES, answer(201, &note.to_string()))
    });
    for (status, message) in messages(&unattributed.world()).await {
        assert_eq!(status, 502);
        assert!(
            message.contains("does not say what became of this write"),
            "{message}"
        );
    }
    let silent = Script::new(|seen, _| match emails(seen).len() {
        1 => Step::Later(TAKES, created(&emails(seen))),
        _ => Step::Silent,
    });
    for (status, message) in messages(&silent.world()).await {
        assert_eq!(status, 504);
        assert!(message.contains("did not respond in time"), "{message}");
    }
}

/// Every member's caller understands gzip; the batch asks for an answer that can be divided.
#[tokio::test(start_paused = true)]
async fn a_batch_asks_for_an_answer_that_can_be_read() {
    let script = Script::new(|seen, _| {
        let coded = seen
            .headers
            .get("accept-encoding")
            .is_some_and(|value| value == "gzip");
        Step::Later(
            TAKES,
            match coded {
                true => field(answer(201, "\u{1f}coded"), "content-encoding", "gzip"),
                false => created(&emails(seen)),
            },
        )
    });
    let world = script.world();
    let asks = (10..20).map(|n| with(invite(&guest(n)), "accept-encoding", "gzip"));
    let answers = all(&world, asks.collect()).await;
    for (n, answer) in (10..).zip(&answers).skip(4) {
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.json()["data"]["emails"], json!([guest(n)]));
    }
}
