//! What callers do: read, write, hang up, and now and then all at once.

use super::record::{What, Write};
use super::scenario::{GROUPS, LedgerFate, Scenario, USERS};
use super::stage::{By, Stage};
use crate::support::{from_peer, request, with};
use fastrand::Rng;
use http::Method;
use segment_gateway::sandbox::{Delay, WindowKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Users whom only [`patient`] writes to, so that nothing but its turn makes it wait.
const RESERVED: usize = 8;
/// The peer of [`patient`].
pub const PATIENT: u8 = 9;
/// The peer and the token of [`strangers`].
const STRANGER: u8 = 8;
/// Emails that are invited and uninvited.
const EMAILS: usize = 12;
const WRITE_PATIENCE: Duration = Duration::from_secs(150);
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// A request before it is sent.
#[derive(Clone)]
struct Draft {
    method: Method,
    target: String,
    body: String,
    what: What,
}

fn user(n: usize) -> String {
    format!("user-{n:05}")
}

fn some_user(rng: &mut Rng) -> String {
    user(rng.usize(1..=USERS - RESERVED))
}

fn some_group(rng: &mut Rng) -> String {
    format!("group-{:05}", rng.usize(1..=GROUPS))
}

fn email(n: usize) -> String {
    format!("guest-{n}@example.com")
}

fn write(changes: &[&str], keys: &[&str], barrier: bool) -> What {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    What::Write(Write {
        changes: owned(changes),
        keys: owned(keys),
        barrier,
    })
}

/// A write of a user's permissions.
fn permissions(rng: &mut Rng, user: &str) -> Draft {
    let roles = ["source-admin", "workspace-member", "warehouse-admin"];
    let body = format!(
        r#"{{"permissions":[{{"roleId":"{}","resources":[{{"id":"r{}","type":"SOURCE"}}]}}]}}"#,
        roles[rng.usize(..roles.len())],
        rng.u8(..),
    );
    Draft {
        // More often replaced than added to, so that they stay few.
        method: if rng.u8(..4) == 0 {
            Method::POST
        } else {
            Method::PUT
        },
        target: format!("/users/{user}/permissions"),
        body,
        what: write(
            &["users", &format!("user:{user}")],
            &[&format!("user:{user}")],
            false,
        ),
    }
}

/// Puts people into a group, or takes them out; they are named by email.
fn members(rng: &mut Rng) -> Draft {
    let group = some_group(rng);
    let is_user = rng.u8(..4) > 0;
    let (id, address) = if is_user {
        let id = some_user(rng);
        let address = format!("{id}@example.com");
        (id, address)
    } else {
        (String::new(), email(rng.usize(..EMAILS)))
    };
    let changes = [
        "groups".to_owned(),
        format!("group:{group}"),
        if is_user {
            format!("members:{group}")
        } else {
            format!("invited:{group}")
        },
        format!("user-groups:{id}"),
    ];
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    let what = write(
        &changes,
        &[&format!("group:{group}"), &format!("person:{address}")],
        false,
    );
    let body = format!(r#"{{"emails":["{address}"]}}"#);
    let (method, target, body) = match rng.u8(..4) {
        0 => (Method::PUT, format!("/group/{group}/users"), body),
        1 => {
            let address = address.replace('@', "%40");
            let name = ["emails.0", "emails%5B0%5D", "emails"][rng.usize(..3)];
            (
                Method::DELETE,
                format!("/group/{group}/users?{name}={address}"),
                String::new(),
            )
        }
        _ => (Method::POST, format!("/groups/{group}/users"), body),
    };
    Draft {
        method,
        target,
        body,
        what,
    }
}

fn invites(rng: &mut Rng) -> Draft {
    let mut chosen = vec![rng.usize(..EMAILS)];
    if rng.bool() {
        chosen.push(rng.usize(..EMAILS));
    }
    let keys: Vec<String> = chosen
        .iter()
        .map(|n| format!("person:{}", email(*n)))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let what = write(&["invites"], &keys, false);
    if rng.bool() {
        let each: Vec<String> = chosen
            .iter()
            .map(|n| format!(r#"{{"email":"{}"}}"#, email(*n)))
            .collect();
        let body = format!(r#"{{"invites":[{}]}}"#, each.join(","));
        return Draft {
            method: Method::POST,
            target: "/invites".into(),
            body,
            what,
        };
    }
    let each: Vec<String> = chosen
        .iter()
        .enumerate()
        .map(|(place, n)| format!("emails.{place}={}", email(*n).replace('@', "%40")))
        .collect();
    let target = format!("/invites?{}", each.join("&"));
    Draft {
        method: Method::DELETE,
        target,
        body: String::new(),
        what,
    }
}

fn groups(rng: &mut Rng) -> Draft {
    let group = some_group(rng);
    let name = format!(r#"{{"name":"Group {}"}}"#, rng.u16(..));
    let key = format!("group:{group}");
    match rng.u8(..8) {
        0 => Draft {
            method: Method::POST,
            target: "/groups".into(),
            body: name,
            what: write(&["groups"], &[], false),
        },
        1 => Draft {
            method: Method::POST,
            target: "/v9/unknown".into(),
            body: name,
            what: write(&[], &[], false),
        },
        _ => Draft {
            method: Method::PATCH,
            target: format!("/groups/{group}"),
            body: name,
            what: write(&["groups", &key], &[&key], false),
        },
    }
}

fn delete_user(rng: &mut Rng) -> Draft {
    let id = some_user(rng);
    let (one, groups) = (format!("user:{id}"), format!("user-groups:{id}"));
    Draft {
        method: Method::DELETE,
        target: format!("/users?userIds%5B0%5D={id}"),
        body: String::new(),
        what: write(&["users", &one, &groups], &[&one], true),
    }
}

fn some_write(rng: &mut Rng) -> Draft {
    match rng.u8(..100) {
        // Rarely: nobody ever comes back.
        0 if rng.u8(..4) == 0 => delete_user(rng),
        0..=45 => {
            let user = some_user(rng);
            permissions(rng, &user)
        }
        46..=65 => invites(rng),
        66..=85 => members(rng),
        _ => groups(rng),
    }
}

fn some_read(rng: &mut Rng) -> Draft {
    let (target, subject) = match rng.u8(..100) {
        0..=14 => {
            let name = ["pagination.count", "pagination%5Bcount%5D"][rng.usize(..2)];
            (format!("/users?{name}=1000"), "users".to_owned())
        }
        15..=49 => {
            let id = some_user(rng);
            (format!("/users/{id}"), format!("user:{id}"))
        }
        50..=59 => {
            let id = some_user(rng);
            (format!("/users/{id}/groups"), format!("user-groups:{id}"))
        }
        60..=69 => (
            "/invites?pagination.count=1000".to_owned(),
            "invites".to_owned(),
        ),
        70..=76 => (
            "/groups?pagination.count=1000".to_owned(),
            "groups".to_owned(),
        ),
        77..=84 => {
            let group = some_group(rng);
            (format!("/groups/{group}"), format!("group:{group}"))
        }
        85..=90 => {
            let group = some_group(rng);
            (format!("/groups/{group}/users"), format!("members:{group}"))
        }
        91..=95 => {
            let group = some_group(rng);
            (
                format!("/groups/{group}/invites"),
                format!("invited:{group}"),
            )
        }
        _ => ("/roles".to_owned(), "roles".to_owned()),
    };
    Draft {
        method: Method::GET,
        target,
        body: String::new(),
        what: What::Read(subject),
    }
}

/// Sends a draft with what a caller may say beside it.
async fn send(stage: &Stage, rng: &mut Rng, draft: Draft, token: u8, peer: u8) {
    let is_read = draft.method == Method::GET;
    let shown = stage.keys.shown(peer, token);
    let ask = request(draft.method, &draft.target, shown, &draft.body);
    let mut ask = from_peer(ask, peer);
    let mut patience = if is_read {
        READ_PATIENCE
    } else {
        WRITE_PATIENCE
    };
    if rng.u8(..5) == 0 {
        let seconds = [0, 1, 5, 20, 60, 400][rng.usize(..6)];
        ask = with(ask, "prefer", &format!("wait={seconds}"));
        patience = Duration::from_secs(seconds);
    }
    if is_read && rng.u8(..20) == 0 {
        ask = with(ask, "cache-control", "no-cache");
    }
    if is_read && rng.u8(..10) == 0 {
        let wants = [
            "max-age=5",
            "max-stale=60",
            "min-fresh=5",
            "max-stale, max-age=90",
        ];
        ask = with(ask, "cache-control", wants[rng.usize(..4)]);
    }
    if is_read && rng.bool() {
        ask = with(ask, "accept-encoding", "gzip");
    }
    let hangs_up = (rng.u8(..25) == 0).then(|| Duration::from_millis(rng.u64(..20_000)));
    let by = By {
        token,
        peer,
        patience,
    };
    stage.send(by, draft.what, ask, hangs_up).await;
}

fn pause(rng: &mut Rng, mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - rng.f64()).ln())
}

/// One caller: reads and writes, one at a time.
pub async fn steady(stage: Arc<Stage>, seed: u64, end: Instant) {
    let mut rng = Rng::with_seed(seed);
    let (token, peer) = (rng.u8(..2), rng.u8(1..=3));
    let mean = Duration::from_millis(rng.u64(500..4_000));
    while Instant::now() < end {
        sleep(pause(&mut rng, mean)).await;
        // Busy and quiet times: where everything is written all the time, nothing is ever stored.
        let left = (end - Instant::now()).as_secs() / 180;
        let writes = [40, 1, 5, 0, 15][usize::try_from(left % 5).unwrap()];
        let draft = if rng.u8(..100) < writes {
            some_write(&mut rng)
        } else {
            some_read(&mut rng)
        };
        send(&stage, &mut rng, draft, token, peer).await;
    }
}

/// Bulk jobs: now and then many requests at once, more than a window allows.
pub async fn bursts(stage: Arc<Stage>, seed: u64, end: Instant) {
    let mut rng = Rng::with_seed(seed);
    let mut under_way = JoinSet::new();
    loop {
        let next = Instant::now() + pause(&mut rng, Duration::from_secs(240));
        if next >= end {
            break;
        }
        sleep_until(next).await;
        let (token, kind, count) = (rng.u8(..2), rng.u8(..4), rng.usize(20..150));
        for n in 0..count {
            let mut rng = rng.fork();
            let stage = Arc::clone(&stage);
            let peer = rng.u8(1..=3);
            let draft = match kind {
                0 => invites(&mut rng),
                1 => members(&mut rng),
                2 => Draft {
                    method: Method::GET,
                    target: format!("/users?pagination.count={}", n + 1),
                    body: String::new(),
                    // A page of a list need not show what changed.
                    what: What::Read("page".to_owned()),
                },
                _ => {
                    let user = some_user(&mut rng);
                    permissions(&mut rng, &user)
                }
            };
            under_way.spawn(async move { send(&stage, &mut rng, draft, token, peer).await });
        }
    }
    under_way.join_all().await;
}

/// Crowds: now and then many readers of one list in a few seconds, while users are written.
pub async fn crowds(stage: Arc<Stage>, seed: u64, end: Instant) {
    let mut rng = Rng::with_seed(seed);
    let mut under_way = JoinSet::new();
    loop {
        let next = Instant::now() + pause(&mut rng, Duration::from_secs(400));
        if next >= end {
            break;
        }
        sleep_until(next).await;
        let token = rng.u8(..2);
        for _ in 0..rng.usize(100..400) {
            sleep(Duration::from_millis(rng.u64(1..20))).await;
            let mut rng = rng.fork();
            let draft = if rng.u8(..100) == 0 {
                let user = some_user(&mut rng);
                permissions(&mut rng, &user)
            } else {
                Draft {
                    method: Method::GET,
                    target: "/users?pagination.count=1000".to_owned(),
                    body: String::new(),
                    what: What::Read("users".to_owned()),
                }
            };
            let (stage, peer) = (Arc::clone(&stage), rng.u8(1..=3));
            under_way.spawn(async move { send(&stage, &mut rng, draft, token, peer).await });
        }
    }
    under_way.join_all().await;
}

/// Strangers: they write with a token that the API does not know, or with none, what there is and
/// what there is not.
pub async fn strangers(stage: Arc<Stage>, seed: u64, end: Instant) {
    let mut rng = Rng::with_seed(seed);
    while Instant::now() < end {
        sleep(pause(&mut rng, Duration::from_secs(20))).await;
        let mut draft = some_write(&mut rng);
        if rng.bool() {
            draft.target = "/v9/unknown".to_owned();
        }
        let ask = request(draft.method, &draft.target, "stranger", &draft.body);
        let mut ask = from_peer(ask, STRANGER);
        if rng.u8(..4) == 0 {
            ask.headers_mut().remove("authorization");
        }
        let by = By {
            token: STRANGER,
            peer: STRANGER,
            patience: WRITE_PATIENCE,
        };
        // It changes nothing.
        stage.send(by, write(&[], &[], false), ask, None).await;
    }
}

/// A caller with one write at a time and users of its own: only its turn makes it wait.
pub async fn patient(stage: Arc<Stage>, seed: u64, end: Instant) {
    let mut rng = Rng::with_seed(seed);
    while Instant::now() < end {
        sleep(pause(&mut rng, Duration::from_secs(15))).await;
        let token = rng.u8(..2);
        let user = user(USERS - rng.usize(..RESERVED));
        let draft = permissions(&mut rng, &user);
        let name = ["a", "b"][usize::from(token)];
        let ask = from_peer(
            request(draft.method, &draft.target, name, &draft.body),
            PATIENT,
        );
        let by = By {
            token,
            peer: PATIENT,
            patience: WRITE_PATIENCE,
        };
        stage.send(by, draft.what, ask, None).await;
    }
}

/// Writes to one user without a pause, and waits as long as it may.
pub async fn insatiable(stage: Arc<Stage>, number: usize) {
    let mut rng = Rng::with_seed(number as u64);
    let (token, peer) = (0, u8::try_from(number % 4 + 1).unwrap());
    loop {
        let draft = Draft {
            method: Method::PUT,
            ..permissions(&mut rng, &user(number))
        };
        let ask = from_peer(request(draft.method, &draft.target, "a", &draft.body), peer);
        let patience = Duration::from_secs(600);
        let ask = with(ask, "prefer", "wait=600");
        let by = By {
            token,
            peer,
            patience,
        };
        stage.send(by, draft.what, ask, None).await;
    }
}

/// How often somebody was refused, and was admitted when it came back as it was told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Returns {
    pub refused: usize,
    pub admitted: usize,
}

/// Sends bulk jobs and then, when nothing new comes, asks as somebody who is soon refused. With
/// `lanes`, all of them write to the same few users and keep each other waiting.
pub async fn refused_and_back(seed: u64, lanes: bool) -> Returns {
    let mut rng = Rng::with_seed(seed);
    let mut scenario = Scenario::new(WindowKind::ALL[rng.usize(..4)], 0, Duration::ZERO);
    let half = Duration::from_millis([0, 10, 100, 400][rng.usize(..4)]);
    let constant = Delay {
        base: half,
        jitter: Duration::ZERO,
    };
    (scenario.sandbox.arrive, scenario.sandbox.reply) = (constant, constant);
    scenario.sandbox.users = 200;
    scenario.per_budget = [12, 40, 1_000][rng.usize(..3)];
    let stage = Stage::new(&scenario);
    stage.start(LedgerFate::Kept);
    // How long answers take has to be known.
    for method in [Method::POST, Method::PUT] {
        let draft = Draft {
            method,
            ..permissions(&mut rng, &user(1))
        };
        hold(&stage, draft, 1, 150).await;
    }
    let mut returns = Returns::default();
    for _ in 0..40 {
        let mut bulk = JoinSet::new();
        for n in 0..rng.usize(..150) {
            let mut rng = rng.fork();
            let user = user(if lanes { rng.usize(1..=USERS) } else { n + 41 });
            let (draft, peer) = (permissions(&mut rng, &user), rng.u8(1..=4));
            let stage = Arc::clone(&stage);
            bulk.spawn(async move { hold(&stage, draft, peer, 150).await });
        }
        sleep(Duration::from_millis(rng.u64(..90_000))).await;
        let peer = rng.u8(1..=5);
        let patience = [0, 1, 5, 20, 100][rng.usize(..5)];
        let user = user(rng.usize(1..=USERS));
        let draft = permissions(&mut rng, &user);
        let first = hold(&stage, draft.clone(), peer, patience).await;
        if let Some(after) = first.strip_prefix("refused ") {
            sleep(Duration::from_secs(after.parse().unwrap())).await;
            let again = hold(&stage, draft, peer, patience).await;
            returns.refused += 1;
            returns.admitted += usize::from(again == "admitted");
            if again != "admitted" {
                eprintln!("seed {seed}: {again}, after {after} s with a patience of {patience} s");
            }
        }
        bulk.join_all().await;
    }
    returns
}

/// Sends a write that waits for so many seconds, and says whether it was admitted, or how long it
/// is told to stay away.
async fn hold(stage: &Stage, draft: Draft, peer: u8, patience: u64) -> String {
    let ask = from_peer(request(draft.method, &draft.target, "a", &draft.body), peer);
    let ask = with(ask, "prefer", &format!("wait={patience}"));
    let by = By {
        token: 0,
        peer,
        patience: Duration::from_secs(patience),
    };
    let answer = stage
        .send(by, draft.what, ask, None)
        .await
        .expect("nobody hangs up");
    match answer.error_type().as_str() {
        "gateway-queue-wait" | "gateway-queue-full" => {
            format!("refused {}", answer.header("retry-after"))
        }
        "" => "admitted".to_owned(),
        other => other.to_owned(),
    }
}
