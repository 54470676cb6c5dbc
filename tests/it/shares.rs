//! The shares of clients that use one token: how they divide its budgets.

use super::support::clients::{client, entry, held};
use super::support::scripted::{Script, Step, answer, field};
use super::support::wire::eventually;
use super::support::{World, from_peer, request, with};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::clients::{ClientKey, Clients, CredentialMode};
use segment_gateway::write::durable::Selection;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const SOON: Duration = Duration::from_millis(50);
const ONE: &str =
    r#"{"permissions":[{"roleId":"source-admin","resources":[{"id":"s","type":"SOURCE"}]}]}"#;

/// Clients `a` and `b`, which share a token, with a key each.
struct Sharers([ClientKey; 2]);

impl Sharers {
    fn new() -> Self {
        Self([(); 2].map(|()| ClientKey::generate().unwrap()))
    }

    /// Gives the gateway the clients with these shares, as a start or a reload does.
    fn put_in_use(&self, world: &World, shares: [u8; 2]) {
        let clients = [("a", shares[0]), ("b", shares[1])].map(|(name, share)| {
            let mut client = client(world, name, "held", &["addPermissionsToUser"]);
            Arc::make_mut(&mut client).share = share;
            client
        });
        let entries = self.0.iter().zip(&clients);
        let entries = entries
            .map(|(key, client)| entry(key, client, None))
            .collect();
        let tokens = vec![held(world, "held", "t", Some("t"))];
        world.gateway.router().tokens.set(tokens);
        let managed = CredentialMode::Managed;
        let clients = Clients::new(managed, clients.to_vec(), entries, Vec::new());
        world.gateway.set_clients(clients);
    }

    /// A write to this user: of `a` below 100, of `b` from there on.
    fn write(&self, user: usize) -> Request<Full<Bytes>> {
        let (key, peer) = if user < 100 {
            (&self.0[0], 1)
        } else {
            (&self.0[1], 2)
        };
        let target = format!("/users/user-{user:05}/permissions");
        from_peer(request(Method::POST, &target, key.reveal(), ONE), peer)
    }
}

/// Whose writes the API got, in the order in which they came: those of `a` are to users below 100.
fn writers(api: &Script) -> String {
    let seen = api.seen().into_iter();
    let users = seen.map(|seen| seen.target[12..17].parse::<usize>().unwrap());
    users
        .map(|user| if user < 100 { 'a' } else { 'b' })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn clients_that_wait_for_a_budget_divide_it_by_their_shares() {
    for (before, after, expected) in [
        ([1, 1], [1, 1], "ab".repeat(8)),
        ([1, 3], [1, 3], "abbb".repeat(4)),
        // A reload counts for those that wait already.
        ([1, 1], [1, 3], "abbb".repeat(4)),
        ([1, 3], [2, 1], "aab".repeat(4)),
    ] {
        // The first answer closes the budget.
        let script = Script::new(|_, earlier| match earlier {
            0 => Step::Answer(field(answer(429, "{}"), "retry-after", "5")),
            _ => Step::Later(SOON, answer(200, r#"{"data":{"permissions":[]}}"#)),
        });
        let world = script.world();
        let sharers = Sharers::new();
        sharers.put_in_use(&world, before);
        let mut callers = tokio::task::JoinSet::new();
        let mut send = |request| {
            let world = Arc::clone(&world);
            callers.spawn(async move { world.send(request).await.status })
        };
        send(sharers.write(0));
        until_waiting(&world, 1).await;
        for user in 1..20 {
            send(sharers.write(user));
            send(sharers.write(100 + user));
        }
        until_waiting(&world, 1 + 2 * 19).await;
        assert_eq!(script.count(), 1, "the budget is closed");
        if after != before {
            sharers.put_in_use(&world, after);
        }
        for status in callers.join_all().await {
            assert_eq!(status, 200);
        }
        let order = writers(&script);
        let (_, order) = order.split_at(1);
        assert!(
            order.starts_with(&expected),
            "{before:?} {after:?}: {order}"
        );
        assert_eq!(order.len(), 1 + 2 * 19);
    }
}

/// Waits until so many requests wait for their budgets.
async fn until_waiting(world: &World, requests: usize) {
    let budgets = world.gateway.budgets();
    eventually("they wait", async || budgets.waiting() == requests).await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_defer_writes_divide_the_budget_by_their_shares() {
    let script =
        Script::new(|_, _| Step::Later(SOON, answer(200, r#"{"data":{"permissions":[]}}"#)));
    let world = script.world();
    let sharers = Sharers::new();
    sharers.put_in_use(&world, [1, 3]);
    let operation = Selection {
        credential: None,
        operation: Some("addPermissionsToUser".into()),
    };
    let writes = world.gateway.writes();
    writes.operators_pause(&operation).unwrap();
    let deferred = |request| with(request, "prefer", "respond-async");
    for user in 0..90 {
        let of_a = deferred(sharers.write(user));
        let of_b = deferred(sharers.write(100 + user));
        for request in [of_a, of_b] {
            assert_eq!(world.send(request).await.status, 202);
        }
    }
    assert_eq!(script.count(), 0);
    assert!(writes.operators_resume(&operation).await.unwrap());
    // Several windows: first what stands before the budget, then what follows it one by one.
    sleep(Duration::from_secs(400)).await;
    let order = writers(&script);
    assert_eq!(order.len(), 180);
    // Each write is brought by a task of its own, which may come a moment after the next one. So a
    // turn may be cut short where the line is empty for that moment.
    let mut of_a = 0;
    for (slots, writer) in (1..=116).zip(order.chars()) {
        of_a += i32::from(writer == 'a');
        assert!(
            (of_a * 4 - slots).abs() <= 6,
            "the first {slots} of {order}"
        );
    }
}
