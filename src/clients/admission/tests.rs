use super::*;
use crate::clients::registry::TokenFile;
use crate::clients::rights::{OperationIndex, Rights};
use crate::route::{Defaults, Table};
use proptest::prelude::*;
use std::time::Duration;

const SPIFFE: &str = "spiffe://example.com/hr-sync";
const DNS: &str = "reports.example.com";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Two clients: `hr-sync` with a token, a certificate and two keys, of which the second expires at
/// 100 s; `reports` without a token, with a certificate and one key.
struct Fixture {
    keys: [ClientKey; 3],
    clients: [Arc<NamedClient>; 2],
}

impl Fixture {
    fn new() -> Self {
        let table = Table::build(Vec::new(), Defaults::default(), 1).unwrap();
        let rights = Rights::none(&OperationIndex::of(&table));
        let client = |name: &str, token: Option<&str>, certificate: &str| {
            Arc::new(NamedClient {
                name: name.into(),
                token: token.map(Into::into),
                rights: rights.clone(),
                rate: None,
                share: 1,
                certificates: vec![certificate.into()],
            })
        };
        Self {
            keys: [(); 3].map(|()| ClientKey::generate().unwrap()),
            clients: [
                client("hr-sync", Some("provisioning"), SPIFFE),
                client("reports", None, DNS),
            ],
        }
    }

    fn clients(&self, mode: CredentialMode) -> Clients {
        let entry = |key: usize, client: usize, expires| KeyEntry {
            id: self.keys[key].id(),
            digest: self.keys[key].digest(),
            expires,
            client: self.clients[client].clone(),
        };
        let keys = vec![
            entry(0, 0, None),
            entry(1, 0, Some(at(100))),
            entry(2, 1, None),
        ];
        let tokens = vec![TokenFile {
            name: "provisioning".into(),
            path: "/token".into(),
        }];
        Clients::new(mode, self.clients.to_vec(), keys, tokens)
    }

    fn key(&self, number: usize) -> Vec<u8> {
        self.keys[number].reveal().as_bytes().to_vec()
    }
}

/// The outcome of an admission in one line.
fn outcome(result: Result<ClientAdmission, GatewayError>) -> String {
    match result {
        Ok(admitted) => {
            let client = admitted.client.map(|client| client.name.to_string());
            let client = client.unwrap_or_else(|| "-".to_owned());
            match admitted.credential {
                CredentialSource::Own => format!("{client} own"),
                CredentialSource::Held(name) => format!("{client} held {name}"),
            }
        }
        Err(GatewayError::Denied(denial)) => match denial {
            Denial::NoToken { client } => format!("no token {client}"),
            other => format!("{other:?}"),
        },
        Err(error) => error.facts().kind.trim_start_matches("gateway-").to_owned(),
    }
}

/// Mode, `Authorization`, `X-Gateway-Key`, names in the certificate, and the expected outcome.
type Row<'a> = (CredentialMode, &'a [u8], &'a [u8], &'a [&'a str], &'a str);

