//! What a write ends (RFC 9111, section 4.4), and what it does not.

use super::*;

/// The API may still show the old state: what a write has ended is neither stored nor shared.
const ENDED: &str = "fwd=bypass; detail=settling";

fn long() -> Response<Bytes> {
    ok(&["cache-control: max-age=600"])
}

/// A row in which the write of new invitations says that no answer depends on it.
fn undeclared(why: impl Into<String>) -> Exchange {
    rule(why).route(
        "writes = [\"invites\", \"user-lists\", \"users\"]",
        "writes = []",
    )
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
            .api(says::<&str>(200, &[]))
            .api(says(404, &["cache-control: max-age=60"]))
            .ask_for(Method::GET, "/users/u")
            .status(404)
            .stored()
            .ask_for(Method::GET, "/users/u")
            .status(404)
            .hit(60)
            .ask_for(Method::POST, "/sources")
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

/// The end of a write of this target, by another token, for what is stored of one reader.
fn refused_write(target: &'static str, status: u16) -> Exchange {
    stored(
        rule(format!("a write of {target} that is answered {status}")),
        USERS,
        ROLES,
    )
    .api(says::<&str>(status, &[]))
    .ask_for(Method::POST, target)
    .by("b")
    .status(status)
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_ends_no_more_than_it_can_have_changed() {
    let mut rows = Vec::new();
    // A token that the API does not know has changed nothing, whatever it asked for.
    for target in [UNKNOWN, WRITE, LABELS] {
        rows.push(refused_write(target, 401).on(USERS).get().hit(60));
    }
    // A path that no route matches: nothing was there to be changed.
    for status in [403, 404, 405, 415] {
        let row = refused_write(UNKNOWN, status).on(USERS).get().hit(60);
        rows.push(row.on(ROLES).get().hit(300));
    }
    // Another refusal there ends what the same credential was shown, and nobody else's.
    for status in [400, 409, 413, 422] {
        let row = refused_write(UNKNOWN, status).on(USERS).get().hit(60);
        let row = row.get().by("b").status(status).sees(ENDED);
        rows.push(row.on(ROLES).get().hit(300));
    }
    // What may have been carried out there ends everything.
    for status in [200, 204, 303, 500, 503] {
        let row = refused_write(UNKNOWN, status).on(USERS).get();
        rows.push(row.status(status).sees(ENDED));
    }
    // Of one element that was not there or may not be written nothing was changed either.
    for status in [403, 404, 405, 415] {
        for target in [WRITE, LABELS] {
            let row = refused_write(target, status).on(USERS).get().hit(60);
            rows.push(row.on(ROLES).get().hit(300));
        }
    }
    // A known operation may have applied a list in part: its tags are settled, and nothing else.
    let list = "/users/u/permissions?a.0=x&a.1=y";
    for (target, statuses) in [(WRITE, [400, 422, 500]), (list, [403, 404, 500])] {
        for status in statuses {
            let row = refused_write(target, status).on(USERS).get();
            let row = row.status(status).sees(ENDED);
            rows.push(row.on(ROLES).get().hit(300));
        }
    }
    hold(rows).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_names_no_credential_is_answered_here() {
    let nobody = ["", "Bearer", "bearer  ", "Basic", "secret"];
    let asks = [
        (Method::POST, UNKNOWN),
        (Method::POST, WRITE),
        (Method::DELETE, "/users?userIds.0=u"),
        (Method::GET, USERS),
        (Method::HEAD, "/users/u"),
        (Method::GET, ROLES),
        (Method::GET, "/invites"),
        (Method::GET, "/groups/g"),
    ];
    let mut rows = Vec::new();
    for (method, target) in asks {
        for authorization in nobody {
            let why = format!("{method} {target} with {authorization:?}");
            let row = stored(rule(why), USERS, ROLES)
                .ask_for(method.clone(), target)
                .authorized_by(authorization)
                .asked(0)
                .has("www-authenticate: Bearer");
            let row = if method == Method::HEAD {
                row.status(401)
            } else {
                row.error(401, "gateway-no-credential")
            };
            rows.push(row.on(USERS).get().hit(60));
        }
    }
    for target in ["/", LABELS, UNKNOWN] {
        let row = rule("other reads pass, and the API says what it thinks of them");
        let row = row
            .api(long())
            .ask_for(Method::GET, target)
            .authorized_by("");
        rows.push(row.sees("fwd=bypass; detail=no-credential").asked(1));
    }
    hold(rows).await;
}
