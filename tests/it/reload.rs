//! SIGHUP and SIGTERM: a new configuration in a running gateway, and the log of a drain.

use super::support::program::Program;
use super::support::wire::{ask, eventually, try_ask};
use super::support::{Answer, World, loaded_with, request, routes_with};
use http::Method;
use segment_gateway::gateway::reload::Replacement;
use segment_gateway::limit::budgets::LineBounds;
use segment_gateway::route::Table;
use segment_gateway::sandbox::SandboxSpec;
use std::fs;
use std::process::Command;
use std::time::Duration;
use tokio::task::JoinSet;

const RELOADS: &str = "segment_gateway_config_reloads_total";
const GOOD: &str = "segment_gateway_config_last_reload_successful";
const WAITING: &str = "segment_gateway_config_restart_pending";

/// Writes the configuration, asks for it to be read, and waits until that has been done.
async fn reload(running: &Program, configuration: &str) {
    let before = running.value(RELOADS, None).await;
    fs::write(running.file("gateway.toml"), configuration).unwrap();
    running.signal("-HUP");
    eventually("it has been read", async || {
        running.value(RELOADS, None).await > before
    })
    .await;
}

/// A write with a body of about this length.
async fn write(running: &Program, length: usize) -> Answer {
    let body = format!(r#"{{"permissions":[],"filler":"{}"}}"#, "x".repeat(length));
    let target = "/users/user-00001/permissions";
    ask(running.proxy, request(Method::PUT, target, "t", &body)).await
}

#[tokio::test]
async fn a_new_configuration_holds_and_a_bad_one_changes_nothing() {
    let small = "[server]\nbody_bytes = '1 KiB'\n[log]\nlevel = 'info'\n";
    let running = Program::sandbox(small, &[], &[]).await;
    assert_eq!(running.value(GOOD, None).await, 1.0);
    assert_eq!(write(&running, 2_000).await.status, 413);
    let large = "[server]\nbody_bytes = '8 KiB'\nconnections = 99\n[log]\nlevel = 'info'\n";
    reload(&running, large).await;
    assert_ne!(write(&running, 2_000).await.status, 413);
    assert_eq!(running.value(RELOADS, Some("applied")).await, 1.0);
    assert_eq!(
        running.value(WAITING, None).await,
        1.0,
        "server.connections"
    );
    running
        .logs(&[
            "changed=\"server.body_bytes\"",
            "keys=\"server.connections\"",
        ])
        .await;
    // The log says that it will say less.
    reload(&running, &large.replace("'info'", "'error'")).await;
    let log = running
        .logs(&["log level changed by the configuration"])
        .await;
    assert!(log.contains("from=\"info\" to=\"error\""), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    for bad in [
        "[server]\nbody_bytes = '4 KiB'\nconections = 5\n",
        "[server]\nbody_bytes = '4 KiB'\n[wait]\ncap = '1s'\n",
        // The new bound of all bodies waits for a restart: beside the old one this makes no sense.
        "[server]\nbody_bytes = '200 MiB'\nbodies_bytes = '1 GiB'\n[queue]\nbytes = '1 GiB'\n",
        "[server]\nbody_bytes = '4 KiB'\n[routes]\nfile = 'absent.toml'\n",
        "[server]\nbody_bytes = '4 KiB'\n[admin]\ntoken_file = 'absent'\n",
        "no toml",
    ] {
        let before = running.value(RELOADS, Some("failed")).await;
        reload(&running, bad).await;
        assert_eq!(running.value(RELOADS, Some("failed")).await, before + 1.0);
        assert_eq!(running.value(GOOD, None).await, 0.0, "{bad}");
        assert_ne!(write(&running, 5_000).await.status, 413, "{bad}");
    }
    running
        .logs(&[
            "gateway.toml:3: server.conections",
            "the previous configuration stays in effect",
            "absent.toml",
        ])
        .await;
    // Mended again, and what waited for a restart is as it runs.
    reload(&running, small).await;
    assert_eq!(running.value(GOOD, None).await, 1.0);
    assert_eq!(running.value(WAITING, None).await, 0.0);
    assert_eq!(write(&running, 2_000).await.status, 413);
}

#[tokio::test]
async fn budgets_and_those_who_wait_outlast_a_new_route_table() {
    let running = Program::sandbox("", &[], &[]).await;
    let table = Command::new(env!("CARGO_BIN_EXE_segment-gateway"))
        .args(["routes", "--toml"])
        .output()
        .unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    let budget = "replacePermissionsForUser";
    let put = |user: usize| {
        let target = format!("/users/user-{user:05}/permissions");
        request(Method::PUT, &target, "t", r#"{"permissions":[]}"#)
    };
    let limit = async || {
        running
            .value("segment_gateway_budget_limit", Some(budget))
            .await
    };
    let used = async || {
        running
            .value("segment_gateway_budget_used", Some(budget))
            .await
    };
    // All of the budget is used, and one more waits.
    let mut sent = JoinSet::new();
    for user in 1..=61 {
        sent.spawn(try_ask(running.proxy, put(user)));
    }
    let waiting = async || {
        running
            .value("segment_gateway_queue_length", Some(budget))
            .await
    };
    eventually("one waits", async || {
        used().await == 60.0 && waiting().await == 1.0
    })
    .await;
    for _ in 0..60 {
        let answer = sent.join_next().await.unwrap().unwrap();
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(limit().await, 60.0);
    // More room: it leaves at once (the API, which knows better, refuses it), and nothing is
    // forgotten.
    let head = format!("[operations.{budget}]");
    let at = table.find(&head).unwrap();
    let with = |limit: u32| {
        let rate = table[at..].find("limit = \"60 per 1m\"").unwrap() + at;
        let mut table = table.clone();
        let new = format!("limit = \"{limit} per 1m\"");
        table.replace_range(rate..rate + "limit = \"60 per 1m\"".len(), &new);
        table
    };
    fs::write(running.file("routes.toml"), with(70)).unwrap();
    reload(&running, "[routes]\nfile = 'routes.toml'\n").await;
    eventually("it has left", async || used().await == 61.0).await;
    // Less: what was sent still counts.
    fs::write(running.file("routes.toml"), with(20)).unwrap();
    reload(&running, "[routes]\nfile = 'routes.toml'\n").await;
    assert_eq!((limit().await, used().await), (20.0, 61.0));
    // Another list of operations waits for a restart.
    let renamed = table.replace(&head, "[operations.renamed]");
    fs::write(running.file("routes.toml"), renamed).unwrap();
    reload(&running, "[routes]\nfile = 'routes.toml'\n").await;
    assert_eq!(running.value(WAITING, None).await, 1.0);
    running
        .logs(&["the operations of the route table (added"])
        .await;
    assert_eq!((limit().await, used().await), (20.0, 61.0));
}

#[tokio::test]
async fn a_drain_tells_how_far_it_has_come() {
    let mut running =
        Program::sandbox("[shutdown]\ndrain = '1s'\n", &["--latency", "7s"], &[]).await;
    reload(&running, "[shutdown]\ndrain = '20s'\n").await;
    let read = request(Method::GET, "/users/user-00001", "t", "");
    let read = tokio::spawn(try_ask(running.proxy, read));
    let under_way = "segment_gateway_tasks_in_flight";
    eventually("it is under way", async || {
        running.value(under_way, None).await > 0.0
    })
    .await;
    running.signal("-TERM");
    assert_eq!(read.await.unwrap().unwrap().status, 200);
    assert!(running.ended().await);
    let log = running.log();
    for part in [
        "within_s=20",
        "requests are still in flight connections=1 tasks=",
        "waiting=0 left_s=15.0",
        "no request is in flight",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

fn table(text: &str) -> Table {
    loaded_with(text).table(1).unwrap()
}

fn replace(world: &World, new: Table) {
    world.gateway.replace(Replacement {
        table: Some(new),
        clients: None,
        settings: (*world.gateway.router().settings.get()).clone(),
        quotas: None,
        lines: LineBounds {
            per_budget: 10,
            total: 10,
            bytes: 1_000_000,
        },
    });
}

/// What is stored has the times and tags of the table before: it is not shown any more.
#[tokio::test(start_paused = true)]
async fn what_is_stored_is_fetched_anew_under_a_new_table() {
    let world = World::new(SandboxSpec::default());
    let get = async || {
        let answer = world
            .send(request(Method::GET, "/users/user-00001", "t", ""))
            .await;
        answer.cache_status()
    };
    let is_hit = |status: &str| status.contains("; hit");
    assert!(!is_hit(&get().await));
    assert!(is_hit(&get().await));
    replace(&world, table(&routes_with("getUser", "cache = \"5s\"")));
    assert!(!is_hit(&get().await));
    // The API has changed nothing: all who ask share the next answer.
    assert!(is_hit(&get().await));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!is_hit(&get().await), "the new time holds");
    let other = routes_with("getUser", "cache = \"5s\"");
    replace(&world, table(&other.replace("60 per 1m", "30 per 1m")));
    assert!(is_hit(&get().await), "limits are no matter of the cache");
}

/// Requests under way have places and orders of the table before.
#[test]
fn a_table_of_other_operations_or_orders_is_another() {
    let shipped = segment_gateway::config::EMBEDDED_ROUTES;
    let running = table(shipped);
    let (order, other) = (
        "order = [\"user:{path.userId}\"]\n\n# --- IAM: groups",
        "order = []\n\n# --- IAM: groups",
    );
    for (from, to, same) in [
        ("", "", true),
        ("limit = \"60 per 1m\"", "limit = \"30 per 1m\"", true),
        (
            "writes = [\"user:{path.userId}\", \"user-lists\"]",
            "writes = []",
            false,
        ),
        ("[operations.listRoles]", "[operations.roles]", false),
        (
            "reads = [\"roles\"]",
            "reads = [\"roles\", \"more\"]",
            false,
        ),
        ("limit = \"60 per 1m\"", "limit = \"60 per 2m\"", false),
        (
            "[operations.listRoles]",
            "[budgets.other]\nlimit = \"9 per 1m\"\n\n[operations.listRoles]\nbudget = \"other\"",
            false,
        ),
        ("path = \"/roles\"", "path = \"/rolls\"", false),
        (order, other, false),
    ] {
        assert!(shipped.contains(from), "{from}");
        let other = table(&shipped.replace(from, to));
        assert_eq!(Replacement::is_same(&running, &other), same, "{from}");
    }
}
