//! Pure. Conditions between values: what must hold, and what is allowed but probably not meant.
//!
//! The bounds of single values are in `keys.rs`. Here every value is within its bounds, or is the
//! default where it was not. A condition that fails is a problem, and the gateway does not start; a
//! warning is a sentence in the log and in the output of `check`.
//!
//! A reload checks the mixture of new values and old ones that wait for a restart in the same way.
//!
//! Rules for what belongs where: a problem if values contradict each other, if some request could
//! never succeed, or if a promise of the gateway would not hold; a warning if the gateway works and
//! the operator probably expects something else. Nothing is read from disk or resolved here, so the
//! result depends on the configuration alone.

use super::keys::{Config, UpstreamConfig};
use super::problem::{ConfigProblem, Place};
use super::units;
use super::value::ConfigValue;
use super::words::Mode;
use crate::clients::CredentialMode;
use http::Uri;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

mod tls;

/// The places of the values that were written, by key.
pub type Places = BTreeMap<String, Place>;

/// Returns everything that is wrong with a configuration as a whole. Where several values
/// contradict each other, the problem is placed at the first that was written.
pub fn problems(config: &Config, places: &Places) -> Vec<ConfigProblem> {
    // All checks run: an operator gets every mistake at once. Their order is that of the sections,
    // and the caller sorts problems by place.
    let mut check = Check {
        places,
        problems: Vec::new(),
    };
    check.upstream(&config.upstream);
    check.listeners(config);
    check.tls(config);
    check.waits(config);
    check.sizes(config);
    check.callers(config);
    check.problems
}

/// Returns everything that is wrong with a configuration that was not read from a document.
pub fn contradictions(config: &Config) -> Vec<ConfigProblem> {
    problems(config, &Places::new())
}

/// Returns what is allowed but deserves a second look, one sentence each. `has_admin_token` is
/// whether a token opens the admin listener, from a file or from the environment.
pub fn warnings(config: &Config, has_admin_token: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    // Correct on the first days and easily forgotten later, so each start says it.
    if config.mode == Mode::Shadow {
        warnings.push(
            "mode is \"shadow\": requests are forwarded at once and limits are NOT enforced; the \
             gateway only tells what it would have done"
                .to_owned(),
        );
    }
    // No request shows that it travels in the clear, so each start says it. It is right behind a
    // TLS terminator or inside a container, which the configuration does not show. A problem would
    // keep every such gateway from starting.
    if config.tls.certificate_file.is_none() && !super::is_loopback(config.listen) {
        warnings.push(format!(
            "listen is {}, which other machines reach, and there is no TLS: callers' tokens travel in the \
             clear. Set tls.certificate_file and tls.key_file, or put a TLS terminator in front and \
             let only it reach this address",
            config.listen,
        ));
    }
    warnings.extend(admin_in_clear(config, has_admin_token));
    let show = units::show_duration;
    // A wait that the timeout in front cuts short is shortened by the gateway; the configured value
    // has no effect then.
    if let Some(timeout) = config.wait.caller_timeout {
        for (key, wait) in [
            ("write.max_wait", config.write.max_wait),
            ("read.max_wait", config.read.max_wait),
        ] {
            if timeout < wait {
                warnings.push(format!(
                    "{key} is {}, but wait.caller_timeout is {}: no request waits longer than that",
                    show(wait),
                    show(timeout),
                ));
            }
        }
    }
    // Not a problem: a fast API never needs the whole time.
    let answer = config.upstream.total_timeout;
    if config.server.response_timeout < answer {
        warnings.push(format!(
            "server.response_timeout is {}, less than upstream.total_timeout ({}): an answer that \
             the API takes its time over is cut off",
            show(config.server.response_timeout),
            show(answer),
        ));
    }
    // Said at each start, because the listener itself asks nobody for anything.
    if config.admin.open {
        warnings.push(format!(
            "admin.open is true: whoever can connect to {} may look at everything, purge the cache \
             and cancel writes, without a token",
            config.admin.listen,
        ));
    }
    // Allowed for trials and for simulations, never what a production node should do.
    if config.state.directory.is_none() {
        warnings.push(
            "state.directory is empty: a restart knows nothing of what was sent and begins with one request per budget, and no write outlasts a crash"
                .to_owned(),
        );
    }
    // The state directory has a key of its own. Without either, logs of two starts cannot be
    // compared.
    if config.credentials.key_file.is_none() && config.state.directory.is_none() {
        let names = &config.credentials.names;
        warnings.push(format!(
            "credentials.key_file and state.directory are not set: the hashes that stand for \
             credentials change with each start{}",
            match names.is_empty() {
                true => "",
                false => ", so credentials.names will name none of them",
            }
        ));
    }
    warnings
}

