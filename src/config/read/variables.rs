//! Pure. Environment variables that begin like the program's name and are no keys of the
//! configuration.
//!
//! A name with one underscore too few must not be ignored in silence. Known are the two secrets and
//! what Kubernetes and Docker set for a service with the gateway's name.

use super::nearest::nearest;

/// The admin token.
pub const ADMIN_TOKEN: &str = "SEGMENT_GATEWAY_ADMIN_TOKEN";
/// The secret of the journal's key.
pub const JOURNAL_KEY: &str = "SEGMENT_GATEWAY_JOURNAL_KEY";
/// The prefix of all of them.
const PROGRAM: &str = "SEGMENT_GATEWAY";
/// Prefixes of variables of the build and of the tests, which may be set.
const ELSEWHERE: [&str; 5] = [
    "SEGMENT_GATEWAY_COMMIT",
    "SEGMENT_GATEWAY_BLESS",
    "SEGMENT_GATEWAY_CRASH_",
    "SEGMENT_GATEWAY_SIM_",
    "SEGMENT_GATEWAY_NEEDS_",
];

/// Returns whether a variable begins like the program's name, in any case, and is not known.
pub fn is_stranger(name: &str, value: &str) -> bool {
    let begins = name
        .get(..PROGRAM.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(PROGRAM));
    let is_known = [ADMIN_TOKEN, JOURNAL_KEY].contains(&name)
        || ELSEWHERE.iter().any(|known| name.starts_with(known));
    begins && !is_known && !is_service_link(name, value)
}

/// Returns whether Kubernetes ("Environment variables", "Accessing the Service") or Docker's links
/// set it for a service: `…_SERVICE_HOST`, `…_SERVICE_PORT_HTTP`, `…_PORT`, `…_PORT_80_TCP_ADDR`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_port = || {
        let (_, rest) = name.split_once("_PORT_")?;
        let (port, protocol) = rest.split_once('_')?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let protocol = protocol.split('_').next()?;
        Some(is_number && ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
        || is_port().unwrap_or(false)
}

/// Returns the expectation in place of an unknown variable; `known` are those that stand for keys.
pub(super) fn expected(name: &str, known: &[String]) -> String {
    // Underscores are what is mistyped most, and the part that all have in common is no
    // resemblance.
    let bare = |name: &str| {
        let rest = name.get(PROGRAM.len()..).unwrap_or_default();
        rest.trim_start_matches('_')
            .replace("__", "_")
            .to_ascii_lowercase()
    };
    let known = known.iter().map(String::as_str);
    let known: Vec<(String, &str)> = known
        .chain([ADMIN_TOKEN, JOURNAL_KEY])
        .map(|known| (bare(known), known))
        .collect();
    let nearest = nearest(&bare(name), known.iter().map(|(bare, _)| bare.as_str()));
    let nearest = nearest.and_then(|nearest| known.iter().find(|(bare, _)| bare == nearest));
    match nearest {
        Some((_, known)) => format!("{known} (the nearest)"),
        None => "SEGMENT_GATEWAY__SECTION__KEY with a section and key of the configuration, or no \
                 variable of this name"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_told_from_what_others_set() {
        for (name, value, stranger) in [
            ("SEGMENT_GATEWAY_LISTEN", "0.0.0.0:80", true),
            ("SEGMENT_GATEWAY_ADMIN_TOKEN_FILE", "/x", true),
            ("SEGMENT_GATEWAY_ADMINTOKEN", "secret", true),
            ("segment_gateway__listen", "127.0.0.1:1", true),
            ("SEGMENT_GATEWAYLISTEN", "", true),
            ("SEGMENT_GATEWAY_PORT", "8080", true),
            ("SEGMENT_GATEWAY_ADMIN_TOKEN", "secret", false),
            ("SEGMENT_GATEWAY_JOURNAL_KEY", "secret", false),
            ("SEGMENT_GATEWAY_SERVICE_HOST", "10.0.0.1", false),
            ("SEGMENT_GATEWAY_SERVICE_PORT", "80", false),
            ("SEGMENT_GATEWAY_SERVICE_PORT_HTTP", "80", false),
            ("SEGMENT_GATEWAY_PORT", "tcp://10.0.0.1:80", false),
            ("SEGMENT_GATEWAY_PORT_80_TCP", "tcp://10.0.0.1:80", false),
            ("SEGMENT_GATEWAY_PORT_8081_TCP_ADDR", "10.0.0.1", false),
            ("SEGMENT_GATEWAY_EU_PORT_80_TCP_PROTO", "tcp", false),
            ("SEGMENT_WRITE_KEY", "x", false),
            ("SÉGMENT", "x", false),
        ] {
            assert_eq!(is_stranger(name, value), stranger, "{name}={value}");
        }
    }

    #[test]
    fn the_nearest_is_found_whatever_the_underscores() {
        let known = ["SEGMENT_GATEWAY__LISTEN", "SEGMENT_GATEWAY__UPSTREAM__URL"];
        let known = known.map(str::to_owned);
        for (name, nearest) in [
            ("SEGMENT_GATEWAY_LISTEN", "SEGMENT_GATEWAY__LISTEN "),
            ("segment_gateway__listen", "SEGMENT_GATEWAY__LISTEN "),
            (
                "SEGMENT_GATEWAY_UPSTREAM_URL",
                "SEGMENT_GATEWAY__UPSTREAM__URL ",
            ),
            ("SEGMENT_GATEWAY_ADMINTOKEN", "SEGMENT_GATEWAY_ADMIN_TOKEN "),
            ("SEGMENT_GATEWAY_WHATEVER", "SEGMENT_GATEWAY__SECTION__KEY"),
        ] {
            let expected = expected(name, &known);
            assert!(expected.starts_with(nearest), "{name}: {expected}");
        }
    }
}
