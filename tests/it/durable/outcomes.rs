//! What is told of a write after its request was erased.

use super::*;
use crate::support::exposition::operators;
use crate::support::log::Log;
use http_body_util::Empty;

const TWO: &str = r#"{"invites":[{"email":"b@example.com","permissions":[{"roleName":"Owner"}]},
    {"email":"a@example.com"}]}"#;

/// A document that operators see.
async fn operators_see(world: &World, path: &str) -> serde_json::Value {
    let asked = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
    let (status, text) = operators(world, asked).await;
    assert_eq!(status.as_u16(), 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// The write in all places that show it.
async fn shown(world: &World, location: &str) -> Vec<serde_json::Value> {
    let own = world.get(location, "a").await.json();
    let list = world.get("/_gateway/writes", "a").await.json();
    let listed = operators_see(world, "/writes?limit=10").await;
    let of_operators = location.trim_start_matches("/_gateway");
    vec![
        own["data"]["write"].clone(),
        list["data"]["writes"][0].clone(),
        listed["writes"][0].clone(),
        operators_see(world, of_operators).await,
    ]
}

fn assert_named(write: &serde_json::Value) {
    let expected = serde_json::json!({
        "operation": "createInvites",
        "method": "POST",
        "path": "/invites",
        "elements": ["person:a@example.com", "person:b@example.com"],
        "elementCount": 2,
        "caller": "127.0.0.1",
        "requestId": "r-77",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&write[name], value, "{name} of {write}");
    }
    let text = write.to_string();
    assert!(
        !text.contains("Owner") && !text.contains("Bearer"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_write_says_what_it_was_until_it_is_forgotten() {
    let log = Log::default();
    let _listening = log.listen();
    let script = Script::new(|_, _| Step::Close);
    let memory = Journal::in_memory().unwrap();
    let world = script.world_of(keeping(slow(), &memory).await);
    // A line of the log about the request names it as well.
    let asked = with(
        request(Method::POST, "/invites", "a", TWO),
        "x-request-id",
        "r-77",
    );
    let location = defer(&world, asked).await;
    for write in shown(&world, &location).await {
        assert_named(&write);
    }
    let write = ended(&world, &location).await;
    assert_eq!(write["state"], "unknown");
    for write in shown(&world, &location).await {
        assert_named(&write);
    }
    // The next process knows it, too.
    let second = script.world_of(keeping(slow(), &left_by_crash(&memory).await).await);
    second.gateway.writes().recover(Some(&[])).await.unwrap();
    for write in shown(&second, &location).await {
        assert_eq!(write["state"], "unknown");
        assert_named(&write);
    }
    let text = log.text();
    let id = location.rsplit('/').next().unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(id)).collect();
    assert!(lines.len() > 1, "acceptance and end: {text}");
    for line in &lines {
        assert!(line.contains("r-77"), "{line}");
    }
    let unknown = lines.iter().find(|line| line.contains("outcome unknown"));
    for part in [
        "path=\"/invites\"",
        "elements=\"person:a@example.com, person:b@example.com\"",
        "caller=\"127.0.0.1\"",
        "method=\"POST\"",
    ] {
        assert!(unknown.unwrap().contains(part), "{part}: {unknown:?}");
    }
    assert!(!text.contains("Bearer"), "{text}");
}

/// The process that had sent it was killed, and the next one says what it was.
#[tokio::test(start_paused = true)]
async fn the_line_about_a_write_that_a_kill_left_unknown_names_it() {
    let log = Log::default();
    let _listening = log.listen();
    let script = Script::new(|_, _| Step::Silent);
    let memory = Journal::in_memory().unwrap();
    let world = script.world_of(keeping(slow(), &memory).await);
    let location = defer(&world, request(Method::POST, "/invites", "a", TWO)).await;
    while script.count() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let second = script.world_of(keeping(slow(), &left_by_crash(&memory).await).await);
    second.gateway.writes().recover(Some(&[])).await.unwrap();
    assert_eq!(state(&second, &location).await, "unknown");
    let text = log.text();
    let line = text.lines().find(|line| line.contains("outcome unknown"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    for part in [
        "path=\"/invites\"",
        "elements=\"person:a@example.com, person:b@example.com\"",
        "caller=\"127.0.0.1\"",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// A keyed write that is held is named in the same way, by the answer that it has.
#[tokio::test(start_paused = true)]
async fn the_line_about_a_request_names_the_durable_write_that_it_is_about() {
    let log = Log::default();
    let _listening = log.listen();
    let script = Script::new(|_, _| Step::Later(SOON, answer(200, r#"{"data":{}}"#)));
    let world = script.world();
    let mut ids = Vec::new();
    for request_id in ["r-1", "r-2"] {
        let asked = with(keyed(put(1), "k"), "x-request-id", request_id);
        assert_eq!(world.send(asked).await.status, 200);
        let text = log.text();
        let mut of_request = text.lines().filter(|line| line.contains(request_id));
        let named = of_request.find_map(|line| line.split_once("write_id="));
        let (_, id) = named.unwrap_or_else(|| panic!("no line names it: {text}"));
        ids.push(id.split(' ').next().unwrap().to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    let location = format!("/_gateway/writes/{}", ids[0]);
    assert_eq!(state(&world, &location).await, "succeeded");
}

/// Somebody may have made up a method that is as long as a head can be.
#[tokio::test(start_paused = true)]
async fn no_line_about_a_write_is_filled_by_a_made_up_method() {
    let log = Log::default();
    let _listening = log.listen();
    let method = Method::from_bytes(&[b'X'; 5_000]).unwrap();
    let ask = || request(method.clone(), "/labels", "a", "{}");
    let script = Script::new(|_, n| match n {
        0 => Step::Close,
        _ => Step::Later(Duration::from_secs(1), answer(200, "{}")),
    });
    let world = script.world();
    let location = defer(&world, ask()).await;
    assert_eq!(ended(&world, &location).await["state"], "unknown");
    // Another one, whose caller hangs up.
    let asking = world.spawn(ask());
    while script.count() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    asking.abort();
    sleep(Duration::from_secs(2)).await;
    let text = log.text();
    for what in ["outcome unknown", "after its caller hung up"] {
        let line = text.lines().find(|line| line.contains(what));
        let line = line.unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(
            line.contains(&format!("method=\"{}\"", "X".repeat(32))),
            "{line}"
        );
    }
}
