//! The route of a connection: directly to the API, or through a proxy.
//!
//! The caller passes the values of the environment variables, so that the environment is read in
//! one place. `HTTPS_PROXY` applies to an https upstream, through a CONNECT tunnel. `HTTP_PROXY`
//! applies to a plain one, and the proxy gets the absolute URL. A loopback upstream is never
//! proxied: it is a sandbox on this machine, which a remote proxy could not reach. Credentials in a
//! proxy URL never appear in `Debug`. The module is not marked pure only because a library
//! evaluates `NO_PROXY`.

use std::fmt;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::base::Base;
use super::start::StartError;

/// The values of the usual environment variables. Empty where unset.
#[derive(Clone, Copy, Default)]
pub struct ProxyVariables<'a> {
    /// `HTTPS_PROXY`.
    pub https: &'a str,
    /// `HTTP_PROXY`.
    pub http: &'a str,
    /// `NO_PROXY`: names, addresses and networks, separated by commas. A name includes all names
    /// below it, with or without a leading `.` or `*.`. A suffix `:port` restricts an entry to that
    /// port. `*` matches everything.
    pub no: &'a str,
}

/// Validated rules that choose the proxy for a destination.
#[derive(Clone, Default)]
pub struct ProxyRules {
    /// The proxy of an https upstream.
    https: Option<Way>,
    /// The proxy of a plain upstream.
    http: Option<Way>,
    /// `NO_PROXY` as configured. Rewritten for the library once the port of the upstream is known.
    no: String,
}

/// The validated URL of a proxy. Its text may contain credentials, so it has no `Debug`.
#[derive(Clone)]
struct Way {
    text: String,
}

/// The route to one destination.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// Without a proxy.
    Direct,
    /// Through a CONNECT tunnel.
    Tunnel(Gate),
    /// Through a proxy that gets the absolute URL.
    Forward(Gate),
}

/// A proxy and the credentials for it.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) uri: Uri,
    pub(super) authorization: Option<HeaderValue>,
}

impl ProxyRules {
    /// Rules without any proxy.
    pub fn none() -> Self {
        Self::default()
    }

    /// Validates the variables.
    ///
    /// # Errors
    /// If a value is not the URL of an `http://` proxy. Ignoring it would send requests around a
    /// proxy that someone meant to use.
    pub fn parse(variables: ProxyVariables<'_>) -> Result<Self, StartError> {
        Ok(Self {
            https: way("HTTPS_PROXY", variables.https)?,
            http: way("HTTP_PROXY", variables.http)?,
            no: variables.no.to_owned(),
        })
    }

    /// The route to `base`.
    ///
    /// The route depends on the base alone, so a client chooses it once and not for each request.
    pub(super) fn route(&self, base: &Base) -> Route {
        let way = if base.is_https() {
            &self.https
        } else {
            &self.http
        };
        let Some(way) = way.as_ref().filter(|_| !base.is_loopback()) else {
            return Route::Direct;
        };
        let target = base.join(http::uri::PathAndQuery::from_static("/"));
        let matcher = Matcher::builder()
            .all(way.text.as_str())
            .no(exceptions(&self.no, target.as_ref().and_then(port)))
            .build();
        match target.and_then(|target| matcher.intercept(&target)) {
            None => Route::Direct,
            Some(intercept) if base.is_https() => Route::Tunnel(gate(&intercept)),
            Some(intercept) => Route::Forward(gate(&intercept)),
        }
    }
}

/// The port of a target, or the default port of its scheme.
fn port(target: &Uri) -> Option<u16> {
    let usual = match target.scheme_str()? {
        "https" => 443,
        _ => 80,
    };
    Some(target.port_u16().unwrap_or(usual))
}

/// The entries of `NO_PROXY` that apply to this port, in the syntax of the library, which supports
/// neither ports nor `*.`.
fn exceptions(no: &str, port: Option<u16>) -> String {
    let entries = no.split(',').filter_map(|entry| {
        let (host, only) = split_port(entry.trim());
        let host = host
            .strip_prefix("*.")
            .map_or(host.to_owned(), |domain| format!(".{domain}"));
        only.is_none_or(|only| Some(only) == port).then_some(host)
    });
    entries.collect::<Vec<_>>().join(",")
}

/// The host of an entry without brackets, and its port if the entry has one.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = entry
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return (
            host,
            rest.strip_prefix(':').and_then(|port| port.parse().ok()),
        );
    }
    match entry.split_once(':') {
        // An entry with several colons is an IPv6 address.
        Some((host, port)) if !port.contains(':') => (host, port.parse().ok()),
        _ => (entry, None),
    }
}

/// Validates the URL of a proxy. `None` if the variable is empty.
fn way(name: &'static str, value: &str) -> Result<Option<Way>, StartError> {
    let text = value.trim();
    if text.is_empty() {
        return Ok(None);
    }
    // The library reveals what it understood only for a request, so a probe is matched.
    let probe = Uri::from_static("https://probe.invalid/");
    let matcher = Matcher::builder().all(text).build();
    let intercept = matcher
        .intercept(&probe)
        .ok_or(StartError::ProxyMalformed(name))?;
    if intercept.uri().host().is_none_or(str::is_empty) {
        return Err(StartError::ProxyMalformed(name));
    }
    if intercept.uri().scheme_str() != Some("http") {
        return Err(StartError::ProxyScheme(name));
    }
    Ok(Some(Way {
        text: text.to_owned(),
    }))
}