#[test]
fn a_table_of_credentials() {
    use CredentialMode::{Both, Managed, Own};
    let fixture = Fixture::new();
    let own = b"sgp_token".to_vec();
    let [hr, ends, reports] = [0, 1, 2].map(|key| fixture.key(key));
    let mut wrong = hr.clone();
    wrong[20] ^= 1;
    let stranger = ClientKey::generate().unwrap().reveal().as_bytes().to_vec();
    let quoted = [b"Token \"", &hr[..], b"\""].concat();
    let (none, spiffe, dns) = (&[][..], &[SPIFFE][..], &[DNS][..]);
    let two = &[SPIFFE, DNS][..];
    let (nothing, reserved) = (Vec::new(), b"sgw_".to_vec());
    #[rustfmt::skip] // a table
    let table: &[Row<'_>] = &[
        // Without clients.
        (Own, &own, &nothing, none, "- own"),
        (Own, &nothing, &nothing, none, "- own"),
        (Own, &own, &nothing, spiffe, "- own"),
        (Own, &hr, &nothing, none, "key-unknown"),
        (Own, &reserved, &nothing, none, "key-unknown"),
        (Own, &quoted, &nothing, none, "key-unknown"),
        (Own, &own, &hr, none, "key-unknown"),
        (Own, &own, &own, none, "key-unknown"),
        // A key in place of a token.
        (Managed, &hr, &nothing, none, "hr-sync held provisioning"),
        (Managed, &ends, &nothing, none, "hr-sync held provisioning"),
        (Managed, &nothing, &hr, none, "hr-sync held provisioning"),
        (Managed, &hr, &hr, none, "hr-sync held provisioning"),
        (Managed, &hr, &ends, none, "key-unknown"),
        (Managed, &hr, &reserved, none, "key-unknown"),
        (Managed, &wrong, &nothing, none, "key-unknown"),
        (Managed, &stranger, &nothing, none, "key-unknown"),
        (Managed, &reserved, &nothing, none, "key-unknown"),
        (Managed, &quoted, &nothing, none, "key-unknown"),
        (Managed, &reports, &nothing, none, "no token reports"),
        // A token where there must be none.
        (Managed, &own, &nothing, none, "key-required"),
        (Managed, &own, &hr, none, "key-required"),
        (Managed, &own, &stranger, none, "key-unknown"),
        (Managed, &own, &nothing, spiffe, "key-required"),
        (Managed, &nothing, &nothing, none, "- own"),
        // A key beside a token.
        (Both, &own, &nothing, none, "- own"),
        (Both, &own, &hr, none, "hr-sync own"),
        (Both, &own, &reports, none, "reports own"),
        (Both, &own, &stranger, none, "key-unknown"),
        (Both, &own, &own, none, "key-unknown"),
        (Both, &hr, &nothing, none, "hr-sync held provisioning"),
        (Both, &nothing, &reports, none, "no token reports"),
        // Certificates.
        (Managed, &nothing, &nothing, spiffe, "hr-sync held provisioning"),
        (Managed, &nothing, &nothing, dns, "reports own"),
        (Managed, &nothing, &nothing, &["other.example"], "- own"),
        (Managed, &nothing, &nothing, two, "Certificate"),
        (Managed, &hr, &nothing, spiffe, "hr-sync held provisioning"),
        (Managed, &hr, &nothing, &["other.example"], "hr-sync held provisioning"),
        (Managed, &hr, &nothing, dns, "Certificate"),
        (Managed, &hr, &nothing, two, "Certificate"),
        (Managed, &stranger, &nothing, spiffe, "key-unknown"),
        (Both, &own, &nothing, dns, "reports own"),
        (Both, &own, &hr, dns, "Certificate"),
    ];
    for (row, (mode, authorization, gateway_key, names, expected)) in table.iter().enumerate() {
        let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
        let presented = PresentedCredentials {
            authorization: Some(*authorization),
            gateway_key: Some(*gateway_key).filter(|key| !key.is_empty()),
            certificate: &names,
        };
        let found = admit(&fixture.clients(*mode), &presented, at(99));
        assert_eq!(outcome(found), *expected, "row {row}");
    }
}

#[test]
fn an_empty_key_is_no_key() {
    let fixture = Fixture::new();
    for mode in [
        CredentialMode::Own,
        CredentialMode::Both,
        CredentialMode::Managed,
    ] {
        let presented = PresentedCredentials {
            gateway_key: Some(b""),
            ..PresentedCredentials::default()
        };
        let found = admit(&fixture.clients(mode), &presented, at(0));
        assert_eq!(outcome(found), "key-unknown");
    }
}

#[test]
fn a_key_is_accepted_until_the_instant_at_which_it_expires() {
    let fixture = Fixture::new();
    let clients = fixture.clients(CredentialMode::Managed);
    let key = fixture.key(1);
    let presented = PresentedCredentials {
        authorization: Some(&key),
        ..PresentedCredentials::default()
    };
    let last = at(100) - Duration::from_nanos(1);
    let admitted = admit(&clients, &presented, last).unwrap();
    assert_eq!(admitted.until, Some(at(100)));
    assert_eq!(admitted.key, Some(fixture.keys[1].id()));
    for now in [at(100), at(101)] {
        assert_eq!(outcome(admit(&clients, &presented, now)), "key-expired");
    }
    // An expired key with a wrong secret tells nothing about the right one.
    let entry = KeyEntry {
        digest: fixture.keys[0].digest(),
        ..clients.key(fixture.keys[1].id()).unwrap().clone()
    };
    let clients = Clients::new(CredentialMode::Managed, Vec::new(), vec![entry], Vec::new());
    assert_eq!(outcome(admit(&clients, &presented, at(101))), "key-unknown");
}

