use super::*;

const SECRET: &str = "a-token-of-operators";
const LOCAL: &str = "127.0.0.1";
const OTHER: &str = "10.0.0.7";

fn asked(access: &Access, peer: &str, path: &str, authorization: &str) -> Result<(), Denied> {
    let mut request = Request::get(path).header("host", "10.0.0.1:8081");
    if !authorization.is_empty() {
        request = request.header("authorization", authorization);
    }
    access.admit(&request.body(()).unwrap(), at(peer), false)
}

fn at(peer: &str) -> AdminPeer {
    AdminPeer::Address(peer.parse().unwrap())
}

fn access(public: bool, open: bool, token: bool) -> Access {
    Access {
        loopback: true,
        public,
        open,
        token: token.then(|| Token::new(SECRET.as_bytes()).unwrap()),
        hosts: Vec::new(),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn who_sees_what() {
    use Denied::{Address, Closed, NoToken, WrongToken};
    let bearer = format!("Bearer {SECRET}");
    let basic = format!("Basic {}", STANDARD.encode(format!("any:{SECRET}")));
    let wrong = "Bearer another-token-of-others";
    type Row<'r> = (Access, &'r str, &'r str, &'r str, Result<(), Denied>);
    let rows: &[Row<'_>] = &[
        // Nothing configured: loopback alone.
        (access(false, false, false), LOCAL, "/status", "", Ok(())),
        (
            access(false, false, false),
            "::ffff:127.0.0.1",
            "/",
            "",
            Ok(()),
        ),
        (
            access(false, false, false),
            OTHER,
            "/status",
            "",
            Err(Address),
        ),
        (
            access(false, false, false),
            OTHER,
            "/metrics",
            "",
            Err(Address),
        ),
        (
            access(false, false, false),
            OTHER,
            "/status",
            &bearer,
            Err(Address),
        ),
        // Probes and metrics.
        (access(true, false, false), OTHER, "/metrics", "", Ok(())),
        (access(true, false, false), OTHER, "/livez", "", Ok(())),
        (
            access(true, false, false),
            OTHER,
            "/metrics/",
            "",
            Err(Closed),
        ),
        (access(true, false, false), OTHER, "/", "", Err(Closed)),
        (
            access(true, false, false),
            OTHER,
            "/writes",
            &bearer,
            Err(Closed),
        ),
        // A token: for everybody, since a proxy on this machine is a loopback peer.
        (access(false, false, true), LOCAL, "/metrics", "", Ok(())),
        (
            access(false, false, true),
            LOCAL,
            "/status",
            "",
            Err(NoToken),
        ),
        (
            access(false, false, true),
            LOCAL,
            "/status",
            wrong,
            Err(WrongToken),
        ),
        (
            access(false, false, true),
            LOCAL,
            "/status",
            &bearer,
            Ok(()),
        ),
        (
            access(false, false, true),
            OTHER,
            "/metrics",
            "",
            Err(NoToken),
        ),
        (
            access(false, false, true),
            OTHER,
            "/metrics",
            &bearer,
            Ok(()),
        ),
        (access(false, false, true), OTHER, "/", &basic, Ok(())),
        (
            access(false, false, true),
            OTHER,
            "/",
            "Basic !",
            Err(WrongToken),
        ),
        (
            access(false, false, true),
            OTHER,
            "/",
            "Bearer ",
            Err(WrongToken),
        ),
        (
            access(false, false, true),
            OTHER,
            "/",
            SECRET,
            Err(WrongToken),
        ),
        (access(true, false, true), OTHER, "/metrics", "", Ok(())),
        (
            access(true, false, true),
            OTHER,
            "/status",
            "",
            Err(NoToken),
        ),
        // Whoever can connect.
        (access(false, true, false), OTHER, "/writes", "", Ok(())),
    ];
    for (access, peer, path, authorization, expected) in rows {
        let found = asked(access, peer, path, authorization);
        assert_eq!(found, *expected, "{access:?} {peer} {path} {authorization}");
    }
}

#[test]
fn a_second_authorization_is_none() {
    let bearer = format!("Bearer {SECRET}");
    let request = Request::get("/")
        .header("host", "localhost")
        .header("authorization", &bearer)
        .header("authorization", &bearer)
        .body(())
        .unwrap();
    let found = access(false, false, true).admit(&request, at(OTHER), false);
    assert_eq!(found, Err(Denied::WrongToken));
}

#[test]
fn neither_openness_nor_the_token_makes_a_browser_a_tool() {
    let bearer = format!("Bearer {SECRET}");
    for access in [access(true, true, false), access(false, false, true)] {
        let of = |host: &str, more: &[(&str, &str)], method: &str| {
            let mut request = Request::builder().method(method).uri("/writes");
            request = request
                .header("host", host)
                .header("authorization", &bearer);
            for (name, value) in more {
                request = request.header(*name, *value);
            }
            access.admit(&request.body(()).unwrap(), at(LOCAL), false)
        };
        assert_eq!(of("evil.example", &[], "GET"), Err(Denied::Host));
        let origin = [("origin", "http://evil.example")];
        assert_eq!(of("localhost:8081", &origin, "GET"), Err(Denied::Origin));
        let own = [("origin", "http://localhost:8081")];
        assert_eq!(of("localhost:8081", &own, "GET"), Ok(()));
        assert_eq!(of("localhost:8081", &own, "POST"), Err(Denied::Header));
        let says_so = [("x-gateway-admin", "1")];
        assert_eq!(of("localhost:8081", &says_so, "POST"), Ok(()));
    }
}

#[test]
fn every_reason_has_a_series_before_it_happens() {
    let metrics = crate::metrics::Metrics::new(&[]).unwrap();
    metrics.expect_admin_rejections(Denied::ALL.map(Denied::as_str));
    let text = metrics.render(&[], &crate::metrics::Levels::default());
    let text = String::from_utf8(text).unwrap();
    for why in Denied::ALL {
        let line = format!(
            "segment_gateway_admin_rejections_total{{reason=\"{}\"}} 0",
            why.as_str()
        );
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn a_token_must_be_one() {
    for (secret, fit) in [
        ("0123456789abcdef", true),
        ("0123456789abcdef\r\n", true),
        ("0123456789abcde", false),
        ("0123456789abcdef 0", false),
        ("0123456789abcdefé", false),
        ("", false),
        (&"x".repeat(1_025), false),
    ] {
        assert_eq!(Token::new(secret.as_bytes()).is_some(), fit, "{secret}");
    }
    let shown = format!("{:?}", Token::new(SECRET.as_bytes()));
    assert!(!shown.contains("token-of"), "{shown}");
}

/// A proxy, a sidecar and a forwarded port are loopback peers of a listener that others reach.
#[test]
fn a_loopback_peer_is_like_others_where_others_can_connect() {
    let bearer = format!("Bearer {SECRET}");
    for (public, open, token) in [
        (false, false, false),
        (true, false, false),
        (false, false, true),
        (true, false, true),
        (false, true, false),
    ] {
        let access = Access {
            loopback: false,
            ..access(public, open, token)
        };
        for path in ["/metrics", "/livez", "/status", "/writes"] {
            for authorization in ["", &bearer, "Bearer another-token-of-others"] {
                let of = |peer| asked(&access, peer, path, authorization);
                let other = of(OTHER);
                assert_eq!(of(LOCAL), other, "{access:?} {path}");
                assert_eq!(of("::1"), other, "{access:?} {path}");
            }
        }
    }
}

/// A mesh delivers requests of other machines to a loopback listener from addresses of its own.
#[test]
fn the_sidecar_of_a_mesh_is_no_program_of_this_machine() {
    let access = access(false, false, false);
    for (peer, is_local) in [
        ("127.0.0.1", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("127.0.0.6", false),
        ("::ffff:127.0.0.6", false),
    ] {
        for path in ["/status", "/writes"] {
            let admitted = asked(&access, peer, path, "").is_ok();
            assert_eq!(admitted, is_local, "{peer} {path}");
        }
        assert_eq!(asked(&access, peer, "/livez", ""), Ok(()));
    }
}

#[test]
fn whoever_opens_the_socket_may_do_everything() {
    let request = Request::delete("/writes/1").body(()).unwrap();
    let access = access(false, false, true);
    assert_eq!(access.admit(&request, AdminPeer::Socket, true), Ok(()));
}

#[test]
fn in_a_pause_the_right_token_alone_is_let_in() {
    let bearer = format!("Bearer {SECRET}");
    let access = access(false, false, true);
    let ask = |path: &str, authorization: &str| {
        let mut request = Request::get(path).header("host", "localhost");
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        access.admit(&request.body(()).unwrap(), at(LOCAL), true)
    };
    assert_eq!(ask("/status", &bearer), Ok(()));
    assert_eq!(ask("/status", "Bearer wrong"), Err(Denied::Paused));
    assert_eq!(ask("/status", ""), Err(Denied::NoToken));
    assert_eq!(ask("/metrics", &bearer), Ok(()));
}

#[test]
fn what_the_log_says_of_a_listener_is_what_holds() {
    for loopback in [true, false] {
        for bits in 0..8_u8 {
            let access = Access {
                loopback,
                ..access(bits & 1 > 0, bits & 2 > 0, bits & 4 > 0)
            };
            let may = |peer: &str, path: &str| asked(&access, peer, path, "").is_ok();
            let said = access.summary();
            let all = said.contains("anyone who can connect may do everything");
            assert_eq!(may(OTHER, "/writes"), all, "{access:?}: {said}");
            let here = all || said.contains("anyone on this machine may do everything");
            assert_eq!(may(LOCAL, "/writes"), here, "{access:?}: {said}");
            let probes = all || said.contains("anyone may read probes");
            // Where this machine may do everything, others may have probes as well.
            let probes = probes || here && access.public;
            assert_eq!(may(OTHER, "/metrics"), probes, "{access:?}: {said}");
            let local = probes || here || said.contains("this machine may read probes");
            assert_eq!(may(LOCAL, "/metrics"), local, "{access:?}: {said}");
        }
    }
}
