use super::*;

#[test]
fn only_what_was_sent_may_have_taken_effect() {
    let unknown = GatewayError::OutcomeUnknown {
        waited: Waited::TooLong,
        may_retry: false,
    };
    let facts = unknown.facts();
    assert!(facts.sent && !facts.may_retry);
    assert!(unknown.message().contains("may or may not"));
    let wait = GatewayError::QueueWait {
        estimate: Duration::from_millis(1_200),
        retry_after: Duration::from_secs(2),
    };
    let facts = wait.facts();
    assert!(!facts.sent && facts.may_retry);
    assert!(wait.message().contains("about 2 s"));
}

#[test]
fn unknown_outcomes_tell_timeouts_from_lost_connections() {
    let unknown = |waited| GatewayError::OutcomeUnknown {
        waited,
        may_retry: false,
    };
    assert_eq!(unknown(Waited::TooLong).facts().status, 504);
    assert_eq!(unknown(Waited::InVain).facts().status, 502);
}

#[test]
fn a_denial_names_the_client_and_the_operation() {
    let denied = GatewayError::Denied(Denial::Operation {
        client: "hr-sync".into(),
        operation: "deleteUsers".into(),
    });
    let message = denied.message();
    assert!(message.contains("`hr-sync`") && message.contains("`deleteUsers`"));
    assert_eq!(denied.facts().status, 403);
    assert!(!denied.facts().sent && !denied.facts().may_retry);
}

#[test]
fn a_refused_token_of_the_gateway_is_not_the_fault_of_its_caller() {
    let own = GatewayError::TokenRefused.facts();
    let held = GatewayError::HeldTokenRefused { sent: true }.facts();
    assert_eq!((own.kind, own.status.as_u16()), (held.kind, 401));
    assert_eq!(held.status, 503);
    assert!(held.may_retry && held.retry_after == Some(Duration::from_secs(10)));
}

fn one_of_each() -> Vec<GatewayError> {
    use GatewayError::*;
    let retry_after = Duration::from_secs(1);
    let estimate = retry_after;
    let outcome = |waited, may_retry| OutcomeUnknown { waited, may_retry };
    let pending = |sent| WritePending {
        retry_after,
        sent,
        id: "w".to_owned(),
    };
    let unreachable = |waited| UpstreamUnreachable {
        message: "x",
        waited,
    };
    let known = || KnownKey {
        client: "hr-sync".into(),
        id: "a1b2c3".into(),
    };
    vec![
        BadRequest("x"),
        NoCredential,
        KeyUnknown,
        KeyExpired(known()),
        KeyRevoked(known()),
        KeyRequired,
        Denied(Denial::Operation {
            client: "hr-sync".into(),
            operation: "deleteUsers".into(),
        }),
        Denied(Denial::NoToken {
            client: "hr-sync".into(),
        }),
        Denied(Denial::Certificate),
        NotFound,
        WrongListener,
        MethodRefused,
        HeadTimeout,
        BodyTimeout,
        BodyTooLarge(1),
        HeadTooLarge(1),
        CallerQuota { retry_after },
        QueueWait {
            estimate,
            retry_after,
        },
        QueueFull { retry_after },
        QueueExpired { retry_after },
        Draining,
        Overloaded,
        NotCached,
        unreachable(Waited::TooLong),
        unreachable(Waited::InVain),
        UpstreamTimeout,
        UpstreamBroken,
        UpstreamUnreadable("x"),
        outcome(Waited::TooLong, true),
        outcome(Waited::Unrecorded, false),
        TokenRefused,
        HeldTokenRefused { sent: true },
        HeldTokenRefused { sent: false },
        Unauthorized,
        NotAllowed("GET"),
        WriteCancelled,
        GivenUp,
        WriteSent,
        KeyReused,
        AnswerLost(200),
        pending(true),
        pending(false),
        JournalBroken,
        JournalFull,
        AuditUnavailable,
        TooManyEnded,
        Internal,
    ]
}

/// A row of `docs/errors.md`; whether something was sent stands in some of its tables.
struct Documented {
    kind: &'static str,
    status: &'static str,
    sent: Option<&'static str>,
}

fn documented() -> Vec<Documented> {
    let mut rows = Vec::new();
    let mut has_sent = false;
    for line in include_str!("../../docs/errors.md").lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            ["type", ..] => has_sent = cells.contains(&"sent?"),
            [kind, status, sent, ..] if kind.starts_with("`gateway-") => rows.push(Documented {
                kind: kind.trim_matches('`'),
                status,
                sent: has_sent.then(|| sent.trim_matches('*')),
            }),
            _ => {}
        }
    }
    rows
}

#[test]
fn the_documented_errors_are_those_of_the_table() {
    let documented = documented();
    let errors = one_of_each();
    for error in &errors {
        let facts = error.facts();
        let row = documented.iter().find(|row| row.kind == facts.kind);
        let row = row.unwrap_or_else(|| panic!("docs/errors.md lacks {}", facts.kind));
        assert!(row.status.contains(facts.status.as_str()), "{error:?}");
        let sent = if facts.sent { "yes" } else { "no" };
        let said = row.sent.unwrap_or("no");
        assert!(said == sent || said == "perhaps", "{error:?}: {said}");
        assert!(!error.message().contains("{}"), "{error:?}");
    }
    for row in &documented {
        let is_known = errors.iter().any(|error| error.facts().kind == row.kind);
        assert!(is_known, "no error has the type {}", row.kind);
    }
    let rows = include_str!("../error.rs")
        .matches("row(\"gateway-")
        .count()
        + include_str!("../error.rs").matches("row(\n").count();
    assert_eq!(
        documented.len(),
        rows,
        "each row stands once in the document"
    );
}