#[test]
fn a_revoked_key_is_known_for_what_it_is_and_its_sender_hears_of_an_unknown_one() {
    let fixture = Fixture::new();
    let revoked = [fixture.keys[0].id().as_str().into()].into();
    // A second revocation does not forget the first.
    let other = [fixture.keys[2].id().as_str().into()].into();
    let clients = fixture.clients(CredentialMode::Managed);
    let clients = clients.without(&revoked).without(&other);
    for (number, client) in [(0, "hr-sync"), (2, "reports")] {
        let mut key = fixture.key(number);
        let known = KnownKey {
            client: client.into(),
            id: fixture.keys[number].id().as_str().into(),
        };
        let shown = |key: &[u8]| {
            let presented = PresentedCredentials {
                authorization: Some(key),
                ..PresentedCredentials::default()
            };
            admit(&clients, &presented, at(0)).unwrap_err()
        };
        let error = shown(&key);
        assert_eq!(error.message(), GatewayError::KeyUnknown.message());
        assert_eq!(error, GatewayError::KeyRevoked(known));
        // Its id alone is nothing.
        key[20] ^= 1;
        assert_eq!(shown(&key), GatewayError::KeyUnknown);
    }
}

/// Parts of which credentials are made at random: keys of the fixture by number, and other texts.
#[derive(Clone, Debug)]
enum Part {
    Key(usize),
    Text(&'static str),
}

fn part() -> impl Strategy<Value = Part> {
    const TEXTS: &[&str] = &[
        "",
        "sgp_token",
        "sgw_",
        "sgw_x",
        "Basic eDp5",
        "Basic c2d3X3g6eQ==",
        "Token sgw_a",
    ];
    prop_oneof![
        (0..3_usize).prop_map(Part::Key),
        proptest::sample::select(TEXTS).prop_map(Part::Text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn who_is_admitted_has_shown_a_right_to_it(
        mode in proptest::sample::select(&[
            CredentialMode::Own,
            CredentialMode::Both,
            CredentialMode::Managed,
        ][..]),
        authorization in proptest::option::of(part()),
        gateway_key in proptest::option::of(part()),
        // One character of a key is replaced: at 0 to 60, else none.
        damage in 0..120_usize,
        certificate in proptest::sample::subsequence(vec![SPIFFE, DNS, "other.example"], 0..3),
        seconds in 95..105_u64,
    ) {
        let fixture = Fixture::new();
        let clients = fixture.clients(mode);
        let text = |part: &Part| match part {
            Part::Text(text) => text.as_bytes().to_vec(),
            Part::Key(number) => {
                let mut key = fixture.key(*number);
                if let Some(byte) = key.get_mut(damage) {
                    *byte = if *byte == b'0' { b'1' } else { b'0' };
                }
                key
            }
        };
        let (authorization, gateway_key) = (authorization.map(|p| text(&p)), gateway_key.map(|p| text(&p)));
        let names: Vec<Box<str>> = certificate.iter().map(|name| (*name).into()).collect();
        let presented = PresentedCredentials {
            authorization: authorization.as_deref(),
            gateway_key: gateway_key.as_deref(),
            certificate: &names,
        };
        let now = at(seconds);
        let Ok(admitted) = admit(&clients, &presented, now) else { return Ok(()); };
        let shows = |text: &[u8]| [&authorization, &gateway_key].iter().any(|shown| shown.as_deref() == Some(text));
        if let Some(client) = &admitted.client {
            prop_assert_ne!(mode, CredentialMode::Own);
            let by_key = fixture.keys.iter().enumerate().any(|(number, key)| {
                let is_valid = number != 1 || seconds < 100;
                let is_theirs = (number < 2) == (&*client.name == "hr-sync");
                is_valid && is_theirs && shows(key.reveal().as_bytes())
            });
            let by_certificate = client.certificates.iter().any(|name| names.contains(name));
            prop_assert!(by_key || by_certificate);
        }
        let token = authorization.as_deref().filter(|token| !token.is_empty());
        match &admitted.credential {
            CredentialSource::Own => {
                prop_assert!(!token.is_some_and(|token| token.windows(4).any(|w| w == b"sgw_")));
                prop_assert!(mode != CredentialMode::Managed || token.is_none());
            }
            CredentialSource::Held(name) => {
                let client = admitted.client.as_ref();
                prop_assert_eq!(client.and_then(|client| client.token.as_ref()), Some(name));
                prop_assert!(token.is_none_or(is_key));
            }
        }
        prop_assert!(admitted.until.is_none_or(|until| now < until));
    }
}