/// Returns that the admin token travels in the clear, for the same reason as callers' tokens.
/// Whoever reads it may purge the cache, and cancel and rebind writes.
fn admin_in_clear(config: &Config, has_token: bool) -> Option<String> {
    let admin = &config.admin;
    let is_reached = admin.tls.certificate_file.is_none() && !super::is_loopback(admin.listen);
    (is_reached && has_token).then(|| {
        format!(
            "admin.listen is {}, which other machines reach, and there is no TLS: the admin token \
             travels in the clear. Set admin.tls.certificate_file and admin.tls.key_file, or put a \
             TLS terminator in front and let only it reach this address",
            admin.listen,
        )
    })
}

/// The problems found so far, and the places where values were written.
struct Check<'p> {
    places: &'p Places,
    problems: Vec<ConfigProblem>,
}

impl Check<'_> {
    /// Adds a problem; `keys` are those that contradict each other. It is placed at the first that
    /// was written, because the operator can change that one. Without any, it names the first key.
    fn add(&mut self, keys: &[&str], found: impl Into<String>, expected: impl Into<String>) {
        let written = keys.iter().find(|key| self.places.contains_key(**key));
        let Some(key) = written.or(keys.first()) else {
            return;
        };
        let place = self.places.get(*key).cloned();
        let problem = ConfigProblem::new(place, *key, found, expected);
        self.problems.push(problem);
    }

    /// Requires that the value of the first key is not above that of the second. Equal values are
    /// fine.
    fn ordered<T: PartialOrd + ConfigValue>(&mut self, low: (&str, &T), high: (&str, &T)) {
        if low.1 > high.1 {
            // Both values are shown, because either may be the wrong one.
            let (low_value, high_value) = (low.1.show(), high.1.show());
            let found = format!("{} {low_value} and {} {high_value}", low.0, high.0);
            let expected = format!("{} of at most {}", low.0, high.0);
            self.add(&[low.0, high.0], found, expected);
        }
    }

    /// The URL, and timeouts up to the total one. The total begins when the request is sent.
    fn upstream(&mut self, upstream: &UpstreamConfig) {
        const KEY: &[&str] = &["upstream.url"];
        if let Err((found, expected)) = url(upstream) {
            self.add(KEY, found, expected);
        }
        // A head or a pause beyond the total never times out, and an operator who raised it would
        // wait for a change in vain. Connecting comes before the total and is bounded by it all the
        // same: a longer value is a slip.
        let total = ("upstream.total_timeout", &upstream.total_timeout);
        for (key, value) in [
            ("upstream.connect_timeout", &upstream.connect_timeout),
            ("upstream.head_timeout", &upstream.head_timeout),
            ("upstream.idle_body_timeout", &upstream.idle_body_timeout),
        ] {
            self.ordered((key, value), total);
        }
        // A connection cannot be idle for longer than it lives.
        self.ordered(
            ("upstream.connection_idle", &upstream.connection_idle),
            (
                "upstream.connection_lifetime",
                &upstream.connection_lifetime,
            ),
        );
    }

    /// Clients where there are to be some, and only there. Whoever names a file believes that keys
    /// are checked.
    fn callers(&mut self, config: &Config) {
        let (mode, file) = (config.callers.credentials, &config.callers.clients_file);
        let keys = &["callers.clients_file", "callers.credentials"];
        // Neither is guessed from the other: a file that is not used must not look as if it were,
        // and keys that nobody could have must not be asked for.
        let found = match (mode, file) {
            (CredentialMode::Own, Some(_)) => {
                let found = "a file, and callers.credentials is \"own\"";
                let expected = "\"both\" or \"managed\" for callers.credentials, or no file";
                return self.add(keys, found, expected);
            }
            (CredentialMode::Own, None) | (_, Some(_)) => return,
            (mode, None) => format!("{:?} without callers.clients_file", mode.as_str()),
        };
        let expected = "a file of clients for callers.clients_file, or \"own\"";
        self.add(&["callers.credentials"], found, expected);
    }

    /// Two listeners, and the names of the admin listener.
    fn listeners(&mut self, config: &Config) {
        // The second bind would fail anyway. Here both keys are named, and `check` finds it without
        // a bind.
        if overlap(config.listen, config.admin.listen) {
            let found = format!("{} and {}", config.listen, config.admin.listen);
            self.add(
                &["admin.listen", "listen"],
                found,
                "two listeners that differ in port or address",
            );
        }
        for host in &config.admin.hosts {
            // As `Host` has them: compared with what a client sends, without its port.
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            // Case does not matter in a host name (RFC 9110, section 4.2.3). One spelling is asked
            // for, so that a name is found again in a file.
            if host.is_empty()
                || !host.bytes().all(plain)
                || host.bytes().any(|b| b.is_ascii_uppercase())
            {
                let found = units::quoted(host);
                self.add(
                    &["admin.hosts"],
                    found,
                    "host names in lower case, without scheme and port",
                );
            }
        }
    }

    /// Waits up to the cap, and a settle time within the time in which a write may still arrive.
    fn waits(&mut self, config: &Config) {
        // A default wait above the cap could not be asked for by any caller.
        let cap = ("wait.cap", &config.wait.cap);
        self.ordered(("write.max_wait", &config.write.max_wait), cap);
        self.ordered(("read.max_wait", &config.read.max_wait), cap);
        // Slots, lanes and tags of an abandoned write are kept for the late-arrival bound. A longer
        // settle time would be a claim that the API lags behind even that.
        let late = ("budget.late_arrival", &config.budget.late_arrival);
        self.ordered(("cache.settling", &config.cache.settling), late);
        if config
            .wait
            .caller_timeout
            .is_some_and(|timeout| timeout.is_zero())
        {
            self.add(
                &["wait.caller_timeout"],
                "0s",
                "a time above 0, or no value",
            );
        }
    }

    /// Parts that fit into their wholes: otherwise the largest body that is accepted could never be
    /// stored, queued or kept.
    fn sizes(&mut self, config: &Config) {
        // Each pair by itself, so that every mistake is named at once.
        self.ordered(
            ("cache.largest_body", &config.cache.largest_body),
            ("cache.bytes", &config.cache.bytes),
        );
        self.ordered(
            ("server.body_bytes", &config.server.body_bytes),
            ("queue.bytes", &config.queue.bytes),
        );
        // A peer has at most half of the memory of bodies.
        let (body, bodies) = (config.server.body_bytes, config.server.bodies_bytes);
        if body.0 > bodies.0 / 2 {
            self.add(
                &["server.body_bytes", "server.bodies_bytes"],
                format!("server.body_bytes {body} and server.bodies_bytes {bodies}"),
                "server.body_bytes of at most half of server.bodies_bytes: one peer has half of it",
            );
        }
        self.ordered(
            ("server.body_bytes", &config.server.body_bytes),
            ("journal.bytes", &config.journal.bytes),
        );
        self.ordered(
            // A bound of one budget above that of all would never be reached.
            ("queue.per_budget", &config.queue.per_budget),
            ("queue.total", &config.queue.total),
        );
    }
}