/// Takes address and credentials of the proxy from what the library understood.
fn gate(intercept: &Intercept) -> Gate {
    Gate {
        uri: intercept.uri().clone(),
        authorization: intercept.basic_auth().cloned().map(|mut value| {
            // Keeps the credentials out of `Debug`.
            value.set_sensitive(true);
            value
        }),
    }
}

impl fmt::Debug for ProxyVariables<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProxyVariables")
            .field("no", &self.no)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProxyRules {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProxyRules")
            .field("https", &self.https.is_some())
            .field("http", &self.http.is_some())
            .field("no", &self.no)
            .finish()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Gate")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: ProxyVariables<'static> = ProxyVariables {
        https: "http://user:secret@proxy.test:3128",
        http: "plain.test:8080",
        no: "10.0.0.0/8, inside.test",
    };

    #[test]
    fn the_way_depends_on_scheme_host_and_exceptions() {
        let rules = ProxyRules::parse(BOTH).unwrap();
        for (base, way) in [
            ("https://api.segmentapis.com", "tunnel proxy.test"),
            ("http://api.segmentapis.com", "forward plain.test"),
            ("https://inside.test", "direct"),
            ("https://deep.inside.test", "direct"),
            ("https://notinside.test", "tunnel proxy.test"),
            ("https://10.1.2.3", "direct"),
            ("https://11.1.2.3", "tunnel proxy.test"),
            ("https://localhost:8443", "direct"),
            ("http://127.0.0.1:8089", "direct"),
            ("http://[::1]:8089", "direct"),
        ] {
            let shown = match rules.route(&Base::parse(base).unwrap()) {
                Route::Direct => "direct".to_owned(),
                Route::Tunnel(gate) => format!("tunnel {}", gate.uri.host().unwrap()),
                Route::Forward(gate) => format!("forward {}", gate.uri.host().unwrap()),
            };
            assert_eq!(shown, way, "{base}");
        }
    }

    #[test]
    fn exceptions_may_name_a_port_or_begin_with_an_asterisk() {
        for (no, base, direct) in [
            ("api.test:443", "https://api.test", true),
            ("api.test:443", "https://deep.api.test", true),
            ("api.test:443", "https://api.test:8443", false),
            ("api.test:8443", "https://api.test:8443", true),
            ("api.test:80", "http://api.test", true),
            ("api.test:80", "https://api.test", false),
            ("other.test, api.test:443", "https://api.test", true),
            ("*.api.test", "https://deep.api.test", true),
            ("*.api.test", "https://notapi.test", false),
            ("*.api.test:8443", "https://deep.api.test:8443", true),
            ("*.api.test:8443", "https://deep.api.test", false),
            ("10.1.2.3:443", "https://10.1.2.3", true),
            ("10.1.2.3:80", "https://10.1.2.3", false),
            ("2001:db8::1", "https://[2001:db8::1]", true),
            ("[2001:db8::1]", "https://[2001:db8::1]", true),
            ("[2001:db8::1]:443", "https://[2001:db8::1]", true),
            ("[2001:db8::1]:80", "https://[2001:db8::1]", false),
            ("2001:db8::/32", "https://[2001:db8::1]", true),
            ("*", "https://api.test", true),
            ("*:443", "https://api.test", true),
            ("*:80", "https://api.test", false),
            ("", "https://api.test", false),
            (",:,:443,", "https://api.test", false),
            ("api.test:", "https://api.test", true),
        ] {
            let rules = ProxyRules::parse(ProxyVariables { no, ..BOTH }).unwrap();
            let way = rules.route(&Base::parse(base).unwrap());
            assert_eq!(matches!(way, Route::Direct), direct, "{no} {base}");
        }
    }

    #[test]
    fn an_exception_for_all_and_unset_variables_mean_direct() {
        let all = ProxyRules::parse(ProxyVariables { no: "*", ..BOTH }).unwrap();
        let base = Base::parse("https://api.segmentapis.com").unwrap();
        assert!(matches!(all.route(&base), Route::Direct));
        assert!(matches!(ProxyRules::none().route(&base), Route::Direct));
        // A proxy for plain http says nothing about https.
        let plain = ProxyRules::parse(ProxyVariables { https: " ", ..BOTH }).unwrap();
        assert!(matches!(plain.route(&base), Route::Direct));
    }

    #[test]
    fn a_value_that_cannot_be_honoured_is_an_error_without_the_value() {
        for value in [
            "socks5://u:secret@p.test:1080",
            "https://u:secret@p.test",
            "ftp://u:secret@p",
        ] {
            let error = ProxyRules::parse(ProxyVariables {
                https: value,
                ..BOTH
            })
            .unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(
                text.contains("HTTPS_PROXY") && !text.contains("secret"),
                "{text}"
            );
        }
        for value in ["http://", "/path", "a b"] {
            assert!(matches!(
                ProxyRules::parse(ProxyVariables {
                    http: value,
                    ..BOTH
                }),
                Err(StartError::ProxyMalformed("HTTP_PROXY"))
            ));
        }
    }

    #[test]
    fn credentials_are_used_and_never_shown() {
        let rules = ProxyRules::parse(BOTH).unwrap();
        let route = rules.route(&Base::parse("https://api.segmentapis.com").unwrap());
        let shown = format!("{rules:?} {route:?} {BOTH:?}");
        assert!(
            !shown.contains("secret") && !shown.contains("user"),
            "{shown}"
        );
        let Route::Tunnel(gate) = route else {
            panic!("expected a tunnel")
        };
        let value = gate.authorization.unwrap();
        assert_eq!(value, "Basic dXNlcjpzZWNyZXQ=");
        assert!(value.is_sensitive());
    }
}
