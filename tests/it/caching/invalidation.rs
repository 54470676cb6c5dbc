//! What a write ends (RFC 9111, section 4.4), and what it does not.

use super::*;

/// The API may still show the old state: what a write has ended is neither stored nor shared.
const ENDED: &str = "fwd=bypass; detail=settling";

fn long() -> Response<Bytes> {
    ok(&["cache-control: max-age=600"])
}

/// A row in which the write of new invitations says that no answer depends on it.
fn undeclared(why: impl Into<String>) -> Exchange {
    rule(why).route("writes = [\"invites\", \"user-lists\"]", "writes = []")
}

/// Both are stored.
fn stored(row: Exchange, one: &'static str, other: &'static str) -> Exchange {
    let row = row.api(long()).api(long());
    row.on(one).get().stored().on(other).get().stored()
}

#[tokio::test(start_paused = true)]
async fn section_4_4_the_target_of_a_write() {
    const INVITES: &str = "/invites";
    for status in [200, 201, 204, 302, 500] {
        let row = undeclared(format!("4.4: by the API's {status}"));
        hold([stored(row, INVITES, ROLES)
            .api(says::<&str>(status, &[]))
            .ask_for(Method::POST, "/invites?a=b")
            .status(status)
            .sees("fwd=method")
            .on(INVITES)
            .get()
            .status(status)
            .sees(ENDED)
            .get()
            .by("b")
            .status(status)
            .sees(ENDED)
            .on(ROLES)
            .get()
            .sees("hit; ttl=300")])
        .await;
    }
    hold([
        stored(undeclared("4.4: safe methods end nothing"), INVITES, ROLES)
            .on(INVITES)
            .ask(Method::OPTIONS)
            .get()
            .hit(30)
            .head()
            .with("cache-control: no-cache")
            .get()
            .hit(30),
        stored(
            undeclared("4.4: once it has settled, it is fetched anew"),
            INVITES,
            ROLES,
        )
        .ask_for(Method::POST, INVITES)
        .wait(2)
        .on(INVITES)
        .get()
        .sees("fwd=stale; stored; detail=fenced")
        .get()
        .hit(30),
        stored(undeclared("4.4: another credential's too"), INVITES, ROLES)
            .on(INVITES)
            .get()
            .by("b")
            .stored()
            .ask_for(Method::POST, INVITES)
            .get()
            .by("b")
            .sees(ENDED),
    ])
    .await;
    let unknown = Method::from_bytes(b"MERGE").expect("a method");
    let methods = [
        Method::PUT,
        Method::POST,
        Method::PATCH,
        Method::DELETE,
        unknown,
    ];
    hold(methods.into_iter().map(|method| {
        rule(format!("4.4: {method} of a path that nobody knows"))
            .on(UNKNOWN)
            .api(long())
            .get()
            .stored()
            .get()
            .hit(600)
            .ask(method)
            .sees("fwd=method")
            .get()
            .sees(ENDED)
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn section_4_4_what_the_answer_to_a_write_names() {
    let cases: &[(&str, &str, bool)] = &[
        ("Location", "location: /roles", true),
        ("Content-Location", "content-location: /roles", true),
        ("without its query", "location: /roles?page=2#top", true),
        ("a relative reference", "location: roles", true),
        ("one with dots", "location: ../x/.././roles", true),
        (
            "the API's own origin",
            "location: http://127.0.0.1:1/roles",
            true,
        ),
        ("without its scheme", "location: //127.0.0.1:1/roles", true),
        (
            "another origin",
            "location: https://other.example/roles",
            false,
        ),
        ("another port", "location: http://127.0.0.1:2/roles", false),
        (
            "another origin, by Content-Location",
            "content-location: //other.example/roles",
            false,
        ),
        ("another path", "location: /groups", false),
        ("another field", "link: /roles", false),
    ];
    for status in [201, 500] {
        hold(cases.iter().map(|(why, field, ends)| {
            let row = rule(format!("4.4: {why}, by a {status}"));
            let row = stored(row, USERS, ROLES)
                .api(says(status, &[*field]))
                .ask_for(Method::POST, LABELS)
                .status(status)
                .on(ROLES)
                .get();
            let row = if *ends {
                row.status(status).sees(ENDED)
            } else {
                row.hit(300)
            };
            row.on(USERS).get().hit(60)
        }))
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn any_write_ends_what_has_no_tags() {
    hold([
        stored(rule("a write of something else"), LABELS, ROLES)
            .ask_for(Method::PUT, WRITE)
            .on(LABELS)
            .get()
            .sees(ENDED)
            .on(ROLES)
            .get()
            .hit(300),
        stored(
            rule("a write that says that no answer depends on it"),
            LABELS,
            ROLES,
        )
        .ask_for(Method::POST, "/sources")
        .on(LABELS)
        .get()
        .sees(ENDED)
        .on(ROLES)
        .get()
        .hit(300),
        stored(
            rule("what is stored of a path that nobody knows"),
            UNKNOWN,
            ROLES,
        )
        .ask_for(Method::POST, "/sources")
        .on(UNKNOWN)
        .get()
        .sees(ENDED)
        .on(ROLES)
        .get()
        .hit(300),
        stored(rule("an error, with whatever tags"), USERS, ROLES)
            .api(says(404, &["cache-control: max-age=60"]))
            .ask_for(Method::GET, "/users/u")
            .status(404)
            .stored()
            .ask_for(Method::GET, "/users/u")
            .status(404)
            .hit(60)
            .ask_for(Method::POST, "/sources")
            .status(404)
            .ask_for(Method::GET, "/users/u")
            .status(404)
            .sees("fwd=stale; detail=fenced")
            .on(ROLES)
            .get()
            .hit(300),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_write_only_a_strong_tag_confirms_what_was_stored_before() {
    let row = |why: &str, tag: &str, answer: Response<Bytes>| {
        let tag = format!("etag: {tag}");
        rule(why)
            .api(ok(&["cache-control: max-age=600", &tag]))
            .api(ok::<&str>(&[]))
            .api(answer)
            .get()
            .stored()
            .ask_for(Method::PUT, WRITE)
            .wait(3)
            .get()
    };
    hold([
        row(
            "RFC 9110, 8.8.1: a strong tag promises equal bytes",
            "\"a\"",
            says::<&str>(304, &[]),
        )
        .sees("fwd=stale; fwd-status=304; stored; detail=fenced")
        .shows(1)
        .api_saw("if-none-match: \"a\"")
        .get()
        .hit(600),
        row(
            "RFC 9110, 8.8.1: a weak one does not",
            "W/\"a\"",
            ok(&["cache-control: max-age=600"]),
        )
        .sees("fwd=stale; stored; detail=fenced")
        .shows(3)
        .api_did_not_see("if-none-match"),
    ])
    .await;
}