/// Returns whether one of two listeners would take the connections of the other. An unspecified
/// address (`0.0.0.0`, `::`) includes every other; `::` takes IPv4 as well on most systems. Port 0
/// is any free one, so two of them never meet.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port()
        && one.port() != 0
        && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// What was found, and what is expected. The caller of [`url`] knows the key and its place.
type Wrong = (String, &'static str);

/// Checks the address of the API. A URL with user information is not shown: it may be a secret.
fn url(upstream: &UpstreamConfig) -> Result<(), Wrong> {
    const EXPECTED: &str =
        "`http://` or `https://`, a host and perhaps a port, such as `https://api.segmentapis.com`";
    let text = upstream.url.as_str();
    // First, so that no later message quotes a password.
    if text.contains('@') {
        let expected = "a URL without user information: the credential is the caller's";
        return Err(("a URL with user information".to_owned(), expected));
    }
    // Whatever is not a URL at all. The rules with a reason of their own have their own messages.
    let wrong = || (units::quoted(text), EXPECTED);
    // Paths are appended to the URL, so anything behind its authority would end up in the middle.
    if text.contains(['?', '#']) {
        return Err((units::quoted(text), "a URL without query and fragment"));
    }
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    // `authority` is host and port here, without user information.
    let port = authority
        .as_str()
        .strip_prefix(authority.host())
        .unwrap_or_default();
    // Parsing a URL does not bound its port.
    let wrong_port = !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0);
    if authority.host().is_empty() || wrong_port || !matches!(scheme, "http" | "https") {
        return Err(wrong());
    }
    // A trailing slash is common and harmless: `load` removes it.
    if !matches!(uri.path(), "" | "/") {
        return Err((
            units::quoted(text),
            "a URL without a path: it is the caller's that is sent on",
        ));
    }
    // The last rule: everything before holds of any URL, this one an operator may lift.
    if scheme == "http" && !upstream.allow_plain_http && !is_loopback(authority.host()) {
        let expected = "https, or a loopback address; `upstream.allow_plain_http = true` sends \
                        credentials in clear";
        return Err((units::quoted(text), expected));
    }
    Ok(())
}

/// Returns whether the host of a URL is this machine, by address or by the name `localhost`.
fn is_loopback(host: &str) -> bool {
    // A URL has an IPv6 address in brackets (RFC 3986, section 3.2.2).
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| {
        address.to_canonical().is_loopback()
    })
}
